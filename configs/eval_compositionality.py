r"""Compositionality, newer sets: false captions, false images, and pairs of both (docs/benchmarks/composition.md).

hypvl evaluate --config compositionality \
    --checkpoint-path checkpoints/meru_vit_l.pth --train-config meru_vit_l
"""

from .common.evaluation.compositionality import encoding, evaluate, roots, scored_by

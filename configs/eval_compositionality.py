r"""Compositionality, newer sets: false captions, false images, and pairs of both (docs/benchmarks/composition.md).

python scripts/evaluate.py --config configs/eval_compositionality.py \
    --checkpoint-path checkpoints/meru_vit_l.pth --train-config configs/train_meru_vit_l.py
"""

from .common.evaluation.compositionality import encoding, evaluate, roots, scored_by

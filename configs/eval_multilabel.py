r"""Multi-label zero-shot classification: VOC 2007, COCO, ComCo and SimCo (docs/benchmarks/classification.md).

hypvl evaluate --config multilabel \
    --checkpoint-path checkpoints/meru_vit_l.pth --train-config meru_vit_l
"""

from .common.evaluation.multilabel import encoding, ensemble, evaluate, roots

r"""Multi-label zero-shot classification: VOC 2007, COCO, ComCo and SimCo (docs/benchmarks/classification.md).

python scripts/evaluate.py --config configs/eval_multilabel.py \
    --checkpoint-path checkpoints/meru_vit_l.pth --train-config configs/train_meru_vit_l.py
"""

from .common.evaluation.multilabel import encoding, ensemble, evaluate, roots

r"""Robustness: ImageNet-V2, -A, -R, -Sketch, -O, ObjectNet, and more of DataComp (docs/benchmarks/classification.md).

python scripts/evaluate.py --config configs/eval_robustness.py \
    --checkpoint-path checkpoints/meru_vit_l.pth --train-config configs/train_meru_vit_l.py
"""

from .common.evaluation.robustness import download, encoding, ensemble, evaluate, roots

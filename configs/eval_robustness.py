r"""Robustness: ImageNet-V2, -A, -R, -Sketch, -O, ObjectNet, and more of DataComp (docs/benchmarks/classification.md).

hypvl evaluate --config robustness \
    --checkpoint-path checkpoints/meru_vit_l.pth --train-config meru_vit_l
"""

from .common.evaluation.robustness import download, encoding, ensemble, evaluate, roots

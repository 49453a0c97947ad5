r"""Hierarchy and entailment: WordNet over ImageNet, HierarCaps, boxes and wholes, PEP, radial order, HiMo@K.

python scripts/evaluate.py --config configs/eval_hierarchical_metrics.py \
    --checkpoint-path checkpoints/meru_vit_l.pth --train-config configs/train_meru_vit_l.py
"""

from .common.evaluation.hierarchy import encoding, evaluate, roots

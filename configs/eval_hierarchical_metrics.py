r"""Hierarchy and entailment: WordNet over ImageNet, HierarCaps, boxes and wholes, PEP, radial order, HiMo@K.

hypvl evaluate --config hierarchical_metrics \
    --checkpoint-path checkpoints/meru_vit_l.pth --train-config meru_vit_l
"""

from .common.evaluation.hierarchy import encoding, evaluate, roots

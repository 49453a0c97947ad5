r"""The demo's test sets: digits, objects by colour and shape, retrieval, radii, hierarchy, hard negatives, traversals.

hypvl evaluate --config demo --checkpoint-path output/demo_meru/checkpoint_final.pth
"""

from .common.evaluation.demo import encoding, evaluate, roots

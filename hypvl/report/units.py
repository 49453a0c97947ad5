"""What a metric is measured in, by its name: only what has one unit can be averaged."""

import re

PERCENT = "%"
_OF_HIERARCHIES = ("hierarchical_precision", "hierarchical_recall")  # shares in [0, 1]
# Pieces of names, between underscores or at the ends; the text's, image's and group's scores of Winoground are percent,
# those of captions (clip_score ...) are not.
_IN_PERCENT = re.compile(
    r"""(?x) (?:^|_) (?:
        (?:\w+_)?accuracy | recall | share | kendall | pearson | auroc | roc_auc | auc | ap | ties | precision
        | r_precision | map@r | map_11_points | average_precision | acc | p_c | p_f | min_p | f1 | purity
        | entailment | radius_order | radial_order | violation_rate | saturated_cones | clipped | flat_distortion
        | flat_top1_agreement | curv_at_bound | linear_separability | seed_std
    ) (?:_|@|$) | ^(?:text|image|group)_score(?:_(?!(?:kendall|pearson))|$)"""
)


def unit_of(metric: str) -> str:
    """``"%"``, or the name of a metric in a unit of its own: a radius, a distance, edges of a tree, a correlation.

    ``_chance`` and ``after_`` change no unit.
    """
    name = metric.removesuffix("_chance").removeprefix("after_")
    if name in _OF_HIERARCHIES:
        return name
    return PERCENT if _IN_PERCENT.search(name) else name

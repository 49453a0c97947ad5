r"""Winoground: text, image and group score (docs/benchmarks/composition.md).

hypvl evaluate --config winoground \
    --checkpoint-path checkpoints/meru_vit_l.pth --train-config meru_vit_l
"""

from hypvl.config import LazyCall as L
from hypvl.datasets.composition.winoground import winoground
from hypvl.evaluation.winoground_score import CaptionGroups

from .common.encoding import encoding as encoding

roots = {"winoground": "./datasets/winoground"}
scored_by = "embeddings"  # "pair_scorer": image and caption together, by the model's matching head
evaluate = {
    "winoground": L(CaptionGroups)(
        dataset=L(winoground)(root="${roots.winoground}"), scored_by="${scored_by}", encoding="${encoding}"
    )
}

"""Compositionality: choices of a caption, choices of an image, groups of two images and two captions."""

from hypvl.config import LazyCall as L
from hypvl.datasets.composition.pairs import LAYOUTS, caption_pairs
from hypvl.datasets.composition.sugarcrepe_pp import sugarcrepe_pp
from hypvl.evaluation.paraphrase_choice import ParaphraseChoice
from hypvl.evaluation.winoground_score import CaptionGroups

from ..encoding import encoding as encoding

roots = {
    "coco": "./datasets/coco",
    "sugarcrepe_pp": "./datasets/sugarcrepe_pp",
    **{name: f"./datasets/{name}" for name in LAYOUTS},
}
scored_by = "embeddings"  # "pair_scorer": image and caption together, by the model's matching head
evaluate = {
    "sugarcrepe_pp": L(ParaphraseChoice)(
        dataset=L(sugarcrepe_pp)(root="${roots.sugarcrepe_pp}", images="${roots.coco}/val2017"),
        encoding="${encoding}",
    ),
    **{
        name: L(CaptionGroups)(
            dataset=L(caption_pairs)(name=name, root="${roots." + name + "}"),
            scored_by="${scored_by}",
            encoding="${encoding}",
        )
        for name in LAYOUTS
    },
}

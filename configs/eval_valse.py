r"""VALSE: eleven files of captions and foils (docs/benchmarks/composition.md).

hypvl evaluate --config valse \
    --checkpoint-path checkpoints/meru_vit_l.pth --train-config meru_vit_l
"""

from hypvl.config import LazyCall as L
from hypvl.datasets.composition.valse import PIECES, valse
from hypvl.evaluation.foil_accuracy import CaptionChoice

from .common.encoding import encoding as encoding

roots = {
    "valse": "./datasets/valse",
    "coco": "./datasets/coco",
    "visual7w": "./datasets/visual7w/images",
    "swig": "./datasets/swig/images_512",
    "visdial": "./datasets/visdial/VisualDialog_val2018",
}
_images = {name: "${roots." + name + "}" for name in ("coco", "visual7w", "swig", "visdial")}
scored_by = "embeddings"  # "pair_scorer": image and caption together, by the model's matching head
evaluate = {
    "valse": L(CaptionChoice)(
        dataset=L(valse)(root="${roots.valse}", **_images, pieces=list(PIECES), min_votes=2),
        main_metric="macro_accuracy",
        extra=["auroc"],
        scored_by="${scored_by}",
        encoding="${encoding}",
    )
}

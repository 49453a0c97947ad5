r"""SugarCrepe on COCO val2017 (docs/benchmarks/composition.md).

hypvl evaluate --config sugarcrepe \
    --checkpoint-path checkpoints/meru_vit_l.pth --train-config meru_vit_l
"""

from hypvl.config import LazyCall as L
from hypvl.datasets.composition.sugarcrepe import sugarcrepe
from hypvl.evaluation.foil_accuracy import CaptionChoice

from .common.encoding import encoding as encoding

roots = {"sugarcrepe": "./datasets/sugarcrepe", "coco": "./datasets/coco"}
scored_by = "embeddings"  # "pair_scorer": image and caption together, by the model's matching head
evaluate = {
    "sugarcrepe": L(CaptionChoice)(
        dataset=L(sugarcrepe)(root="${roots.sugarcrepe}", images="${roots.coco}/val2017"),
        main_metric="macro_accuracy",
        scored_by="${scored_by}",
        encoding="${encoding}",
    )
}

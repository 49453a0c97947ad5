r"""VL-CheckList: objects, attributes and relations (docs/benchmarks/composition.md).

hypvl evaluate --config vlchecklist \
    --checkpoint-path checkpoints/meru_vit_l.pth --train-config meru_vit_l
"""

from hypvl.config import LazyCall as L
from hypvl.datasets.composition.vl_checklist import vl_checklist
from hypvl.evaluation.foil_accuracy import CaptionChoice

from .common.encoding import encoding as encoding

roots = {"vlchecklist": "./datasets/vlchecklist", "vlchecklist_images": "./datasets/vlchecklist/images"}
scored_by = "embeddings"  # "pair_scorer": image and caption together, by the model's matching head
evaluate = {
    "vlchecklist": L(CaptionChoice)(
        dataset=L(vl_checklist)(
            root="${roots.vlchecklist}", images="${roots.vlchecklist_images}", types=None, limit=1000
        ),
        main_metric="macro_accuracy",
        scored_by="${scored_by}",
        encoding="${encoding}",
    )
}

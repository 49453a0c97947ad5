r"""ARO: relations and attributes of Visual Genome, the order of words in COCO and Flickr30k (docs/evaluation.md).

python scripts/evaluate.py --config configs/eval_aro.py \
    --checkpoint-path checkpoints/meru_vit_l.pth --train-config configs/train_meru_vit_l.py
"""

from hypvl.config import LazyCall as L
from hypvl.evaluation.caption_choice import CaptionChoice
from hypvl.evaluation.datasets import aro

from .common.encoding import encoding as encoding

roots = {"aro": "./datasets/aro", "coco": "./datasets/coco", "flickr30k": "./datasets/flickr30k"}
_sets = {
    "vg_relation": (L(aro.relations)(root="${roots.aro}"), "macro_accuracy"),
    "vg_attribution": (L(aro.attributes)(root="${roots.aro}"), "macro_accuracy"),
    "coco_order": (L(aro.order)(annotations="${roots.coco}/coco_karpathy_test.json", seed=0), "accuracy"),
    "flickr30k_order": (
        L(aro.order)(
            annotations="${roots.flickr30k}/flickr30k_test.json",
            images="${roots.flickr30k}/flickr30k_images",
            seed=0,
        ),
        "accuracy",
    ),
}
evaluate = {
    name: L(CaptionChoice)(dataset=dataset, main_metric=metric, kinds="items", encoding="${encoding}")
    for name, (dataset, metric) in _sets.items()
}

"""ARO: relations and attributes of Visual Genome, the order of words in COCO and Flickr30k."""

from hypvl.config import LazyCall as L
from hypvl.datasets.composition import aro
from hypvl.evaluation.foil_accuracy import CaptionChoice

from ..encoding import encoding as encoding

roots = {"aro": "./datasets/aro", "coco": "./datasets/coco", "flickr30k": "./datasets/flickr30k"}
download = True
scored_by = "embeddings"  # "pair_scorer": image and caption together, by the model's matching head
_macro = {
    "main_metric": "macro_accuracy",
    "kinds": "items",
    "scored_by": "${scored_by}",
    "encoding": "${encoding}",
}
_all = {**_macro, "main_metric": "accuracy"}
evaluate = {
    "vg_relation": L(CaptionChoice)(
        dataset=L(aro.relations)(root="${roots.aro}", left_out=None, download="${download}"), **_macro
    ),
    "vg_attribution": L(CaptionChoice)(
        dataset=L(aro.attributes)(root="${roots.aro}", min_cases=25, download="${download}"), **_macro
    ),
    "coco_order": L(CaptionChoice)(
        dataset=L(aro.order)(
            annotations="${roots.coco}/coco_karpathy_test.json", seed=0, download="${download}"
        ),
        **_all,
    ),
    "flickr30k_order": L(CaptionChoice)(
        dataset=L(aro.order)(
            annotations="${roots.flickr30k}/flickr30k_test.json",
            images="${roots.flickr30k}/flickr30k_images",
            seed=0,
            download="${download}",
        ),
        **_all,
    ),
}

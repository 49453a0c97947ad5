"""I0T's retrieval sets: GOLD caption files, one caption an image, and ShareGPT4V's validation entries."""

from hypvl.config import LazyCall as L
from hypvl.datasets.retrieval.coco import gold, nocaps
from hypvl.datasets.retrieval.long_captions import share_gpt4v
from hypvl.evaluation.retrieval import ZeroShotRetrieval

from ..encoding import encoding as encoding

roots = {"i0t": "./datasets/i0t", "i0t_captions": "./datasets/i0t_captions"}
_cut = {"captions_per_image": 1, "max_characters": None}
_sets = {
    "coco_gold": L(gold)(
        path="${roots.i0t_captions}/COCO_GOLD.json", images="${roots.i0t}/coco/val2014", **_cut
    ),
    "flickr_gold": L(gold)(
        path="${roots.i0t_captions}/Flickr_GOLD.json", images="${roots.i0t}/flickr30k-images", **_cut
    ),
    "nocaps_gold": L(nocaps)(
        annotations="${roots.i0t_captions}/NoCaps_GOLD.json", images="${roots.i0t}/nocaps/images", **_cut
    ),
    "share_gpt4v": L(share_gpt4v)(root="${roots.i0t}/sharegpt4v", entries=1000),
}
evaluate = {
    name: L(ZeroShotRetrieval)(dataset=dataset, ks=[1, 5, 10], resize="crop", encoding="${encoding}")
    for name, dataset in _sets.items()
}

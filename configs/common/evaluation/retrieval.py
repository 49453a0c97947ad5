"""Images and captions both ways: COCO three ways, ECCV Caption, Flickr30k, NoCaps, and long captions."""

from hypvl.config import LazyCall as L
from hypvl.datasets.retrieval.coco import coco, coco_karpathy, flickr30k, nocaps
from hypvl.datasets.retrieval.long_captions import caption_folder
from hypvl.datasets.retrieval.positives import caption_positives
from hypvl.datasets.retrieval.table import table
from hypvl.evaluation.retrieval import ZeroShotRetrieval

from ..encoding import encoding as encoding

roots = {
    "coco": "./datasets/coco",
    "eccv_caption": "./datasets/eccv_caption",
    "flickr30k": "./datasets/flickr30k",
    "nocaps": "./datasets/nocaps",
    "urban1k": "./datasets/Urban1k",
    "docci": "./datasets/docci",
}
_coco_5k = L(coco_karpathy)(root="${roots.coco}", split="test", captions_per_image=5)
_sets = {
    "coco": L(coco)(root="${roots.coco}"),
    "coco_5k": _coco_5k,
    "coco_1k": _coco_5k,
    "eccv_caption": _coco_5k,
    "flickr30k": L(flickr30k)(root="${roots.flickr30k}"),
    "nocaps": L(nocaps)(
        annotations="${roots.nocaps}/nocaps_val_4500_captions.json", images="${roots.nocaps}/images"
    ),
    "urban1k": L(caption_folder)(root="${roots.urban1k}"),
    "docci": L(table)(
        path="${roots.docci}/docci_descriptions.jsonlines",
        images_root="${roots.docci}/images",
        image_column="image_file",
        caption_column="description",
        where={"split": "test"},
    ),
}
rerank = None  # the first so many of each query in the order of the model's matching head, such as 128
pair_scorer = (
    None  # of another model: the node of hypvl.models.foreign.matching_head (docs/benchmarks/retrieval.md)
)
rerank_score = "pair"  # "sum": plus the score of the embeddings
evaluate = {
    name: L(ZeroShotRetrieval)(
        dataset=dataset,
        ks=[1, 5, 10],
        rerank="${rerank}",
        rerank_score="${rerank_score}",
        pair_scorer="${pair_scorer}",
        encoding="${encoding}",
    )
    for name, dataset in _sets.items()
}
evaluate["coco_1k"].folds = 5
evaluate["eccv_caption"].positives = L(caption_positives)(root="${roots.eccv_caption}", name="eccv")

"""Hierarchy and entailment: WordNet, HierarCaps, PEP, HiMo@K, boxes and wholes, radial order."""

from hypvl.config import LazyCall as L
from hypvl.datasets.classification import by_name
from hypvl.datasets.hierarchy.boxes import coco_boxes
from hypvl.datasets.hierarchy.caption_chains import hierarcaps
from hypvl.datasets.hierarchy.is_a import folder_nodes
from hypvl.datasets.retrieval.coco import coco, flickr30k
from hypvl.datasets.retrieval.long_captions import caption_folder
from hypvl.datasets.retrieval.table import table
from hypvl.evaluation.box_order import BoxOrder
from hypvl.evaluation.chain_entailment import ChainEntailment
from hypvl.evaluation.hierarcaps import HierarCaps
from hypvl.evaluation.hierarchical import HierarchicalClassification
from hypvl.evaluation.himo import HiMo
from hypvl.evaluation.pep import EntailmentPairs
from hypvl.evaluation.radial_order import RadialOrder

from ..encoding import encoding as encoding

roots = {
    "eval": "./datasets/eval",
    "wordnet": "./datasets/wordnet",
    "hierarcaps": "./datasets/hierarcaps",
    "coco": "./datasets/coco",
    "flickr30k": "./datasets/flickr30k",
    "urban1k": "./datasets/Urban1k",
    "docci": "./datasets/docci",
}
_chains = L(hierarcaps)(root="${roots.hierarcaps}", annotations=None, images_root=None)
_pairs = {"coco": L(coco)(root="${roots.coco}"), "flickr30k": L(flickr30k)(root="${roots.flickr30k}")}
_long = {
    "urban1k": L(caption_folder)(root="${roots.urban1k}"),
    "docci": L(table)(
        path="${roots.docci}/docci_descriptions.jsonlines",
        images_root="${roots.docci}/images",
        image_column="image_file",
        caption_column="description",
        where={"split": "test"},
    ),
}
evaluate = {
    "imagenet": L(HierarchicalClassification)(
        dataset=L(by_name.classification_set)(name="imagenet", root="${roots.eval}"),
        tree="${roots.wordnet}/wordnet.is_a.txt",
        nodes=L(folder_nodes)(root="${roots.eval}/imagenet/val"),
        words=None,
        prompts=L(by_name.classification_prompts)(name="imagenet"),
        encoding="${encoding}",
    ),
    "hierarcaps": L(HierarCaps)(
        dataset=_chains,
        steps=50,
        root_text=None,
        encoding="${encoding}",
    ),
    "hierarcaps_pep": L(ChainEntailment)(dataset=_chains, negatives=100, seed=0, encoding="${encoding}"),
    "coco_boxes": L(BoxOrder)(
        dataset=L(coco_boxes)(root="${roots.coco}"), aperture_factor=1.0, encoding="${encoding}"
    ),
    **{
        f"{name}_pep": L(EntailmentPairs)(dataset=dataset, negatives=5, limit=5000, encoding="${encoding}")
        for name, dataset in _pairs.items()
    },
    **{
        f"{name}_order": L(RadialOrder)(dataset=dataset, rounds=1000, encoding="${encoding}")
        for name, dataset in _pairs.items()
    },
    **{
        f"{name}_himo": L(HiMo)(dataset=dataset, ks=[2, 3, 4, 5], encoding="${encoding}")
        for name, dataset in _long.items()
    },
}

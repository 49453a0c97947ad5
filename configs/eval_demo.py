r"""The demo's test sets: digits, single objects by colour and shape, retrieval, radii, traversals.

python scripts/evaluate.py --config configs/eval_demo.py --checkpoint-path output/demo_meru/checkpoint_final.pth
"""

from hypvl.config import LazyCall as L
from hypvl.evaluation import catalog
from hypvl.evaluation.radii import EmbeddingRadii
from hypvl.evaluation.retrieval import ZeroShotRetrieval
from hypvl.evaluation.traversal_levels import TraversalLevels
from hypvl.evaluation.zero_shot import ZeroShotClassification

from .common.encoding import encoding as encoding

encoding.num_workers, roots = 1, {"demo": "./datasets/demo"}
_scenes = L(catalog.demo_retrieval_set)(root="${roots.demo}")
evaluate = {
    name: L(ZeroShotClassification)(
        dataset=L(catalog.demo_classification_set)(name=name, root="${roots.demo}"), encoding="${encoding}"
    )
    for name in catalog.DEMO_CLASSIFICATION_SETS
}
evaluate["scenes_retrieval"] = L(ZeroShotRetrieval)(dataset=_scenes, ks=[1, 5, 10], encoding="${encoding}")
evaluate["scenes_radii"] = L(EmbeddingRadii)(dataset=_scenes, encoding="${encoding}")
evaluate["scenes_traversals"] = L(TraversalLevels)(
    hierarchy="${roots.demo}/eval/hierarchy.json",
    levels="${roots.demo}/text_pool_levels.json",
    limit=100,
    encoding="${encoding}",
)

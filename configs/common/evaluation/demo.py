"""All measures on the demo data: classification, retrieval, radii, gap, geometry, hierarchy, hard negatives."""

from hypvl.config import LazyCall as L
from hypvl.datasets import demo
from hypvl.evaluation.foil_accuracy import CaptionChoice
from hypvl.evaluation.geometry_audit import GeometryAudit
from hypvl.evaluation.hierarchical import HierarchicalClassification
from hypvl.evaluation.modality_gap import ModalityGap
from hypvl.evaluation.radii import EmbeddingRadii
from hypvl.evaluation.retrieval import ZeroShotRetrieval
from hypvl.evaluation.traversal_levels import TraversalLevels
from hypvl.evaluation.zero_shot import ZeroShotClassification

from ..encoding import encoding

encoding.num_workers = 1
roots = {"demo": "./datasets/demo"}
_scenes = L(demo.demo_retrieval_set)(root="${roots.demo}")
evaluate = {
    name: L(ZeroShotClassification)(
        dataset=L(demo.demo_classification_set)(name=name, root="${roots.demo}"), encoding="${encoding}"
    )
    for name in demo.DEMO_CLASSIFICATION_SETS
}
evaluate["scenes_retrieval"] = L(ZeroShotRetrieval)(dataset=_scenes, ks=[1, 5, 10], encoding="${encoding}")
evaluate["scenes_radii"] = L(EmbeddingRadii)(dataset=_scenes, encoding="${encoding}")
evaluate["scenes_gap"] = L(ModalityGap)(dataset=_scenes, encoding="${encoding}")
evaluate["scenes_geometry"] = L(GeometryAudit)(dataset=_scenes, encoding="${encoding}")
evaluate["scenes_hierarchy"] = L(HierarchicalClassification)(
    dataset=L(demo.demo_objects)(root="${roots.demo}"),
    tree="${roots.demo}/eval/tree.json",
    encoding="${encoding}",
)
evaluate["scenes_choices"] = L(CaptionChoice)(
    dataset=L(demo.demo_choices)(hierarchy="${roots.demo}/eval/hierarchy.json"), encoding="${encoding}"
)
evaluate["scenes_traversals"] = L(TraversalLevels)(
    hierarchy="${roots.demo}/eval/hierarchy.json",
    levels="${roots.demo}/text_pool_levels.json",
    limit=100,
    encoding="${encoding}",
)

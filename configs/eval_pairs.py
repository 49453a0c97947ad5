r"""Retrieval, radii, modality gap and geometry audit on images and captions of your own (docs/own_data.md).

hypvl evaluate --config pairs --checkpoint-path output/mine \
    roots.pairs=datasets/mine/pairs.csv
"""

from hypvl.config import LazyCall as L
from hypvl.datasets.retrieval.table import table
from hypvl.evaluation.geometry_audit import GeometryAudit
from hypvl.evaluation.modality_gap import ModalityGap
from hypvl.evaluation.radii import EmbeddingRadii
from hypvl.evaluation.retrieval import ZeroShotRetrieval

from .common.encoding import encoding

roots = {"pairs": "./datasets/mine/pairs.csv"}
_EVALUATORS = {
    "pairs_retrieval": ZeroShotRetrieval,
    "pairs_radii": EmbeddingRadii,
    "pairs_gap": ModalityGap,
    "pairs_geometry": GeometryAudit,
}
evaluate = {
    name: L(evaluator)(dataset=L(table)(path="${roots.pairs}"), encoding="${encoding}")
    for name, evaluator in _EVALUATORS.items()
}

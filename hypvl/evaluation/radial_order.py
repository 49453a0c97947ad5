"""Whether captions lie nearer the root than their own images, beyond the difference between the modalities."""

from dataclasses import KW_ONLY, dataclass

import torch

from hypvl.allowlist import configurable
from hypvl.checks import whole_number, whole_number_or_none
from hypvl.datasets.protocol import RetrievalSet, check_set
from hypvl.diagnostics import audit
from hypvl.embedding.encode import CachedEncoder
from hypvl.embedding.pairs import encode_pairs
from hypvl.embedding.protocol import EvaluableModel, evaluating
from hypvl.evaluation.protocol import EvaluationResult, Evaluator
from hypvl.metrics.chains import order_hits


@configurable("evaluate")
@dataclass
class RadialOrder(Evaluator):
    """Radial order of captions and their images against a shuffled null.

    Metrics, in percent (:func:`hypvl.diagnostics.audit.radial_order`): ``auc`` (the main one), pairs whose caption lies
    nearer the root than its image, a tie counting half; ``auc_null`` and ``auc_null_std`` with shuffled partners: the
    part that the radii of the two modalities explain without the pairing; ``auc_null_quantile``, the share of the
    shuffles below the AUC; and ``auc_above_null``, the difference from their mean. Distances are in flat coordinates
    (for Lorentz geodesic); on the sphere to the mean of all embeddings.

    Items, one per pair: ``key``, ``text_radius``, ``image_radius``.

    Args:
        dataset: Images and captions; the first caption of each.
        rounds: Number of shuffles, at least 2.
        limit: Largest number of images, at least 2, evenly spread; None = all.
        seed: Of the shuffles.

    Source: arXiv 2607.05268.
    """

    dataset: RetrievalSet
    _: KW_ONLY
    rounds: int = 1000
    limit: int | None = None
    seed: int = 0

    main_metric = "auc"

    def __post_init__(self) -> None:
        whole_number("rounds", self.rounds, least=2)
        whole_number_or_none("limit", self.limit, least=2)
        check_set(self.dataset, RetrievalSet)

    def measure(self, model: EvaluableModel, encoder: CachedEncoder) -> EvaluationResult:
        pairs = encode_pairs(encoder, self.dataset, limit=self.limit, what="radial order")
        with evaluating(model) as device:
            far = audit.root_distances(model.geometry, pairs.images.to(device), pairs.texts.to(device))
        images, texts = (distances.cpu() for distances in far)
        order = audit.radial_order(
            texts, images, generator=torch.Generator().manual_seed(self.seed), rounds=self.rounds
        )
        result = EvaluationResult(
            metrics={name: 100.0 * value for name, value in order.items()},
            items={"key": pairs.keys, "text_radius": texts.tolist(), "image_radius": images.tolist()},
            meta={**pairs.meta, "rounds": self.rounds, "seed": self.seed},
        )
        result.add_mean("auc", order_hits(texts, images))
        result.metrics["auc_above_null"] = result.metrics["auc"] - result.metrics["auc_null"]
        return result

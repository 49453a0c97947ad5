"""The score of models that describe an image by several vectors."""

from torch import Tensor

from hypvl.allowlist import configurable
from hypvl.checks import whole_number
from hypvl.geometry import kernels
from hypvl.geometry.base import Geometry
from hypvl.geometry.scorers import LOG_SCALE_INIT, LOG_SCALE_MAX, Modality, Scorer
from hypvl.numerics import full_precision, inner_products
from hypvl.ops.tiled_logsumexp.kernels import TileableGeometry, TiledScores


@configurable("model")
class LargestTokenCosine(Scorer):
    """Logits s max_t cos(x_t, y_t): the vector of the image that is closest to the text, as BLIP-2's contrastive head.

    An embedding is a unit vector of ``tokens`` equal parts, each of length 1 / sqrt(tokens); those of a text are all
    the same. Two images, or two texts, are compared by the mean cosine of their parts.

    Args:
        tokens: Vectors of an image, at least 1.
        log_scale_init, log_scale_max: As :class:`~hypvl.geometry.scorers.Scorer`.

    Source: BLIP-2 (Li et al. 2023, arXiv 2301.12597), section 3.2.
    """

    ranks_by_distance = False  # no inner product of fixed vectors

    def __init__(
        self,
        *,
        tokens: int,
        log_scale_init: float = LOG_SCALE_INIT,
        log_scale_max: float = LOG_SCALE_MAX,
    ) -> None:
        super().__init__(log_scale_init=log_scale_init, log_scale_max=log_scale_max)
        self.tokens = whole_number("tokens", tokens, least=1)

    @full_precision
    def _similarity(self, geometry: Geometry, query: Tensor, key: Tensor, *modalities: Modality) -> Tensor:
        if modalities[0] == modalities[1]:
            return super()._similarity(geometry, query, key, *modalities)
        if query.shape[-1] % self.tokens:
            raise ValueError(
                f"tokens: got {self.tokens} for embeddings of {query.shape[-1]} numbers; expected a divisor of them."
            )
        width = query.shape[-1] // self.tokens
        query, key = kernels.within_reach(query), kernels.within_reach(key)
        largest: Tensor | None = None
        for x, y in zip(query.split(width, dim=-1), key.split(width, dim=-1), strict=True):
            cosine = inner_products(x, y)  # (Q, K), of one token
            largest = cosine if largest is None else largest.maximum(cosine)
        assert largest is not None
        return self.tokens * largest

    def _ranking(self, geometry: Geometry, query: Tensor, key: Tensor, *modalities: Modality) -> Tensor:
        return self._similarity(geometry, query, key, *modalities)

    def _tiled(
        self, geometry: TileableGeometry, query: Tensor, key: Tensor, *modalities: Modality, scale: Tensor
    ) -> TiledScores | None:
        if modalities[0] == modalities[1]:
            return super()._tiled(geometry, query, key, *modalities, scale=scale)
        return None

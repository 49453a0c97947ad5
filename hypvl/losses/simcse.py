"""SimCSE: a text with one dropout finds itself with another among all texts of the batch."""

import math
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from hypvl.allowlist import configurable
from hypvl.checks import number, one_of
from hypvl.geometry.base import Geometry
from hypvl.geometry.scorers import Cosine, Modality, Scorer
from hypvl.geometry.sphere import Sphere
from hypvl.losses.base import PairContext, PairTerm, View
from hypvl.losses.info_nce import Implementation, check_implementation, info_nce

Variant: TypeAlias = Literal["original", "itra"]


@configurable("train")
class SimCSE(PairTerm):
    """:func:`~hypvl.losses.info_nce.info_nce` of cosines of features at a fixed scale, whatever the model's scorer is.

    Args:
        first, second: Two encodings of the same texts: ``"text"`` and ``"text#1"`` differ by their dropout.
        scale: Of the cosines, > 0; 1 / the temperature 0.05.
        variant: ``"original"`` asks from first to second; ``"itra"`` takes the mean of both directions, and its scale
            is exp(2.996) = 20.005.
        implementation: As for :func:`~hypvl.losses.info_nce.info_nce`.

    Source: Gao et al. 2021 (arXiv 2104.08821), eq. 4.
    """

    def __init__(
        self,
        *,
        first: str | View = "text",
        second: str | View = "text#1",
        scale: float = 20.0,
        variant: Variant = "original",
        implementation: Implementation = "auto",
    ) -> None:
        super().__init__(first=first, second=second)
        self.scale = number("scale", scale, above=0)
        self.variant = one_of("variant", variant, Variant)
        check_implementation(implementation, None)
        self.implementation: Implementation = implementation

    def forward(self, ctx: PairContext) -> Tensor:
        features = {view: ctx.features(view) for view in (self.first, self.second)}
        model = _Cosines(self.scale, features[self.first].device)
        losses = info_nce(
            PairContext(features, batch=ctx.batch, model=model),
            self.first,
            self.second,
            both_directions=self.variant == "itra",
            implementation=self.implementation,
        )
        return losses.mean()


class _FixedCosine(Cosine):
    """Cosines times a number in fp64 that is not trained."""

    def __init__(self, scale: float, device: torch.device) -> None:
        super().__init__()
        self.log_scale = torch.nn.Parameter(
            torch.tensor(math.log(scale), dtype=torch.float64, device=device), requires_grad=False
        )


class _Cosines:
    """As much of a model as scores need: features on the unit sphere."""

    def __init__(self, scale: float, device: torch.device) -> None:
        self.geometry: Geometry = Sphere()
        self.scorer: Scorer = _FixedCosine(scale, device)

    def embed(self, features: Tensor, *, modality: Modality) -> Tensor:
        return self.geometry.lift(features)

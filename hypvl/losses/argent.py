"""Entailment by the exterior angle alone, and a regulariser of norms, as a reading of ARGENT.

What could be found of the paper (arXiv 2603.23311) is its abstract and project page: the exterior angle is minimised
directly, without the aperture of a cone; an adaptive weight keeps nearly identical pairs from being pushed apart; a
regulariser of norms acts against the collapse of cones. Its equations, weights, schedule and code are not published.
The formulae here are the reading of Hyper3Labs (PyPI hyper_models 0.4.0), not the authors'. That package gives the norm
the weight 0 by default; the weights of the recipe are hypvl's own choice, as is its contrast, which is HyCoCLIP's.
"""

from collections.abc import Sequence
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from hypvl.allowlist import configurable
from hypvl.checks import number, one_of
from hypvl.losses.base import IMAGE, TEXT, LossTerm, PairContext, View
from hypvl.losses.entailment import Entailment, cones_of
from hypvl.losses.owners import Over
from hypvl.losses.uncertainty import BOX_IMAGE, BOX_TEXT
from hypvl.numerics import full_precision, safe_sqrt

Weighting: TypeAlias = Literal["distance", "none"]
_SMALLEST_NORM = 1e-6


@full_precision
def adaptive_entailment(
    exterior_angle: Tensor, distance: Tensor | None = None, *, beta: float = 1.0
) -> Tensor:
    """Huber loss of the exterior angle, which counts less the closer a pair is.

    Formula: ``huber(phi g)``, mean over factors; ``huber(t) = t^2 / 2`` up to beta, ``beta (t - beta / 2)`` beyond, and
    ``g = 1 - exp(-d)``, with gradient.

    Args:
        exterior_angle: phi, (B, F) radians in [0, pi].
        distance: d of each pair, (B,); None = g is 1.
        beta: > 0, radians.

    Returns:
        (B,), >= 0.

    Source: ARGENT (arXiv 2603.23311) as Hyper3Labs reads it, see :mod:`hypvl.losses.argent`.

    Example:
        >>> adaptive_entailment(torch.tensor([0.5, 2.0]))
        tensor(0.8125)
    """
    if distance is not None:
        exterior_angle = exterior_angle * -torch.expm1(-distance)[:, None]
    loss = F.huber_loss(exterior_angle, torch.zeros_like(exterior_angle), delta=beta, reduction="none")
    return loss.mean(-1)


@full_precision
def norm_regularization(embeddings: Tensor) -> Tensor:
    """``|x|^2 - log |x|``: keeps points from the root and from the boundary; least at |x| = 2^-0.5.

    Args:
        embeddings: (..., D); |x| is their Euclidean norm, of at least 1e-6. Norms whose square is beyond the dtype
            count as the largest with one.

    Returns:
        (...), >= 0.84; gradient 0 where |x| counts as another norm.

    Source: as :func:`adaptive_entailment`.

    Example:
        >>> norm_regularization(torch.tensor([[1.0, 0.0]]))
        tensor([1.])
    """
    largest = torch.finfo(embeddings.dtype).max ** 0.5 / 4096  # so that a sum over rows is a number, too
    norm = safe_sqrt(embeddings.square().sum(-1)).clamp(min=_SMALLEST_NORM, max=largest)
    return norm.square() - norm.log()


@configurable("train")
class AdaptiveEntailment(Entailment):
    """Mean of :func:`adaptive_entailment` of each local (general, specific) pair.

    Args:
        general, specific, over: As :class:`~hypvl.losses.entailment.Entailment`.
        beta: > 0, radians.
        weighting: ``"distance"``: g = 1 - exp(-d), for pairs of one modality (a box and its image); ``"none"``: g = 1,
            for pairs of two.

    Raises:
        ValueError: in ``forward``, when the geometry has no cones.

    Source: as :func:`adaptive_entailment`.
    """

    def __init__(
        self,
        *,
        general: str | View = TEXT,
        specific: str | View = IMAGE,
        beta: float = 1.0,
        weighting: Weighting = "none",
        over: Over = "gathered",
    ) -> None:
        super().__init__(general=general, specific=specific, over=over)
        self.beta = number("beta", beta, above=0)
        self.weighting = one_of("weighting", weighting, Weighting)

    def per_pair(self, ctx: PairContext) -> Tensor:
        """The loss of each local pair, (B,) or (M,)."""
        apex, point, _ = ctx.paired(self.general, self.specific)
        angle = cones_of(ctx).exterior_angle(apex, point)  # (B, F)
        distance = ctx.model.geometry.distance(apex, point) if self.weighting == "distance" else None
        return adaptive_entailment(angle, distance, beta=self.beta)


@configurable("train")
class NormRegularization(LossTerm):
    """Mean over views of the mean of :func:`norm_regularization` over their rows.

    Args:
        views: Whose norms; default images, texts, boxes and phrases.
        over: ``"gathered"``: every row of every rank weighs the same; ``"local"``: the mean over this rank's rows.

    Source: as :func:`adaptive_entailment`.
    """

    rings = True
    uneven = True

    def __init__(
        self,
        views: Sequence[str | View] = (IMAGE, TEXT, BOX_IMAGE, BOX_TEXT),
        *,
        over: Over = "gathered",
    ) -> None:
        super().__init__()
        self.over = one_of("over", over, Over)
        if not views:
            raise ValueError("views: got none; give at least one, such as 'image'.")
        self.views = self.declare(*views)

    def forward(self, ctx: PairContext) -> Tensor:
        space = ctx.model.geometry.space_components
        rows = {view: norm_regularization(space(ctx.embeddings(view))) for view in self.views}
        return torch.stack([ctx.mean(values, view, over=self.over) for view, values in rows.items()]).mean()

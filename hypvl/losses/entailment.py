"""Entailment: the embedding of an image should lie inside the cone of the text that describes it."""

from typing import Literal

import torch
from torch import Tensor

from hypvl.allowlist import configurable
from hypvl.checks import number, one_of
from hypvl.geometry.base import Cones
from hypvl.losses.base import IMAGE, TEXT, LossTerm, PairContext, View
from hypvl.losses.owners import Over


def entailment_loss(
    exterior_angle: Tensor,
    half_aperture: Tensor,
    *,
    aperture_factor: float = 1.0,
    reduction: Literal["mean", "none"] = "mean",
) -> Tensor:
    """How far points stick out of the cones, in radians, on average.

    Formula: ``mean relu(phi - k A)``.

    Args:
        exterior_angle: (..., F) angle at the general embedding between the ray away from the root and the
            specific one, radians in [0, pi].
        half_aperture: (..., F) half opening angle of the general embedding's cone, radians.
        aperture_factor: k > 0 widens or narrows the cones.
        reduction: ``"none"`` gives the mean over factors of each pair.

    Returns:
        0-dim, or (...).

    Source: Le et al. 2019 (arXiv 1902.00913) eq. 8; MERU (arXiv 2304.09172) eq. 5; k: HyCoCLIP (2410.06912).

    Example:
        >>> entailment_loss(torch.tensor([1.5, 0.25]), torch.tensor([0.5, 0.5]))  # 1 outside, 0 inside
        tensor(0.5000)
    """
    one_of("reduction", reduction, ("mean", "none"))
    loss = torch.relu(exterior_angle - aperture_factor * half_aperture)
    return loss.mean() if reduction == "mean" else loss.mean(-1)


@configurable("train")
class Entailment(LossTerm):
    """:func:`entailment_loss` of each local (general, specific) pair.

    Args:
        general: View whose cones are used; default the text.
        specific: View that should lie inside; default the image.
        aperture_factor: k > 0.
        over: With any number of boxes for each sample: ``"gathered"``: every box of every rank weighs the same;
            ``"local"``: the mean over this rank's boxes. A whole is repeated for each of its boxes.

    Raises:
        ValueError: in ``forward``, when the geometry has no cones.
    """

    rings = True
    uneven = True

    def __init__(
        self,
        *,
        general: str | View = TEXT,
        specific: str | View = IMAGE,
        aperture_factor: float = 1.0,
        over: Over = "gathered",
    ) -> None:
        super().__init__()
        self.over = one_of("over", over, Over)
        number("aperture_factor", aperture_factor, above=0)
        self.general, self.specific = self.declare(general, specific)
        self.aperture_factor = aperture_factor

    def per_pair(self, ctx: PairContext) -> Tensor:
        """The loss of each local pair, (B,), or (M,) where one of the views is of boxes."""
        angle, aperture = cone_angles(ctx, self.general, self.specific)  # (B, F)
        return entailment_loss(angle, aperture, aperture_factor=self.aperture_factor, reduction="none")

    def forward(self, ctx: PairContext) -> Tensor:
        *_, view = ctx.paired(self.general, self.specific)
        return ctx.mean(self.per_pair(ctx), view, over=self.over)


def cone_angles(ctx: PairContext, general: View, specific: View) -> tuple[Tensor, Tensor]:
    """Exterior angle at each local general embedding towards its specific one, and its half aperture.

    Returns:
        (B, F), (B, F) radians; (M, F) where one of the views is of boxes, see :meth:`PairContext.paired`.

    Raises:
        ValueError: when the geometry has no cones.
    """
    cones = cones_of(ctx)
    apex, point, _ = ctx.paired(general, specific)  # (B, D)
    return cones.exterior_angle(apex, point), cones.half_aperture(apex)


def cones_of(ctx: PairContext) -> Cones:
    """The cones of the step's geometry; ValueError where it has none."""
    cones = ctx.model.geometry.cones
    if cones is None:
        raise ValueError(
            f"entailment: {type(ctx.model.geometry).__name__} has no cones; use a hyperbolic geometry or drop the term."
        )
    return cones

"""Entailment: the embedding of an image should lie inside the cone of the text that describes it."""

import torch
from torch import Tensor

from hypvl.allowlist import configurable
from hypvl.checks import number
from hypvl.losses.base import IMAGE, TEXT, LossTerm, PairContext, View


def entailment_loss(exterior_angle: Tensor, half_aperture: Tensor, *, aperture_factor: float = 1.0) -> Tensor:
    """How far points stick out of the cones, in radians, on average.

    Formula: ``mean relu(phi - k A)``.

    Args:
        exterior_angle: (..., F) angle at the general embedding between the ray away from the root and the
            specific one, radians in [0, pi].
        half_aperture: (..., F) half opening angle of the general embedding's cone, radians.
        aperture_factor: k > 0 widens or narrows the cones.

    Returns:
        0-dim.

    Source: Le et al. 2019 (arXiv 1902.00913) eq. 8; MERU (arXiv 2304.09172) eq. 5; k: HyCoCLIP (2410.06912).
    """
    return torch.relu(exterior_angle - aperture_factor * half_aperture).mean()


@configurable("train")
class Entailment(LossTerm):
    """:func:`entailment_loss` of each local (general, specific) pair.

    Args:
        general: View whose cones are used; default the text.
        specific: View that should lie inside; default the image.
        aperture_factor: k > 0.

    Samples may have any number of boxes: each weighs the same, and its whole is repeated for it.

    Raises:
        ValueError: in ``forward``, when the geometry has no cones.
    """

    uneven = True

    def __init__(
        self, *, general: str | View = TEXT, specific: str | View = IMAGE, aperture_factor: float = 1.0
    ) -> None:
        super().__init__()
        number("aperture_factor", aperture_factor, above=0)
        self.general, self.specific = self.declare(general, specific)
        self.aperture_factor = aperture_factor

    def forward(self, ctx: PairContext) -> Tensor:
        angle, aperture = cone_angles(ctx, self.general, self.specific)  # (B, F)
        *_, view = ctx.paired(self.general, self.specific)
        if ctx.owner(view) is None:
            return entailment_loss(angle, aperture, aperture_factor=self.aperture_factor)
        return ctx.mean(torch.relu(angle - self.aperture_factor * aperture).mean(-1), view)


def cone_angles(ctx: PairContext, general: View, specific: View) -> tuple[Tensor, Tensor]:
    """Exterior angle at each local general embedding towards its specific one, and its half aperture.

    Returns:
        (B, F), (B, F) radians; (M, F) where one of the views is of boxes, see :meth:`PairContext.paired`.

    Raises:
        ValueError: when the geometry has no cones.
    """
    cones = ctx.model.geometry.cones
    if cones is None:
        raise ValueError(
            f"entailment: {type(ctx.model.geometry).__name__} has no cones; use a hyperbolic geometry or drop the term."
        )
    apex, point, _ = ctx.paired(general, specific)  # (B, D)
    return cones.exterior_angle(apex, point), cones.half_aperture(apex)

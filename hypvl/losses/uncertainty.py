"""Uncertainty-guided alignment (UNCHA): an embedding near the root is general and counts as uncertain.

The uncertainty of an item raises its contrastive temperature, and is itself calibrated by the entailment loss of the
item.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from hypvl.allowlist import configurable
from hypvl.checks import number
from hypvl.losses.base import IMAGE, TEXT, LossTerm, PairContext, View
from hypvl.losses.entailment import Entailment, cone_angles
from hypvl.losses.info_nce import Implementation, check_implementation, info_nce, parse_pairs
from hypvl.numerics import full_precision, safe_sqrt


@full_precision
def uncertainty(embeddings: Tensor) -> Tensor:
    """u = softplus(-|x|): log 2 at the root, towards 0 far out.

    Args:
        embeddings: (..., D); |x| is their Euclidean norm, in a hyperbolic space that of the space components.

    Returns:
        (...) in (0, log 2]; gradient 0 at the root.

    Source: UNCHA (CVPR 2026). Open: which norm is meant; this is the |x| of the cones, in no unit of curvature.
    """
    return F.softplus(-safe_sqrt(embeddings.square().sum(-1)))


@full_precision
def angled_entailment(
    exterior_angle: Tensor, half_aperture: Tensor, *, aperture_factor: float = 1.0, angle_weight: float = 0.1
) -> Tensor:
    """How far each point sticks out of its cone, plus a pull towards the axis that acts inside the cone as well.

    Formula: ``relu(phi - eta A) + alpha phi``, mean over factors. With alpha = 0 its mean over pairs is
    :func:`~hypvl.losses.entailment.entailment_loss`.

    Args:
        exterior_angle: phi, (B, F) radians in [0, pi].
        half_aperture: A, (B, F) radians.
        aperture_factor: eta > 0.
        angle_weight: alpha >= 0.

    Returns:
        (B,) radians.

    Source: UNCHA (CVPR 2026). Open: alpha; with 0.1 the hinge is the larger part outside the cone.
    """
    hinge = torch.relu(exterior_angle - aperture_factor * half_aperture)
    return (hinge + angle_weight * exterior_angle).mean(-1)


@full_precision
def calibration_loss(loss: Tensor, own_uncertainty: Tensor, all_uncertainty: Tensor) -> Tensor:
    """Uncertainty that follows the loss of each pair and differs between items.

    Formula: ``mean_i ( sg(L_i) exp(-u_i) + u_i ) + H(softmax u)``, H = -sum p log p in nats over all items. The
    first part is least at u_i = log L_i: items with a large entailment loss are uncertain. The entropy is added, so the
    loss falls when a few items are uncertain instead of all alike.

    Args:
        loss: L_i, (B,) >= 0; no gradient flows to it.
        own_uncertainty: u_i of the same items, (B,).
        all_uncertainty: u of the items of all ranks, (N,), for the entropy.

    Returns:
        0-dim, >= 0.

    Source: UNCHA (CVPR 2026); the first part as Kendall and Gal 2017 (arXiv 1703.04977) eq. 8.
        Open: the sign of the entropy; it is added, as written there.
    """
    log_p = torch.log_softmax(all_uncertainty, dim=-1)
    entropy = -(log_p.exp() * log_p).sum()
    return (loss.detach() * torch.exp(-own_uncertainty) + own_uncertainty).mean() + entropy


@configurable("train")
class UncertainContrastive(LossTerm):
    """Contrastive loss whose temperature each query multiplies: tau_i = tau exp(u_i / 2).

    Formula: ``mean_i CE(z_i exp(-u_i / 2), t_i)``, mean over pairs; z are the logits -d / tau or any other. Queries are
    local, keys come from every rank.

    Gradients reach the uncertainty: a query that matches badly may move towards the root. On the sphere all
    uncertainties are equal and only the temperature changes.

    Args:
        pairs: (query, key) views; default image -> text and text -> image.
        implementation, tile: As for :func:`~hypvl.losses.info_nce.info_nce`.

    Source: UNCHA (CVPR 2026): global (wholes), local (boxes), global-local (boxes against wholes). Open: whose
        temperature it is; a row of a softmax has one, so it is the query's.
    """

    def __init__(
        self,
        pairs: Sequence[Sequence[str | View]] = ((IMAGE, TEXT), (TEXT, IMAGE)),
        *,
        implementation: Implementation = "auto",
        tile: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        check_implementation(implementation, tile)
        self.pairs = parse_pairs(pairs)
        self.implementation, self.tile = implementation, tile
        self.needs = frozenset(view for pair in self.pairs for view in pair)

    def forward(self, ctx: PairContext) -> Tensor:
        losses = []
        for query, key in self.pairs:
            row_scale = torch.exp(-_uncertainty(ctx, query) / 2)
            losses.append(
                info_nce(
                    ctx,
                    query,
                    key,
                    row_scale=row_scale,
                    implementation=self.implementation,
                    tile=self.tile,
                )
            )
        return torch.cat(losses).mean()


@configurable("train")
class AngledEntailment(Entailment):
    """Mean of :func:`angled_entailment` of each local (general, specific) pair.

    Args:
        general, specific: As :class:`~hypvl.losses.entailment.Entailment`.
        aperture_factor: eta > 0.
        angle_weight: alpha >= 0.

    Source: UNCHA (CVPR 2026).
    """

    uneven = False

    def __init__(
        self,
        *,
        general: str | View = TEXT,
        specific: str | View = IMAGE,
        aperture_factor: float = 1.0,
        angle_weight: float = 0.1,
    ) -> None:
        super().__init__(general=general, specific=specific, aperture_factor=aperture_factor)
        self.angle_weight = number("angle_weight", angle_weight, least=0)

    def per_pair(self, ctx: PairContext) -> Tensor:
        """The loss of each local pair, (B,)."""
        angle, aperture = cone_angles(ctx, self.general, self.specific)  # (B, F)
        return angled_entailment(
            angle, aperture, aperture_factor=self.aperture_factor, angle_weight=self.angle_weight
        )

    def forward(self, ctx: PairContext) -> Tensor:
        return self.per_pair(ctx).mean()


@configurable("train")
class UncertaintyCalibration(AngledEntailment):
    """:func:`calibration_loss` of the general item of each pair, against the entailment loss of the pair.

    The loss and the uncertainty of a pair are local; the entropy is taken over the general items of every rank.

    Source: UNCHA (CVPR 2026).
    Differs: the entropy is over all ranks, so that it does not depend on how a batch is divided.
    """

    def forward(self, ctx: PairContext) -> Tensor:
        own = _uncertainty(ctx, self.general)  # (B,)
        every = _uncertainty(ctx, self.general, gathered=True)  # (N,)
        with torch.no_grad():
            loss = self.per_pair(ctx)
        return calibration_loss(loss, own, every)


def _uncertainty(ctx: PairContext, view: View, *, gathered: bool = False) -> Tensor:
    return uncertainty(ctx.model.geometry.space_components(ctx.embeddings(view, gathered=gathered)))

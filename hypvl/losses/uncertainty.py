"""Uncertainty-guided alignment (UNCHA): an embedding near the root is general and counts as uncertain.

The uncertainty of a box or phrase raises the temperature with which it is compared with wholes, and is itself
calibrated by the entailment loss of the box.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from hypvl.allowlist import configurable
from hypvl.checks import number, one_of
from hypvl.losses.base import IMAGE, TEXT, LossTerm, Model, PairContext, View, check_scale
from hypvl.losses.entailment import Entailment, cone_angles
from hypvl.losses.info_nce import Implementation, check_implementation, info_nce, parse_pairs
from hypvl.losses.owners import Over
from hypvl.numerics import full_precision, safe_sqrt

#: What an image is to the other boxes of its own: no key, or a negative once for each of them.
SameImage: TypeAlias = Literal["mask", "published"]
#: What a calibration trains: the uncertainty alone, or with it the embeddings of the pair.
CalibrationGradient: TypeAlias = Literal["uncertainty", "both"]

BOX_IMAGE, BOX_TEXT = View("image", "box_image"), View("text", "box_text")
_SOURCE_EPS = 1e-6  # Parity: added to exp(w) by the published code


@full_precision
def uncertainty(embeddings: Tensor) -> Tensor:
    """w = softplus(-|x|): log 2 at the root, towards 0 far out.

    Args:
        embeddings: (..., D); |x| is their Euclidean norm, in a hyperbolic space that of the space components, in no
            unit of curvature.

    Returns:
        (...) in (0, log 2]; gradient 0 at the root.

    Source: UNCHA (CVPR 2026, arXiv 2603.22042) and its code.

    Example:
        >>> uncertainty(torch.tensor([[0.0, 0.0], [5.0, 0.0]]))
        tensor([0.6931, 0.0067])
    """
    return F.softplus(-safe_sqrt(embeddings.square().sum(-1)))


@full_precision
def confidence(own_uncertainty: Tensor) -> Tensor:
    """What the uncertainty of a query multiplies its logits by: k = exp(-w / 2), without gradient.

    Args:
        own_uncertainty: w, (...) in (0, log 2].

    Returns:
        (...) in [0.707, 1).

    Source: UNCHA (arXiv 2603.22042) and its code, which clamps k to [0.1, 10]: never in effect.

    Example:
        >>> confidence(torch.tensor([0.0, 2.0]))
        tensor([1.0000, 0.3679])
    """
    return torch.exp(-own_uncertainty.detach() / 2)


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
        angle_weight: alpha >= 0; 0.1 in the published code.

    Returns:
        (B,) radians.

    Source: UNCHA (arXiv 2603.22042) and its code.

    Example:
        >>> angled_entailment(torch.tensor([1.5, 0.25]), torch.tensor([0.5, 0.5]))
        tensor(0.5875)
    """
    hinge = torch.relu(exterior_angle - aperture_factor * half_aperture)
    return (hinge + angle_weight * exterior_angle).mean(-1)


@full_precision
def calibration_loss(
    loss: Tensor, own_uncertainty: Tensor, *, gradient: CalibrationGradient = "uncertainty"
) -> Tensor:
    """Uncertainty that follows the loss of its pair, as a log-variance.

    Formula: ``sg(L_i) / (2 (exp(w_i) + 1e-6)) + w_i / 2``, least at w_i = log L_i: items with a large entailment loss
    are uncertain.

    Args:
        loss: L_i, (B,) >= 0.
        own_uncertainty: w_i of the same items, (B,).
        gradient: ``"uncertainty"``: none flows to L_i, the sg in the formula; ``"both"``: without the sg.

    Returns:
        (B,).

    Source: UNCHA (arXiv 2603.22042) and its code; the form is that of Kendall and Gal 2017 (arXiv 1703.04977) eq. 8.
        The code clamps exp(w) to [1e-6, 1e6]: never in effect.

    Example:
        >>> calibration_loss(torch.tensor([1.0]), torch.tensor([0.0]))
        tensor([0.5000])
    """
    one_of("gradient", gradient, CalibrationGradient)
    loss = loss.detach() if gradient == "uncertainty" else loss
    return 0.5 * loss / (torch.exp(own_uncertainty) + _SOURCE_EPS) + 0.5 * own_uncertainty


@full_precision
def uncertainty_entropy(all_uncertainty: Tensor, *, eps: float = 0.0) -> Tensor:
    """How evenly the uncertainty is spread over items: H(p) = -sum p log(p + eps), p = softmax(w).

    UNCHA adds it to the loss, which thus falls when a few items are uncertain instead of all alike. Since w lies in
    (0, log 2], H is between log N - 0.06 and log N.

    Args:
        all_uncertainty: w, (N,).
        eps: >= 0; the published code adds 1e-8.

    Returns:
        0-dim, nats; 0 without items.

    Source: UNCHA (arXiv 2603.22042) and its code.

    Example:
        >>> uncertainty_entropy(torch.zeros(2))  # log 2
        tensor(0.6931)
    """
    log_p = torch.log_softmax(all_uncertainty, dim=-1)
    p = log_p.exp()
    return -(p * (log_p if eps == 0 else (p + eps).log())).sum()


@configurable("train")
class GlobalLocalContrastive(LossTerm):
    """Boxes and phrases against the captions and images of wholes; an uncertain box counts with a higher temperature.

    Formula: ``mean_m CE(k_m z_m, o(m))``, mean over pairs; z are the logits, k_m = :func:`confidence` of the query.
    Each whole is a key once for each of its boxes, so that wholes without boxes are none and those with many weigh
    more.

    Queries are local, keys come from every rank. On the sphere all uncertainties are equal and only the temperature
    changes.

    Args:
        pairs: (query, key) views, boxes and wholes.
        scale: Name of the scorer's scale that multiplies the scores; None = its own.
        same_image: ``"mask"`` leaves out the copies of a box's own whole but its target; ``"published"`` keeps them as
            negatives: their logit is that of the target, so that the loss of a box is at least the log of the number of
            boxes of its image.
        over: ``"gathered"``: every box of every rank weighs the same; ``"local"``: the mean over this rank's boxes, as
            published.
        implementation, tile: As for :func:`~hypvl.losses.info_nce.info_nce`.

    Source: UNCHA (arXiv 2603.22042) and its code.
    Differs: the two defaults ``same_image="mask"`` and ``over="gathered"``.
    """

    rings = True
    uneven = True

    def __init__(
        self,
        pairs: Sequence[Sequence[str | View]] = ((BOX_IMAGE, TEXT), (BOX_TEXT, IMAGE)),
        *,
        scale: str | None = None,
        same_image: SameImage = "mask",
        over: Over = "gathered",
        implementation: Implementation = "auto",
        tile: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.same_image = one_of("same_image", same_image, SameImage)
        self.over = one_of("over", over, Over)
        check_implementation(implementation, tile)
        self.pairs = parse_pairs(pairs)
        self.scale = scale
        self.implementation, self.tile = implementation, tile
        self.needs = frozenset(view for pair in self.pairs for view in pair)

    def check(self, models: Mapping[str, Model]) -> None:
        super().check(models)
        check_scale(models, self.scale)

    def forward(self, ctx: PairContext) -> Tensor:
        losses = [
            info_nce(
                ctx,
                query,
                key,
                row_scale=confidence(uncertainty_of(ctx, ctx.embeddings(query))),
                scale=self.scale,
                same_whole="masked" if self.same_image == "mask" else "negatives",
                wholes="per_row",
                over=self.over,
                implementation=self.implementation,
                tile=self.tile,
            )
            for query, key in self.pairs
        ]
        return torch.cat(losses).mean()


@configurable("train")
class AngledEntailment(Entailment):
    """Mean of :func:`angled_entailment` of each local (general, specific) pair.

    Args:
        general, specific, over: As :class:`~hypvl.losses.entailment.Entailment`.
        aperture_factor: eta > 0.
        angle_weight: alpha >= 0.

    Source: UNCHA (arXiv 2603.22042) and its code.
    """

    def __init__(
        self,
        *,
        general: str | View = TEXT,
        specific: str | View = IMAGE,
        aperture_factor: float = 1.0,
        angle_weight: float = 0.1,
        over: Over = "gathered",
    ) -> None:
        super().__init__(general=general, specific=specific, aperture_factor=aperture_factor, over=over)
        self.angle_weight = number("angle_weight", angle_weight, least=0)

    def per_pair(self, ctx: PairContext) -> Tensor:
        """The loss of each local pair, (B,) or (M,)."""
        angle, aperture = cone_angles(ctx, self.general, self.specific)  # (B, F)
        return angled_entailment(
            angle, aperture, aperture_factor=self.aperture_factor, angle_weight=self.angle_weight
        )


@configurable("train")
class Calibration(AngledEntailment):
    """Mean of :func:`calibration_loss`: the uncertainty of the general item against the entailment loss of its pair.

    The published code uses it for box -> image and phrase -> caption, weighted by 10 within the entailment.

    Args:
        general, specific, aperture_factor, angle_weight, over: As :class:`AngledEntailment`.
        gradient: As :func:`calibration_loss`.

    Source: UNCHA (arXiv 2603.22042) and its code; ``gradient="both"``: Hyper3-CLIP (arXiv 2608.29313), as an option.
    """

    def __init__(
        self,
        *,
        general: str | View = TEXT,
        specific: str | View = IMAGE,
        aperture_factor: float = 1.0,
        angle_weight: float = 0.1,
        over: Over = "gathered",
        gradient: CalibrationGradient = "uncertainty",
    ) -> None:
        super().__init__(
            general=general,
            specific=specific,
            aperture_factor=aperture_factor,
            angle_weight=angle_weight,
            over=over,
        )
        self.gradient = one_of("gradient", gradient, CalibrationGradient)

    def per_pair(self, ctx: PairContext) -> Tensor:
        """The loss of each local pair, (B,) or (M,)."""
        loss = super().per_pair(ctx)
        general, *_ = ctx.paired(self.general, self.specific)
        return calibration_loss(loss, uncertainty_of(ctx, general), gradient=self.gradient)


@configurable("train")
class UncertaintyEntropy(LossTerm):
    """:func:`uncertainty_entropy` of the items of a view: nearly the log of their number, whatever the model does.

    Args:
        view: Of boxes or phrases.
        over: ``"gathered"``: of the items of every rank; ``"local"``: of this rank's, as published, so that the value
            depends on how a batch is divided into ranks.
        eps: >= 0, added to probabilities within the log: 1e-8 in the published code.

    Source: UNCHA (arXiv 2603.22042) and its code, where it is part of the calibration. It is a term of its own here, so
        that the log shows it apart: at 10 * 0.2 * log M for each modality it is the largest part of the loss.
    Differs: the defaults ``over="gathered"`` and ``eps=0``.
    """

    uneven = True

    def __init__(self, view: str | View = BOX_IMAGE, *, over: Over = "gathered", eps: float = 0.0) -> None:
        super().__init__()
        self.over = one_of("over", over, Over)
        self.eps = number("eps", eps, least=0)
        (self.view,) = self.declare(view)

    def forward(self, ctx: PairContext) -> Tensor:
        embeddings = ctx.embeddings(self.view, gathered=self.over == "gathered")
        return uncertainty_entropy(uncertainty_of(ctx, embeddings), eps=self.eps)


def uncertainty_of(ctx: PairContext, embeddings: Tensor) -> Tensor:
    """:func:`uncertainty` of embeddings (N, D) in the geometry of the step, (N,)."""
    return uncertainty(ctx.model.geometry.space_components(embeddings))

"""Long-CLIP: short captions are compared with the principal components of the images, long ones with the whole images.

The long captions' term is :class:`~hypvl.losses.contrastive.Contrastive` with label smoothing.
"""

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hypvl import distributed
from hypvl.allowlist import configurable
from hypvl.checks import number, one_of, whole_number
from hypvl.losses.base import IMAGE, LossTerm, PairContext, View
from hypvl.losses.cyclip import cyclic_loss
from hypvl.losses.info_nce import info_nce
from hypvl.losses.owners import Over
from hypvl.numerics import full_precision, inner_products, working_dtype


@full_precision
def primary_components(x: Tensor, *, count: int) -> Tensor:
    """Rows projected onto their first principal components.

    Formula: ``m + (X - m) V_k V_k^T``, m the mean row, V_k the first k right singular vectors of X - m.

    The gradient is exact wherever the k-th and (k+1)-th singular values differ, whatever others are equal:
    with X - m = U S V^T and E = U^T G V, i <= k < j and q = s_j / s_i, it is E within the first k, 0 within the
    rest, and E_ij + q (q E_ij + E_ji) / (1 - q^2) between them (i and j exchanged likewise). Where s_k is 0
    (k above the rank, B = 1, identical rows) the result is X and so is what the gradient treats it as: G. Where
    s_k = s_{k+1} > 0 up to rounding, the result itself jumps and has no gradient: the two directions are then
    taken as they came out of the decomposition, held constant with respect to each other.

    Args:
        x: X, (B, D).
        count: k >= 1. From min(B - 1, D) on, nothing is removed.

    Returns:
        (B, D), the dtype of ``x`` or fp32; decomposed in fp64. Rows are not normalised again. If any value
        is not finite, the result is X, so that the loss shows it.

    Raises:
        ValueError: for a count below 1 or rows that are not (B, D).

    Source: Zhang et al., Long-CLIP, 2024 (arXiv 2403.15378), section 3.
    Differs: the published code decomposes in fp32, with a gradient that is infinite or NaN where any two
        singular values are equal or zero.

    Example:
        >>> x = torch.tensor([[10.0, 0.1], [-10.0, -0.1], [5.0, -0.1]])
        >>> primary_components(x, count=1).shape
        torch.Size([3, 2])
    """
    if count < 1:
        raise ValueError(f"count: got {count}; expected at least one component.")
    if x.dim() != 2:
        raise ValueError(f"x: got shape {tuple(x.shape)}; expected (B, D).")
    if count >= min(x.shape[0] - 1, x.shape[1]):
        return x  # centred rows have no more directions than that
    return cast(Tensor, _PrimaryComponents.apply(x, count))


class _PrimaryComponents(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, count: int) -> Tensor:
        x64 = x.detach().to(working_dtype(x.device))
        mean = x64.mean(0)
        finite = x64.isfinite().all()
        centred = torch.where(finite, x64 - mean, 0.0)
        u, s, vh = torch.linalg.svd(centred, full_matrices=False)  # (B, R), (R,), (R, D)
        components = vh[:count]
        # Where k is above the rank the projection is the identity; so are then value and gradient, exactly.
        size = torch.maximum(s[0], mean.norm() * x64.shape[0] ** 0.5)
        rounding = max(x64.shape) * torch.finfo(s.dtype).eps * size  # below it singular values are noise
        changes = finite & (s[count - 1] > rounding)
        ctx.save_for_backward(u, s, vh, rounding, changes)
        ctx.count = count
        projected = mean + inner_products(inner_products(centred, components), components.mT)
        return torch.where(changes, projected.to(x.dtype), x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (grad,) = grads
        u, s, vh, rounding, changes = ctx.saved_tensors
        g = grad.to(s.dtype)
        k = ctx.count
        u1, u2, v1, v2 = u[:, :k], u[:, k:], vh[:k], vh[k:]
        left, right = u1.mT @ g, g @ v1.mT  # (k, D), (B, k)
        inner = left @ v1.mT  # E within the first k
        own = u1 @ left + right @ v1 - u1 @ inner @ v1  # as if every s_j were 0
        e12, e21 = left @ v2.mT, (u2.mT @ right).mT  # E_ij and E_ji, both (k, R - k), i <= k < j
        s1, s2 = s[:k, None], s[k:]
        tied = s1 - s2 <= rounding
        ratio = torch.where(tied, 0.0, s2 / torch.where(s1 > 0, s1, 1.0))
        factor = ratio / ((1 - ratio) * (1 + ratio))
        more12 = torch.where(tied, -e12, factor * (ratio * e12 + e21))
        more21 = torch.where(tied, 0.0, factor * (ratio * e21 + e12))
        centred = own + u1 @ more12 @ v2 + u2 @ more21.mT @ v1  # d loss / d (X - m)
        total = centred + (g - centred).mean(0)
        return torch.where(changes, total.to(grad.dtype), grad), None


class PrimaryComponentsTerm(LossTerm):
    """A term that compares short captions with the principal components of the images.

    The components are those of the embeddings' coordinates: on the sphere they lie inside it, as published; on the
    hyperboloid they are the space components, so that they are a point again. They are not normalised again.

    Args:
        image, short: Views of the rows that are projected, and of the short captions.
        components: k >= 1.
        over: "gathered": mean and components of the rows of every rank; "local": of this rank's rows, as published,
            so that the loss depends on the number of ranks.
    """

    def __init__(
        self,
        *,
        image: str | View = IMAGE,
        short: str | View = "text:short_text",
        components: int = 32,
        over: Over = "gathered",
    ) -> None:
        super().__init__()
        self.image, self.short = self.declare(image, short)
        self.components = whole_number("components", components, least=1)
        self.over = one_of("over", over, Over)

    def projected(self, ctx: PairContext) -> PairContext:
        """The step with :func:`primary_components` of the images in place of their embeddings."""
        if self.over == "gathered":
            everyone = primary_components(ctx.embeddings(self.image, gathered=True), count=self.components)
            return ctx.with_embeddings(self.image, everyone[ctx.targets(self.image)], everyone)
        local = primary_components(ctx.embeddings(self.image), count=self.components)
        return ctx.with_embeddings(self.image, local, distributed.gather(local))


@configurable("train")
class ShortCaption(PrimaryComponentsTerm):
    """Contrastive loss, both directions, between short captions and the principal components of the images.

    Formula: ``(CE(s P T^T) + CE(s T P^T)) / 2`` with P of :func:`primary_components`. The objective's weights say how
    much the term counts beside that of the long captions.

    Args:
        image, short, components, over: As :class:`PrimaryComponentsTerm`.
        label_smoothing: In [0, 1), over the keys of every rank.

    Source: Long-CLIP (arXiv 2403.15378), section 3; k = 32 and smoothing 0.1 as published and in I0T.
    Differs: ``over="gathered"`` is the default, so that the loss does not depend on the number of ranks.
    """

    def __init__(
        self,
        *,
        image: str | View = IMAGE,
        short: str | View = "text:short_text",
        components: int = 32,
        label_smoothing: float = 0.1,
        over: Over = "gathered",
    ) -> None:
        super().__init__(image=image, short=short, components=components, over=over)
        self.label_smoothing = number("label_smoothing", label_smoothing, least=0, below=1)

    def forward(self, ctx: PairContext) -> Tensor:
        return info_nce(
            self.projected(ctx), self.image, self.short, both_directions=True, smoothing=self.label_smoothing
        ).mean()


@configurable("train")
class ShortCyclic(PrimaryComponentsTerm):
    """CyCLIP's in-modal and cross-modal terms, summed, of short captions and the images' primary components.

    For Long-CLIP and CyCLIP at once, as I0T has them. Similarities are the geometry's own.

    Source: I0T (arXiv 2412.14384), the objective "longcyclip"; CyCLIP (2205.14459), section 3.
    Differs: as :class:`ShortCaption`.
    """

    def forward(self, ctx: PairContext) -> Tensor:
        image, short, similarity = self.image, self.short, self.projected(ctx).similarity
        in_modal = cyclic_loss(similarity(image, image), similarity(short, short))
        return in_modal + cyclic_loss(similarity(image, short), similarity(short, image))

"""Feature transforms of one modality: subtract its mean, or standardise every dimension.

A model applies them to flat embeddings and lifts the result: on the sphere
``normalise(transform(normalise(features)))``.
"""

import torch
from torch import Tensor, nn

from hypvl import distributed
from hypvl.allowlist import configurable
from hypvl.checks import number


@configurable("model")
class Centering(nn.Module):
    """Subtracts a stored mean: the first moment only, no standard deviation.

    Args:
        features: D.

    Source: I0T_post, An et al. 2024 (arXiv 2412.14384), section 3: ``x <- (x - mu) / |x - mu|`` on normalised
        embeddings (the division is the lift onto the sphere).
    """

    mean: Tensor  # to subtract, (D,); 0 until :meth:`fill_`, so that a new module is the identity

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))

    @torch.no_grad()
    def fill_(self, mean: Tensor) -> None:
        """Store the mean, (D,). Raises ValueError for another shape, or numbers that are not finite."""
        if mean.shape != self.mean.shape or not bool(mean.isfinite().all()):
            raise ValueError(
                f"mean: got shape {tuple(mean.shape)}{'' if bool(mean.isfinite().all()) else ', not finite'}; "
                f"expected {tuple(self.mean.shape)} finite numbers."
            )
        self.mean.copy_(mean)

    def forward(self, x: Tensor) -> Tensor:
        """Subtract: (..., D) -> (..., D), fp32 or better."""
        x = _at_least_fp32(x)
        return x - self.mean.to(x.dtype)

    def extra_repr(self) -> str:
        return f"features={len(self.mean)}"


@configurable("model")
class BatchStandardize(nn.BatchNorm1d):
    """Batch normalisation whose statistics are those of the whole batch, over all ranks.

    Formula: ``gamma (x - mean) / sqrt(var + eps) + beta``. In training mean and (biased) variance are those of the
    batch on all ranks together, with gradient through them; in evaluation the running ones. Names in the state dict
    are those of ``nn.BatchNorm1d``. A batch of one row has no variance and becomes beta.

    The running statistics change in :meth:`update_` only, once after each optimizer step that was not skipped; never in
    ``forward``.

    Args:
        features: D.
        eps: Added to the variance.
        momentum: Share of the new statistics in the running ones, in [0, 1].

    Source: I0T_async, An et al. 2024 (arXiv 2412.14384), section 3; Ioffe and Szegedy 2015 (arXiv 1502.03167).
    Differs: statistics over all ranks (published: each GPU's own), so that the mean over ranks of a loss and its
        gradients do not depend on the number of ranks.
    """

    momentum: float
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, features: int, *, eps: float = 1e-5, momentum: float = 0.1) -> None:
        number("momentum", momentum, least=0, most=1)
        number("eps", eps, least=0)
        super().__init__(features, eps=eps, momentum=momentum)

    def forward(self, x: Tensor) -> Tensor:
        """Standardise: (..., D) -> (..., D), fp32 or better; any number of rows on each rank."""
        x = _at_least_fp32(x)
        if self.training:
            mean, variance, _ = distributed.batch_statistics(x.reshape(-1, x.shape[-1]))  # (D,), (D,)
        else:
            mean, variance = self.running_mean.to(x.dtype), self.running_var.to(x.dtype)
        standard = (x - mean) * torch.rsqrt(variance + self.eps)
        return self.weight.to(x.dtype) * standard + self.bias.to(x.dtype)

    @torch.no_grad()
    def update_(self, x: Tensor) -> None:
        """Move the running statistics to those of a batch, (B, D) on each rank as in ``forward`` (a collective).

        In evaluation mode, as of a frozen transform, they stay.
        """
        if not self.training:
            return
        mean, variance, count = distributed.batch_statistics(_at_least_fp32(x))
        unbiased = variance * (count / (count - 1).clamp(min=1))
        some = count > 0  # else no rank has rows, and nothing moves
        share = some.to(self.running_mean.dtype) * self.momentum
        self.running_mean.lerp_(mean.to(share.dtype), share)
        self.running_var.lerp_(unbiased.to(share.dtype), share)
        self.num_batches_tracked += some


def _at_least_fp32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))

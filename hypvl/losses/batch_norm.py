"""A batch norm over the rows of all ranks, for the heads that belong to loss terms."""

import torch
from torch import Tensor, nn

from hypvl import distributed
from hypvl.losses.distillation import reduction
from hypvl.numerics import full_precision

EPS = 1e-5
_MOMENTUM = 0.1


@full_precision
def standardize(x: Tensor, *, eps: float = EPS) -> Tensor:
    """Columns less their mean, over their standard deviation, those of the rows of all ranks: (B, D) -> (B, D).

    Formula: ``(x - mean) / sqrt(var + eps)`` with the biased variance; with gradient through both. A batch of one row
    becomes zeros.

    Example:
        >>> standardize(torch.tensor([[0.0], [2.0]]))
        tensor([[-1.0000],
                [ 1.0000]])
    """
    scale = reduction(x)
    x = x / scale
    mean, variance, _ = distributed.batch_statistics(x)  # (D,), (D,)
    # Of reduced numbers, up to 1e6, a variance below 1e-20 is rounding; the cube of its root fits in fp32.
    return (x - mean) * torch.rsqrt((variance + eps / scale / scale).clamp(min=1e-20))


class BatchNorm(nn.Module):
    """:func:`standardize`, then a gain and a bias for each column.

    Args:
        features: D.

    ``forward`` changes nothing: it takes the statistics of the batch.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(features))
        self.bias = nn.Parameter(torch.zeros(features))

    def forward(self, x: Tensor) -> Tensor:
        """(B, D) -> (B, D)."""
        return self._scaled(standardize(x))

    def _scaled(self, standardized: Tensor) -> Tensor:
        return standardized * self.weight + self.bias


class RunningBatchNorm(BatchNorm):
    """A :class:`BatchNorm` that takes running statistics in evaluation mode; :meth:`update_` moves them."""

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, features: int) -> None:
        super().__init__(features)
        self.register_buffer("running_mean", torch.zeros(features))
        self.register_buffer("running_var", torch.ones(features))
        self.register_buffer("num_batches_tracked", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        """(B, D) -> (B, D)."""
        if self.training:
            return super().forward(x)
        return self._scaled((x - self.running_mean) * torch.rsqrt(self.running_var + EPS))

    @torch.no_grad()
    def update_(self, x: Tensor) -> None:
        """Move the running statistics a tenth of the way to those of these rows of all ranks (unbiased variance)."""
        mean, variance, rows = full_precision(distributed.batch_statistics)(x)
        self.running_mean.lerp_(mean.to(self.running_mean), _MOMENTUM)
        self.running_var.lerp_((variance * (rows / (rows - 1).clamp(min=1))).to(self.running_var), _MOMENTUM)
        self.num_batches_tracked += 1

"""Functions of the rows of score matrices that are never held: memory linear in the number of rows and columns.

Some rows are computed with all their columns at a time. Of each row's scores the caller may make any number that
PyTorch can differentiate. For a mean over rows, gradients are taken in the forward pass, so that no score is computed
twice: the result is one number, and the backward pass only multiplies them by its gradient. Where each row has a result
of its own, the backward pass computes the scores again.

Source: gradients taken block by block in the forward pass, as Hsu et al. 2024 (arXiv 2410.10989) do for the cross
    entropy of a language model.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hypvl.checks import one_of
from hypvl.numerics import autocast_off, ieee_products, working_dtype
from hypvl.ops.tiled_logsumexp.kernels import TiledScores

#: How the values of rows become one: their mean, or the log of the mean of their exponentials.
Combine: TypeAlias = Literal["mean", "log_mean_exp"]

_LEAST_ROWS = 64
_TENSORS = 6  # of scores: rows, columns, their terms, the scale, the shift


def block_rows(columns: int, device: torch.device) -> int:
    """How many rows are computed at a time: about 2^20 entries on a CPU, 2^26 on a device."""
    entries = 2**20 if device.type == "cpu" else 2**26
    return max(_LEAST_ROWS, entries // max(1, columns))


def mean_over_rows(
    function: Callable[..., Tensor],
    scores: Sequence[TiledScores],
    *,
    rows: Sequence[Tensor] = (),
    others: Sequence[Tensor] = (),
    combine: Combine = "mean",
) -> Tensor:
    """``function(*scores, *rows, *others)`` of whole matrices, which is a mean over their rows, from blocks of rows.

    Args:
        function: Takes scores (b, N) each, what belongs to their rows, and the rest, and gives one number: a mean
            over the b rows, or with ``combine="log_mean_exp"`` the log of such a mean. It must change none of them.
        scores: At least one matrix (B, N); gradients flow to all its tensors. Differentiable once.
        rows: Further arguments with a row for each row of the scores, (B, ...).
        others: Further arguments that are the same for all rows.
        combine: How the values of blocks become one.

    Returns:
        0-dim, in the dtype of the scores.

    Raises:
        ValueError: for another way to combine.
    """
    one_of("combine", combine, Combine)
    x = scores[0].rows
    tensors = [*(t for z in scores for t in _tensors(z)), *rows, *others]
    different = {id(t): t for t in tensors}  # what is used twice has one gradient
    plan = _Plan(
        function,
        tuple(z.kernel for z in scores),
        [list(different).index(id(t)) for t in tensors],
        len(rows),
        combine,
        block_rows(max(len(z.columns) for z in scores), x.device),
        torch.is_grad_enabled(),
    )
    with autocast_off({x.device.type}):
        return cast(Tensor, _MeanOverRows.apply(plan, *different.values()))


def by_rows(function: Callable[[Tensor, Tensor], Tensor], rows: Tensor, others: Tensor) -> Tensor:
    """``function(rows, others)``, which has a result for each row, from blocks of rows: (B, D), (N, E) -> (B, ...).

    Gradients flow to both, and to nothing else that the function may use. Differentiable once.
    """
    size = block_rows(len(others), rows.device)
    with autocast_off({rows.device.type}):
        return cast(Tensor, _ByRows.apply(function, size, rows, others))


class _ByRows(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, function: Callable[[Tensor, Tensor], Tensor], size: int, rows: Tensor, others: Tensor
    ) -> Tensor:
        ctx.save_for_backward(rows, others)
        ctx.function, ctx.size = function, size
        return torch.cat([function(part, others) for part in rows.split(size)])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        given = [t.detach() for t in ctx.saved_tensors]
        wanted = ctx.needs_input_grad[2:]
        out = [torch.zeros_like(t) if w else None for t, w in zip(given, wanted, strict=True)]
        with autocast_off({grad.device.type}):
            for start in range(0, len(given[0]), ctx.size):
                r = slice(start, start + ctx.size)
                inputs = [
                    t.detach().requires_grad_(w) for t, w in zip((given[0][r], given[1]), wanted, strict=True)
                ]
                with torch.enable_grad():
                    value = ctx.function(*inputs)
                found = iter(torch.autograd.grad(value, [t for t in inputs if t.requires_grad], grad[r]))
                if out[0] is not None:
                    out[0][r] = next(found)
                if out[1] is not None:
                    out[1] += next(found)
        return None, None, *out


def _tensors(z: TiledScores) -> list[Tensor]:
    dtype = z.rows.dtype
    shift = z.rows.new_zeros(()) if z.shift is None else z.shift.to(dtype)
    return [z.rows, z.columns, z.row_terms, z.column_terms, z.scale.to(dtype), shift]


class _Plan(NamedTuple):
    function: Callable[..., Tensor]
    kernels: tuple[type, ...]
    places: list[int]  # of each argument among the different ones
    rows: int  # how many further arguments have rows
    combine: Combine
    size: int  # of a block
    gradients: bool


class _MeanOverRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, plan: _Plan, *tensors: Tensor) -> Tensor:
        wanted = [plan.gradients and needed for needed in ctx.needs_input_grad[1:]]
        work = working_dtype(tensors[0].device)  # sums over all entries are kept in it
        totals = [
            torch.zeros_like(t, dtype=work if t.dim() == 0 else t.dtype) if w else None
            for t, w in zip(tensors, wanted, strict=True)
        ]
        given, grads = [tensors[i].detach() for i in plan.places], [totals[i] for i in plan.places]
        split = _TENSORS * len(plan.kernels)
        matrices = [
            _Matrix(kernel, given[at : at + _TENSORS], grads[at : at + _TENSORS], plan.size)
            for kernel, at in zip(plan.kernels, range(0, split, _TENSORS), strict=True)
        ]
        x = given[0]
        total = x.new_full((), -torch.inf if plan.combine == "log_mean_exp" else 0.0, dtype=work)
        with ieee_products(x.dtype):
            for start in range(0, len(x), plan.size):
                r = slice(start, min(start + plan.size, len(x)))
                rest = [t[r] if i < plan.rows else t for i, t in enumerate(given[split:])]
                to_rest = [g if g is None or i >= plan.rows else g[r] for i, g in enumerate(grads[split:])]
                total = _add_block(plan, matrices, r, rest, to_rest, total, totals)
        ctx.save_for_backward(*(g.to(t.dtype) for g, t in zip(totals, tensors, strict=True) if g is not None))
        ctx.wanted = wanted
        return total.to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        saved = iter(ctx.saved_tensors)
        return None, *((grad * next(saved)) if wanted else None for wanted in ctx.wanted)


def _add_block(
    plan: _Plan,
    matrices: Sequence["_Matrix"],
    r: slice,
    rest: list[Tensor],
    to_rest: Sequence[Tensor | None],
    total: Tensor,
    totals: Sequence[Tensor | None],
) -> Tensor:
    """The total with a block of rows, whose gradients are added to those so far."""
    # What to differentiate by, and where that gradient is added; None = the matrix takes it.
    inputs: list[tuple[Tensor, Tensor | None]] = []
    with torch.enable_grad():
        scores = []
        for matrix in matrices:
            h = matrix.values(r)
            if matrix.wanted:
                inputs.append((h.requires_grad_(), None))
            factor, shift = (_of_rows(t, r) for t in (matrix.scale, matrix.shift))
            for t, to in ((factor, matrix.to_scale), (shift, matrix.to_shift)):
                if to is not None:
                    inputs.append((t.requires_grad_(), _of_rows(to, r)))
            scores.append(torch.addcmul(shift, h, factor))
        for i, to in enumerate(to_rest):
            if to is not None:
                rest[i] = rest[i].detach().requires_grad_()
                inputs.append((rest[i], to))
        value = plan.function(*scores, *rest)
        del scores
    share = (r.stop - r.start) / len(matrices[0].x)
    part = value.detach().to(total.dtype)
    if plan.combine == "mean":
        total, weight = total + share * part, torch.full_like(part, share)
    else:
        part = part + torch.full_like(part, share).log()
        before, total = total, torch.logaddexp(total, part)
        weight = (part - total).exp()
        for g in totals:
            if g is not None:
                g.mul_((before - total).exp().to(g.dtype))
    if inputs:
        found = torch.autograd.grad(value, [t for t, _ in inputs], weight.to(value.dtype), allow_unused=True)
        wanting = iter([matrix for matrix in matrices if matrix.wanted])
        for (_, to), g in zip(inputs, found, strict=True):
            if to is None:
                next(wanting).add_gradients(r, g)
            elif g is not None:
                to += g
    return total


def _of_rows(t: Tensor, r: slice) -> Tensor:
    """What belongs to some rows, or to all."""
    return t.detach() if t.dim() == 0 else t[r].detach()


class _Matrix:
    """Scores in blocks of rows, and the gradients of what they are made of, None where they are not wanted."""

    def __init__(
        self, kernel: type, tensors: Sequence[Tensor], grads: Sequence[Tensor | None], size: int
    ) -> None:
        self.x, self.y, a, b, self.scale, self.shift = tensors
        self.to_x, self.to_y, self.to_a, self.to_b, self.to_scale, self.to_shift = grads
        self.wanted = any(g is not None for g in grads[:4])
        self.kernel = kernel(a, b, self.x.dtype)
        most = min(size, len(self.x)) * len(self.y)
        self.memory = [self.x.new_empty(most) for _ in range(1 + self.kernel.buffers)]

    def values(self, r: slice) -> Tensor:
        """Scores of some rows without their scale and shift, (b, N); valid until the next."""
        shape = (r.stop - r.start, len(self.y))
        product, *self.keep = (m[: shape[0] * shape[1]].view(shape) for m in self.memory)
        torch.mm(self.x[r], self.y.mT, out=product)
        self.terms = self.kernel.at(r, slice(None))
        return self.kernel.values_(product, self.terms, keep=self.keep).detach()

    def add_gradients(self, r: slice, grad: Tensor | None) -> None:
        """Add the gradients of the rows last computed, from that of their scores (b, N)."""
        if grad is None:
            return
        grad = grad.contiguous()
        if self.kernel.gain != 1:
            grad.mul_(self.kernel.gain)
        grad_a, grad_b = self.kernel.backward_(grad, self.terms, keep=self.keep)
        if self.to_a is not None and grad_a is not None:
            self.to_a[r] += grad_a
        if self.to_b is not None and grad_b is not None:
            self.to_b += grad_b
        if self.to_x is not None:
            self.to_x[r].addmm_(grad, self.y)
        if self.to_y is not None:
            self.to_y.addmm_(grad.mT, self.x[r])

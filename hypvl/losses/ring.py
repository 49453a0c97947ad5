"""Losses whose keys travel in a ring: each rank holds its own rows and one visiting block, never the global batch.

A block of keys goes from rank to rank; each adds what its queries have with it. In the backward pass the blocks travel
once more, each with its gradient, which is at home after as many hops as there are ranks. Every block is scored twice.

Source: the ring of SigLIP (Zhai et al. 2023, arXiv 2303.15343), section 3.3, for sums over keys; the running
    log-sum-exp of Milakov and Gimelshein 2018 (arXiv 1805.02867) for the softmax.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from hypvl import distributed
from hypvl.checks import one_of

#: How keys of other ranks are reached: all at once, or block by block.
Gather: TypeAlias = Literal["all", "ring"]


def check_gather(terms: Mapping[str, Any], gather: Gather) -> None:
    """ValueError for a ring with a loss term that needs the rows of every rank at once, naming it."""
    one_of("gather", gather, Gather)
    for name, term in terms.items():
        if gather == "ring" and not term.rings:
            raise ValueError(
                f"terms.{name}: {type(term).__name__} needs the rows of every rank at once, which train.gather='ring' "
                "never holds; set train.gather to 'all'."
            )


class Part(NamedTuple):
    """What B queries have with a block of b keys, or with all of them."""

    lse: Tensor | None = None  # (B,) log-sum-exps over the keys
    sums: tuple[Tensor, ...] = ()  # of any shapes, over the keys
    columns: Tensor | None = None  # (b,) log-sum-exps over the queries
    column_sums: tuple[Tensor, ...] = ()  # (b,) over the queries


class Block(Protocol):
    """``part(own, visiting, source)``: of this rank's rows with the keys of rank ``source``; differentiable."""

    def __call__(self, own: Sequence[Tensor], visiting: Sequence[Tensor], source: int) -> Part: ...


def parameters_of(*modules: nn.Module) -> list[Tensor]:
    """Trainable parameters, each once."""
    return list({id(p): p for m in modules for p in m.parameters() if p.requires_grad}.values())


def around(
    block: Block,
    own: Sequence[Tensor],
    keys: Sequence[Tensor],
    *,
    counts: Sequence[int],
    parameters: Iterable[Tensor] = (),
    shapes: Part,
) -> Part:
    """The part of this rank's rows with the keys of every rank (a collective, and so is its backward pass).

    Args:
        block: What a block adds. It depends on its arguments and on ``parameters`` only, and is called twice for each
            block. Where this rank has no rows, or the block no keys, it is not called.
        own: This rank's rows, (B, ...) each.
        keys: This rank's keys, (b, ...) each, which travel.
        counts: b of each rank.
        parameters: Other tensors that gradients flow to: leaves.
        shapes: Zeros (-inf for log-sum-exps) of what the block gives, its columns for this rank's keys.

    Returns:
        With columns of this rank's keys over the rows of every rank.
    """
    parameters = list(parameters)
    made = _Ring.apply(block, shapes, list(counts), parameters, len(own), len(keys), *own, *keys, *parameters)
    return _unflatten(made, shapes)


def _flatten(part: Part) -> list[Tensor]:
    return [x for x in (part.lse, *part.sums, part.columns, *part.column_sums) if x is not None]


def _unflatten(tensors: Sequence[Any], like: Part) -> Part:
    rest = list(tensors)
    lse = rest.pop(0) if like.lse is not None else None
    sums = tuple(rest.pop(0) for _ in like.sums)
    columns = rest.pop(0) if like.columns is not None else None
    return Part(lse, sums, columns, tuple(rest))


def _add(total: Part, more: Part) -> Part:
    """Of the same queries and keys, over further ones."""
    return Part(
        None if total.lse is None or more.lse is None else torch.logaddexp(total.lse, more.lse),
        tuple(x + y for x, y in zip(total.sums, more.sums, strict=True)),
        None
        if total.columns is None or more.columns is None
        else torch.logaddexp(total.columns, more.columns),
        tuple(x + y for x, y in zip(total.column_sums, more.column_sums, strict=True)),
    )


class _Ring(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, block: Block, shapes: Part, counts: list[int], parameters: list[Tensor], owned: int, keyed: int,
        *tensors: Tensor,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        own, visiting = tensors[:owned], [x.contiguous() for x in tensors[owned : owned + keyed]]
        rank, world = distributed.rank(), distributed.world_size()
        total = shapes
        for hop in range(world):
            source, following = (rank - hop) % world, counts[(rank - hop - 1) % world]
            arriving = distributed.pass_on(visiting, rows=following) if hop < world - 1 else None
            if len(own[0]) and counts[source]:
                total = _add(total, block(own, visiting, source))
            if total.columns is not None:  # they travel with their keys, and come home
                columns = [x.contiguous() for x in (total.columns, *total.column_sums)]
                first, *others = distributed.pass_on(columns, rows=following)()
                total = total._replace(columns=first, column_sums=tuple(others))
            visiting = visiting if arriving is None else arriving()
        ctx.save_for_backward(*tensors[: owned + keyed], *_flatten(total))
        ctx.block, ctx.shapes, ctx.counts, ctx.parameters, ctx.owned, ctx.keyed = (
            block, shapes, counts, parameters, owned, keyed,
        )  # fmt: skip
        return tuple(_flatten(total))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        rank, world, counts = distributed.rank(), distributed.world_size(), ctx.counts
        inputs = ctx.owned + ctx.keyed
        own, keys = ctx.saved_tensors[: ctx.owned], ctx.saved_tensors[ctx.owned : inputs]
        total, grad = (_unflatten(x, ctx.shapes) for x in (ctx.saved_tensors[inputs:], grads))
        needs = ctx.needs_input_grad[6:]
        to_own, to_parameters = (
            [torch.zeros_like(x) for x in own],
            [torch.zeros_like(p) for p in ctx.parameters],
        )
        visiting, to_keys = [x.contiguous() for x in keys], [torch.zeros_like(x).contiguous() for x in keys]
        # Log-sum-exps of the visiting keys and the gradients of all that they have, which travel with them.
        columns: list[Tensor] = []
        if total.columns is not None and grad.columns is not None:
            columns = [x.contiguous() for x in (total.columns, grad.columns, *grad.column_sums)]
        for hop in range(world):
            source, following = (rank - hop) % world, counts[(rank - hop - 1) % world]
            arriving = distributed.pass_on([*visiting, *columns], rows=following) if hop < world - 1 else None
            if len(own[0]) and counts[source]:
                with torch.enable_grad():
                    rows = [x.detach().requires_grad_(need) for x, need in zip(own, needs, strict=False)]
                    blocks = [
                        x.detach().requires_grad_(n)
                        for x, n in zip(visiting, needs[ctx.owned :], strict=False)
                    ]
                    part = ctx.block(rows, blocks, source)
                pulls = _pulls(part, total, grad, columns)
                asked = [x for x in (*rows, *blocks, *ctx.parameters) if x.requires_grad]
                made = torch.autograd.grad(
                    [x for x, _ in pulls], asked, [g for _, g in pulls], allow_unused=True
                ) if pulls and asked else ()  # fmt: skip
                found = dict(zip(map(id, asked), made, strict=True)) if made else {}
                for totals, given in ((to_own, rows), (to_keys, blocks), (to_parameters, ctx.parameters)):
                    for sum_, x in zip(totals, given, strict=True):
                        if found.get(id(x)) is not None:
                            sum_ += found[id(x)]
            to_keys = distributed.pass_on(to_keys, rows=following)() if world > 1 else to_keys
            if arriving is not None:
                received = arriving()
                visiting, columns = received[: ctx.keyed], received[ctx.keyed :]
        return (None,) * 6 + (*to_own, *to_keys, *to_parameters)


def _pulls(part: Part, total: Part, grad: Part, columns: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Outputs of a block that have a graph, with their gradients: a block's share of a log-sum-exp is its softmax."""
    pairs: list[tuple[Tensor, Tensor]] = list(zip(part.sums, grad.sums, strict=True))
    if part.lse is not None and total.lse is not None and grad.lse is not None:
        pairs.append((part.lse, grad.lse * (part.lse.detach() - total.lse).exp()))
    if part.columns is not None:
        of_all, gradient, *of_sums = columns
        pairs.append((part.columns, gradient * (part.columns.detach() - of_all).exp()))
        pairs += zip(part.column_sums, of_sums, strict=True)
    return [(x, g.to(x.dtype)) for x, g in pairs if x.requires_grad]

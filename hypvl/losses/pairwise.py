"""Means over all pairs of queries and keys, from whole matrices of scores or from tiles of them.

A loss writes its formula once, for given matrices; whether those are held is chosen here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hypvl import distributed
from hypvl.checks import one_of
from hypvl.geometry import kernels, tiles
from hypvl.losses.base import PairContext, View
from hypvl.losses.info_nce import Implementation, is_tiled, tiled_logits, warn_dense
from hypvl.losses.ring import Part, around, parameters_of
from hypvl.numerics import inner_products
from hypvl.ops import row_means
from hypvl.ops.row_means import Combine
from hypvl.ops.tiled_logsumexp.kernels import TileableGeometry, TiledScores


@dataclass(frozen=True)
class Pairs:
    """A number for each pair of B queries and N keys, not computed yet."""

    name: str  # of the scores, for a message
    count: int  # B N
    dense: Callable[[], Tensor]  # (B, N)
    tiled: Callable[[], TiledScores | None]  # None where they are not a function of one inner product


def logits(ctx: PairContext, query: View, key: View) -> Pairs:
    """Scaled scores of the local queries with the keys of every rank, as :meth:`PairContext.logits`."""
    queries, keys = ctx.embeddings(query), ctx.embeddings(key, gathered=True)
    return Pairs(
        f"{type(ctx.model.scorer).__name__} in {type(ctx.model.geometry).__name__}",
        len(queries) * len(keys),
        lambda: ctx.score(queries, keys, query=query, key=key),
        lambda: tiled_logits(ctx, queries, keys, query=query, key=key),
    )


def similarities(ctx: PairContext, first: View, second: View) -> Pairs:
    """The geometry's similarities of local rows with those of every rank, as :meth:`PairContext.similarity`."""
    x, y, geometry = ctx.embeddings(first), ctx.embeddings(second, gathered=True), ctx.model.geometry

    def tiled() -> TiledScores | None:
        return geometry.tiled_similarity(x, y) if isinstance(geometry, TileableGeometry) else None

    name = f"the similarity of {type(geometry).__name__}"
    return Pairs(name, len(x) * len(y), lambda: geometry.pairwise_similarity(x, y), tiled)


def products(x: Tensor, y: Tensor) -> Pairs:
    """Inner products of rows (B, D) and (N, D)."""
    return Pairs(
        "an inner product", len(x) * len(y), lambda: inner_products(x, y), lambda: tiles.inner_product(x, y)
    )


def negative_squared_distances(x: Tensor, y: Tensor) -> Pairs:
    """-|x_i - y_j|^2 of rows (B, D) and (N, D), which count as lying within ``kernels.REACH`` of their mean."""

    def dense() -> Tensor:
        a, b = kernels.about_common_centre(x, y)
        return 2 * inner_products(a, b) - a.square().sum(-1, keepdim=True) - b.square().sum(-1)

    return Pairs("a squared distance", len(x) * len(y), dense, lambda: tiles.negative_squared_distance(x, y))


def mean_over_queries(
    function: Callable[..., Tensor],
    *pairs: Pairs,
    rows: Sequence[Tensor] = (),
    others: Sequence[Tensor] = (),
    combine: Combine = "mean",
    implementation: Implementation = "auto",
) -> Tensor:
    """``function(*matrices, *rows, *others)``, dense, or tiled in memory linear in B and N.

    Args:
        function: Of matrices (B, N), tensors with a row for each query, (B, ...), and any others, to a 0-dim mean over
            queries, or with ``combine="log_mean_exp"`` the log of such a mean. It changes no argument.
        pairs: What the matrices hold.
        rows, others: Further arguments; gradients flow to all.
        combine: As for :func:`~hypvl.ops.row_means.mean_over_rows`.
        implementation: As for :func:`~hypvl.losses.info_nce.info_nce`.

    Raises:
        ValueError: for another implementation, or another way to combine.
    """
    one_of("implementation", implementation, Implementation)
    one_of("combine", combine, Combine)
    if is_tiled(implementation, max(p.count for p in pairs)):
        found = [(p, p.tiled()) for p in pairs]
        scores = [z for _, z in found if z is not None]
        if len(scores) == len(pairs):
            return row_means.mean_over_rows(function, scores, rows=rows, others=others, combine=combine)
        if implementation == "tiled":
            warn_dense(next(p.name for p, z in found if z is None))
    return function(*(p.dense() for p in pairs), *rows, *others)


def by_queries(
    function: Callable[..., Tensor], queries: Tensor, keys: Tensor, *, implementation: Implementation = "auto"
) -> Tensor:
    """``function(queries, keys)`` with a row for each query: (B, D), (N, D) -> (B, ...), from the keys alone.

    Where it is tiled, blocks of queries are computed again in the backward pass. Gradients flow to the two arguments.
    """
    if not is_tiled(implementation, len(queries) * len(keys)):
        return function(queries, keys)
    return row_means.by_rows(function, queries, keys)


def sum_over_ring(
    function: Callable[[Pairs, bool], Tensor],
    ctx: PairContext,
    query: View,
    key: View,
    *,
    parameters: Sequence[Tensor] = (),
) -> Tensor:
    """Sum over ranks of a 0-dim number of the local queries with the keys of one rank, which travel in a ring.

    Args:
        function: Of the scaled scores with a rank's keys, and whether they are this rank's own.
        ctx, query, key: As for :func:`logits`.
        parameters: Of the function itself; gradients flow to them and to the model.
    """
    queries, keys, rank = ctx.embeddings(query), ctx.embeddings(key), distributed.rank()
    zero = queries.new_zeros((), dtype=torch.promote_types(queries.dtype, torch.float32))

    def block(own: Sequence[Tensor], visiting: Sequence[Tensor], source: int) -> Part:
        (x,), (y,) = own, visiting
        pairs = Pairs(
            f"{type(ctx.model.scorer).__name__} in {type(ctx.model.geometry).__name__}",
            len(x) * len(y),
            lambda: ctx.score(x, y, query=query, key=key),
            lambda: tiled_logits(ctx, x, y, query=query, key=key),
        )
        return Part(sums=(function(pairs, source == rank).to(zero.dtype),))

    parameters = [*parameters_of(ctx.model.geometry, ctx.model.scorer), *parameters]
    counts = ctx.rows_of_ranks(key)
    return around(
        block, [queries], [keys], counts=counts, parameters=parameters, shapes=Part(sums=(zero,))
    ).sums[0]

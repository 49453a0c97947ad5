"""The softmax cross-entropy of every contrastive loss, from whole score matrices or from tiles of them."""

import warnings
from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from hypvl import distributed
from hypvl.checks import one_of
from hypvl.losses.base import PairContext, View
from hypvl.losses.owners import Over
from hypvl.losses.ring import Part, around, parameters_of
from hypvl.numerics import full_precision, working_dtype
from hypvl.ops import row_means
from hypvl.ops.tiled_logsumexp.autograd import log_sum_exps
from hypvl.ops.tiled_logsumexp.kernels import TiledScores

Implementation: TypeAlias = Literal["auto", "dense", "tiled"]
#: What the other rows of a query's own whole are to it: negatives like any other, or no keys at all.
SameWhole: TypeAlias = Literal["negatives", "masked"]
#: How often a whole is a key of queries of which it has any number: once, or once for each of them.
Wholes: TypeAlias = Literal["once", "per_row"]

# Entries of a score matrix from which on its tiles are faster than the whole.
TILED_FROM = 2**22


@full_precision
def softmax_cross_entropy(
    logits: Tensor,
    targets: Tensor,
    *,
    same: Tensor | None = None,
    valid: Tensor | None = None,
    mask: Tensor | None = None,
    row_scale: Tensor | None = None,
    smoothing: float = 0.0,
    reduction: Literal["mean", "none"] = "mean",
) -> Tensor:
    """Mean cross entropy of each query's scores against its own key, or against all keys of its label (InfoNCE).

    Formula: ``mean_i ( logsumexp_j z_ij - (1 - e) mean_{j in P_i} z_ij - e mean_j z_ij )``, P_i the positive keys.

    Args:
        logits: (Q, K) scaled scores, higher = closer; -inf leaves a key out.
        targets: (Q,) int64, column of each query's positive key; not used with ``same``.
        same: (Q, K) bool, whether key j is a positive of query i, at least one in each row; None = its own key only.
        valid: (M,) bool, of the last M keys, M <= K; those that are not are left out. None = all count.
        mask: (Q, K) bool, which keys are left out for which query, never a positive one; None = none.
        row_scale: (Q,) factor of each query's logits; None = 1.
        smoothing: e in [0, 1): the share of the target that is spread evenly over all keys that are not masked.
        reduction: ``"none"`` gives the cross entropy of each query.

    Returns:
        0-dim, or (Q,).

    Source: Oord et al. 2018 (arXiv 1807.03748), eq. 4; Radford et al. 2021 (arXiv 2103.00020), fig. 3;
        smoothing: Szegedy et al. 2016 (arXiv 1512.00567), section 7;
        labels: UniCL, Yang et al. 2022 (arXiv 2204.03610), eq. 2 and 3, as "out" of SupCon (arXiv 2004.11362).

    Example:
        >>> softmax_cross_entropy(torch.zeros(2, 4), torch.tensor([0, 1]))  # log 4
        tensor(1.3863)
    """
    if row_scale is not None:
        logits = logits * row_scale[:, None]
    if valid is not None:
        left_out = torch.cat([valid.new_zeros(logits.shape[1] - len(valid)), ~valid])
        logits = logits.masked_fill(left_out, -torch.inf)
    if mask is not None:
        logits = logits.masked_fill(mask, -torch.inf)
    if same is None and mask is None:
        return F.cross_entropy(logits, targets, label_smoothing=smoothing, reduction=reduction)
    if same is None:
        positive = logits.gather(1, targets[:, None])[:, 0]
    else:
        positive = torch.where(same, logits, 0.0).sum(1) / same.sum(1)
    loss = logits.logsumexp(1) - (1 - smoothing) * positive
    if smoothing:
        loss = loss - smoothing * (logits.mean(1) if mask is None else _mean_of_others(logits, mask))
    return loss.mean() if reduction == "mean" else loss


def _mean_of_others(logits: Tensor, mask: Tensor) -> Tensor:
    """Mean of each row of (Q, K) over the entries that are not masked, (Q,)."""
    return torch.where(mask, 0.0, logits).sum(1) / (~mask).sum(1)


def info_nce(
    ctx: PairContext,
    query: View,
    key: View,
    *,
    both_directions: bool = False,
    extra_keys: View | None = None,
    valid: Tensor | None = None,
    labels: tuple[Tensor, Tensor] | None = None,
    row_scale: Tensor | None = None,
    smoothing: float = 0.0,
    scale: str | None = None,
    same_whole: SameWhole = "negatives",
    wholes: Wholes = "once",
    over: Over = "gathered",
    implementation: Implementation = "auto",
    tile: Sequence[int] | None = None,
) -> Tensor:
    """:func:`softmax_cross_entropy` of local queries against the keys of every rank, dense or tiled.

    Tiles take memory linear in the batch, and one matrix for both directions where the scores are symmetric.

    Samples may have any number of queries (boxes): every query of every rank weighs the same.

    Args:
        ctx: The step.
        query: View of the queries, (Q, D).
        key: View of the keys, (N, D): row i of rank r belongs to query i of rank r, or the rows are wholes, of which
            each query's own is the positive.
        both_directions: Whether the local keys are queries as well, against the queries of every rank.
        extra_keys: View of further keys of the queries, (M, D) on all ranks, which belong to no query.
        valid: (M,) bool; extra keys that are not are left out. None = all count.
        labels: Of the local samples (B,) and of all (N,), int64: all keys of a query's label are its positives.
        row_scale: (Q,) factor of each query's logits; for one direction.
        smoothing: As :func:`softmax_cross_entropy`, over the keys of every rank.
        scale: Name of the scorer's scale that multiplies the scores; None = its own.
        same_whole: ``"masked"`` leaves out keys that are rows of a query's own whole without being its positive: other
            boxes of the same image, or with ``wholes="per_row"`` that image once more.
        wholes: With queries of boxes and keys of wholes: each is a key ``"once"``, also where it has no box, or
            ``"per_row"``, once for each of its boxes.
        over: With queries of boxes: ``"local"`` is the mean over those of this rank, 0 without any.
        implementation: ``"dense"`` holds each score matrix, ``"tiled"`` computes it tile by tile, ``"auto"`` = tiled
            where a matrix has 2^22 entries or more. Scores that are not a function of one inner product stay dense.
        tile: Rows and columns of a tile; None = device default. Where keys are masked, blocks of rows are computed.

    Returns:
        (1,) the loss of query -> key, or (2,) and that of key -> query. The mean over ranks of each equals that of one
        process on the joined batch.

    Raises:
        ValueError: for another implementation, a tile that is not two whole numbers, or views whose rows do not belong
            together.
    """
    check_implementation(implementation, tile)
    one_of("same_whole", same_whole, SameWhole)
    one_of("wholes", wholes, Wholes)
    one_of("over", over, Over)
    to_wholes = ctx.owner(query) is not None and ctx.owner(key) is None
    if not to_wholes or both_directions:
        ctx.check_same_rows(query, key)
    else:
        ctx.check_wholes(key)
    if ctx.ring:
        return _ring_info_nce(
            ctx, query, key, both_directions=both_directions, extra_keys=extra_keys, valid=valid, labels=labels,
            row_scale=row_scale, smoothing=smoothing, scale=scale, same_whole=same_whole, wholes=wholes, over=over,
            implementation=implementation, tile=tile,
        )  # fmt: skip
    queries, keys = ctx.embeddings(query), ctx.embeddings(key, gathered=True)
    if to_wholes and wholes == "per_row":
        keys = keys[ctx.owners(query, gathered=True)]
    if extra_keys is not None:
        keys = torch.cat([keys, ctx.embeddings(extra_keys, gathered=True)])
    targets = ctx.owners(query) if to_wholes and wholes == "once" else ctx.targets(query)
    masked = same_whole == "masked" and ctx.owner(query) is not None and not (to_wholes and wholes == "once")
    # Tiles have collectives of their own: every rank chooses alike, however many queries it has.
    tiled = is_tiled(implementation, ctx.count(query) * len(keys) // distributed.world_size())
    if tiled and valid is not None:  # a device is waited for, to count them
        others = len(keys) - len(valid)
        keys, valid = torch.cat([keys[:others], keys[others:][valid]]), None
    scores = tiled_logits(ctx, queries, keys, query=query, key=key, scale=scale) if tiled else None
    if scores is None:
        if implementation == "tiled":
            warn_dense(f"{type(ctx.model.scorer).__name__} in {type(ctx.model.geometry).__name__}")
        logits = ctx.score(queries, keys, query=query, key=key, scale=scale)  # (B, N + M)
        same = None if labels is None else labels[0][:, None] == labels[1]
        kind: Literal["mean", "none"] = "mean" if ctx.owner(query) is None else "none"
        mask = None
        if masked:
            mask = _other_rows(ctx.owners(query), _owners_of_keys(ctx, query, len(keys)), targets)
        loss = softmax_cross_entropy(
            logits, targets, same=same, valid=valid, mask=mask, row_scale=row_scale, smoothing=smoothing, reduction=kind
        )  # fmt: skip
        losses = [loss if kind == "mean" else ctx.mean(loss, query, over=over)]
        shared = False
    else:
        if row_scale is not None:
            scores = scores.scaled(row_scale[:, None])
        shared = both_directions and scores.symmetric and not masked
        if masked:
            mean = _masked_mean(ctx, query, scores, targets, labels=labels, smoothing=smoothing)
            losses = [ctx.mean(mean.expand(len(queries)), query, over=over)]
        else:
            losses = _tiled_losses(
                ctx, query, scores, targets, labels=labels, both_directions=shared, smoothing=smoothing, over=over,
                tile=tile,
            )  # fmt: skip
    if both_directions and not shared:
        chosen: Implementation = "dense" if scores is None else "tiled"  # also where there are fewer keys
        back = info_nce(
            ctx, key, query, labels=labels, smoothing=smoothing, scale=scale, same_whole=same_whole, over=over,
            implementation=chosen, tile=tile,
        )  # fmt: skip
        return torch.cat([torch.stack(losses), back])
    return torch.stack(losses)


def _ring_info_nce(
    ctx: PairContext,
    query: View,
    key: View,
    *,
    both_directions: bool,
    extra_keys: View | None,
    valid: Tensor | None,
    labels: tuple[Tensor, Tensor] | None,
    row_scale: Tensor | None,
    smoothing: float,
    scale: str | None,
    same_whole: SameWhole,
    wholes: Wholes,
    over: Over,
    implementation: Implementation,
    tile: Sequence[int] | None,
) -> Tensor:
    """:func:`info_nce`, the keys block by block; what is held of all ranks are labels and owners, a number a row."""
    queries, keys, rank = ctx.embeddings(query), ctx.embeddings(key), distributed.rank()
    to_wholes = ctx.owner(query) is not None and ctx.owner(key) is None
    counts = ctx.rows_of_ranks(query if to_wholes and wholes == "per_row" else key)
    if to_wholes and wholes == "per_row":
        keys = keys[ctx.owner(query)]
    own_targets = ctx.owners(query) if to_wholes and wholes == "once" else ctx.targets(query)
    at = own_targets - sum(counts[:rank])  # the positive is one of this rank's keys
    further = [0] * len(counts) if extra_keys is None else ctx.rows_of_ranks(extra_keys)
    if extra_keys is not None:
        keys = torch.cat([keys, ctx.embeddings(extra_keys)])
    masked = same_whole == "masked" and ctx.owner(query) is not None and not (to_wholes and wholes == "once")
    owners = ctx.owners(query, gathered=True).split(counts) if masked else None
    own_wholes = ctx.owners(query)
    columns_of = None if labels is None else labels[1].split(counts)
    counted = None if valid is None else valid.split(further)
    total = sum(counts) + sum(further)

    how = {"query": query, "key": key, "scale": scale}
    tiled = is_tiled(implementation, ctx.count(query) * total // len(counts) ** 2)
    probe = tiled_logits(ctx, queries[:1], keys[:1], **how) if tiled else None  # type: ignore[arg-type]
    if implementation == "tiled" and probe is None:
        warn_dense(f"{type(ctx.model.scorer).__name__} in {type(ctx.model.geometry).__name__}")
    tiled = probe is not None and not masked and valid is None
    shared = both_directions and probe is not None and probe.symmetric and tiled
    smooth, size = smoothing > 0, None if tile is None else (tile[0], tile[1])
    dtype = working_dtype(queries.device) if tiled else torch.promote_types(queries.dtype, torch.float32)

    def block(own: Sequence[Tensor], visiting: Sequence[Tensor], source: int) -> Part:
        (q, *factor), k = own, visiting[0]
        same = None if labels is None or columns_of is None else (labels[0], columns_of[source])
        here = source == rank
        if not tiled:
            z = ctx.score(q, k, **how).to(dtype)  # type: ignore[arg-type]
            z = z * factor[0][:, None] if factor else z
            left_out = z.new_zeros(z.shape, dtype=torch.bool)
            if counted is not None:
                left_out[:, counts[source] :] = ~counted[source]
            if owners is not None:
                every = F.pad(owners[source], (0, further[source]), value=-1)
                left_out = left_out | (
                    _other_rows(own_wholes, every, at) if here else own_wholes[:, None] == every
                )
            lse = z.masked_fill(left_out, -torch.inf).logsumexp(1)
            positive = z.new_zeros(len(z))
            if same is not None:
                positive = torch.where(same[0][:, None] == same[1], z, 0.0).sum(1)
            elif here:
                positive = z.gather(1, at[:, None])[:, 0]
            plain = (torch.where(left_out, 0.0, z).sum(1),) if smooth else ()
            return Part(lse, (positive, *plain))
        scores = tiled_logits(ctx, q, k, **how)  # type: ignore[arg-type]
        assert scores is not None
        scores = scores.scaled(factor[0][:, None]) if factor else scores
        stats = log_sum_exps(
            scores, at if here else torch.zeros_like(at), labels=same, columns=shared, sums=smooth, tile=size
        )
        positive = stats.targets if here or same is not None else torch.zeros_like(stats.targets)
        sums = (positive, stats.row_sums) if smooth else (positive,)
        if not shared:
            return Part(stats.rows, sums)
        of_columns = (*((stats.column_sums,) if smooth else ()), *((stats.column_targets,) if same else ()))
        return Part(stats.rows, sums, stats.columns, of_columns)

    zeros, column = queries.new_zeros(len(queries), dtype=dtype), queries.new_zeros(len(keys), dtype=dtype)
    shapes = Part(
        zeros - torch.inf, (zeros,) * (1 + smooth), column - torch.inf if shared else None,
        (column,) * (shared * (smooth + (labels is not None))),
    )  # fmt: skip
    made = around(
        block, [queries] if row_scale is None else [queries, row_scale], [keys],
        counts=[a + b for a, b in zip(counts, further, strict=True)],
        parameters=parameters_of(ctx.model.geometry, ctx.model.scorer), shapes=shapes,
    )  # fmt: skip
    assert made.lse is not None
    positives = None if labels is None else _count_of(labels[0], labels[1])
    positive = made.sums[0] if positives is None else made.sums[0] / positives
    held: int | Tensor = total
    if owners is not None:
        held = total - (_count_of(own_wholes, torch.cat(owners)) - 1)
    mean = made.sums[1] / held if smooth else 0.0
    losses = [ctx.mean(_loss(made.lse, positive, mean, smoothing), query, over=over)]
    if shared and made.columns is not None:
        mean = made.column_sums[0][at] / ctx.count(query) if smooth else 0.0
        positive = positive if positives is None else made.column_sums[-1][at] / positives
        losses.append(ctx.mean(_loss(made.columns[at], positive, mean, smoothing), query, over=over))
    result = torch.stack([loss.to(queries.dtype) for loss in losses])
    if not both_directions or shared:
        return result
    back = info_nce(
        ctx, key, query, labels=labels, smoothing=smoothing, scale=scale, same_whole=same_whole, over=over,
        implementation=implementation, tile=tile,
    )  # fmt: skip
    return torch.cat([result, back])


def _count_of(values: Tensor, among: Tensor) -> Tensor:
    """How often each of some numbers is among others: (B,), (N,) int64 -> (B,)."""
    ordered = among.sort().values
    return torch.searchsorted(ordered, values, right=True) - torch.searchsorted(ordered, values)


def _owners_of_keys(ctx: PairContext, query: View, count: int) -> Tensor:
    """The whole of each key, (count,) int64: those of the queries of all ranks, and -1 for further keys."""
    owners = ctx.owners(query, gathered=True)
    return F.pad(owners, (0, count - len(owners)), value=-1)


def _other_rows(own: Tensor, every: Tensor, targets: Tensor) -> Tensor:
    """Which keys are rows of a query's own whole but not its positive: (Q,), (K,), (Q,) int64 -> (Q, K) bool."""
    return (own[:, None] == every).scatter(1, targets[:, None], False)


def _masked_mean(
    ctx: PairContext,
    query: View,
    scores: TiledScores,
    targets: Tensor,
    *,
    labels: tuple[Tensor, Tensor] | None,
    smoothing: float,
) -> Tensor:
    """Mean over this rank's queries of the cross entropy without other rows of their wholes, by blocks of queries."""

    def mean(z: Tensor, own: Tensor, at: Tensor, *given: Tensor) -> Tensor:
        every, labelled = given[-1], given[:-1]
        same = labelled[0][:, None] == labelled[1] if labelled else None
        return softmax_cross_entropy(z, at, same=same, mask=_other_rows(own, every, at), smoothing=smoothing)

    every = _owners_of_keys(ctx, query, len(scores.columns))
    of_rows, of_keys = ((), ()) if labels is None else ((labels[0],), (labels[1],))
    return row_means.mean_over_rows(
        mean, [scores], rows=(ctx.owners(query), targets, *of_rows), others=(*of_keys, every)
    )


class Direction(NamedTuple):
    """A (query, key) pair of views, and whether its reverse is asked for as well."""

    query: View
    key: View
    both: bool


def parse_pairs(pairs: Sequence[Sequence[str | View]]) -> list[tuple[View, View]]:
    """(query, key) views of pairs that may be written as strings. Raises ValueError for no pairs."""
    if not pairs:
        raise ValueError("pairs: got none; give at least one (query, key) pair such as ('image', 'text').")
    return [(View.parse(query), View.parse(key)) for query, key in pairs]


def group_directions(pairs: Sequence[Sequence[str | View]]) -> list[Direction]:
    """:func:`parse_pairs` in order, each joined with one reverse of it, so that the two can share their scores."""
    waiting = parse_pairs(pairs)
    directions: list[Direction] = []
    while waiting:
        query, key = waiting.pop(0)
        both = query != key and (key, query) in waiting
        if both:
            waiting.remove((key, query))
        directions.append(Direction(query, key, both))
    return directions


def check_implementation(implementation: Implementation, tile: Sequence[int] | None) -> None:
    """ValueError for other implementations, or a tile that is not two whole numbers of at least 1."""
    one_of("implementation", implementation, Implementation)
    is_size = isinstance(tile, Sequence) and len(tile) == 2
    if tile is not None and not (is_size and all(type(size) is int and 1 <= size < 2**31 for size in tile)):
        raise ValueError(
            f"tile: got {tile!r}; expected the rows and columns of a tile, two whole numbers of at least 1."
        )


def is_tiled(implementation: Implementation, entries: int) -> bool:
    """Whether score matrices with so many entries are computed tile by tile. ValueError for other implementations."""
    one_of("implementation", implementation, Implementation)
    return implementation == "tiled" or (implementation == "auto" and entries >= TILED_FROM)


def tiled_logits(
    ctx: PairContext, queries: Tensor, keys: Tensor, *, query: View, key: View, scale: str | None = None
) -> TiledScores | None:
    """:meth:`PairContext.score`, not computed yet; None where it has no tiles."""
    further = {} if scale is None else {"scale": scale}  # a scorer of the user's own may have none
    return ctx.model.scorer.tiled_logits(
        ctx.model.geometry, queries, keys, query_modality=query.modality, key_modality=key.modality, **further
    )  # fmt: skip


def warn_dense(scores: str) -> None:
    """Say that tiles were asked for where these scores have none."""
    warnings.warn(
        f"implementation='tiled': {scores} is not a function of one inner product, so whole score matrices are held; "
        "leave implementation at 'auto', or take another geometry.",
        stacklevel=3,
    )


def _tiled_losses(
    ctx: PairContext,
    query: View,
    scores: TiledScores,
    targets: Tensor,
    *,
    labels: tuple[Tensor, Tensor] | None,
    both_directions: bool,
    smoothing: float,
    over: Over,
    tile: Sequence[int] | None,
) -> list[Tensor]:
    """Losses of the rows and, with ``both_directions``, of this rank's columns, from one pass over the scores.

    A rank has its rows and all columns; the columns' sums over the rows of other ranks come from those.
    """
    smooth = smoothing > 0
    size = None if tile is None else (tile[0], tile[1])
    stats = log_sum_exps(scores, targets, labels=labels, columns=both_directions, sums=smooth, tile=size)
    positive = stats.targets if labels is None else stats.targets / stats.counts  # (B,)
    means = stats.row_sums / len(scores.columns) if smooth else 0.0
    losses = [ctx.mean(_loss(stats.rows, positive, means, smoothing), query, over=over)]
    if both_directions:
        lse = distributed.gather(stats.columns[None]).logsumexp(0)[targets]
        if smooth:
            total = distributed.gather(stats.column_sums[None]).sum(0)[targets]
            means = total / ctx.count(query)
        if labels is not None:
            total = distributed.gather(stats.column_targets[None]).sum(0)[targets]
            positive = total / distributed.gather(stats.column_counts[None]).sum(0)[targets]
        losses.append(ctx.mean(_loss(lse, positive, means, smoothing), query, over=over))
    return [loss.to(scores.rows.dtype) for loss in losses]


def _loss(lse: Tensor, positive: Tensor, mean: Tensor | float, smoothing: float) -> Tensor:
    return lse - (1 - smoothing) * positive - smoothing * mean

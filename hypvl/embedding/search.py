"""Search a gallery by the model's own scores, one block of scores at a time: top-k, exact ranks, chosen pairs.

Memory: one block of ``query_chunk x key_chunk`` scores and the ``k`` best keys of a chunk of queries; nothing grows
with Q x K. Of equal scores the lower key comes first, so results do not depend on the chunks (as far as the scores
themselves do not: a matrix product may round its last bit by its shape).
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from hypvl.checks import one_of
from hypvl.embedding.protocol import EvaluableModel, Modality, check_scores, evaluating
from hypvl.io.progress import counted
from hypvl.metrics.ranking import rank_keys


def search(
    model: EvaluableModel,
    queries: Tensor,
    keys: Tensor,
    *,
    k: int,
    query_modality: Modality,
    key_modality: Modality,
    query_chunk: int = 512,
    key_chunk: int = 4096,
) -> tuple[Tensor, Tensor]:
    """The k best keys of every query.

    Args:
        queries: Embeddings (Q, D).
        keys: Embeddings (K, D), K >= 1.
        k: How many to return; K when that is less.
        query_modality: What the queries are; ``key_modality`` likewise.
        query_chunk: Queries per block; ``key_chunk`` likewise.

    Returns:
        scores (Q, k) and key positions (Q, k) int64, best first, on the CPU.

    Raises:
        UserError: when the model's scores are NaN.
    """
    one_of("query_modality", query_modality, Modality)
    one_of("key_modality", key_modality, Modality)
    _check_not_empty(queries, keys)
    parts: list[tuple[Tensor, Tensor]] = []
    with evaluating(model) as device:
        for query in counted(queries.split(query_chunk), "searching"):
            query = query.to(device)
            best = StreamingTopK(k)
            for start in range(0, len(keys), key_chunk):
                part = keys[start : start + key_chunk].to(device)
                scores = model.scores(query, part, query_modality=query_modality, key_modality=key_modality)
                best.add(scores, start)
            parts.append(best.on_cpu())
    return _concatenated(parts)


def search_both_ways(
    model: EvaluableModel,
    queries: Tensor,
    keys: Tensor,
    *,
    k: int,
    query_modality: Modality,
    key_modality: Modality,
    query_chunk: int = 512,
    key_chunk: int = 4096,
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """:func:`search` from queries to keys, and from keys to queries.

    Where the model ranks by a distance, which is symmetric, each block of scores is computed once and read both ways;
    the k best queries of every key are held meanwhile. Otherwise this is two searches.
    """
    one_of("query_modality", query_modality, Modality)
    one_of("key_modality", key_modality, Modality)
    modalities: dict[str, Modality] = {"query_modality": query_modality, "key_modality": key_modality}
    if not ranks_by_distance(model):
        one_way = partial(search, model, k=k, query_chunk=query_chunk, key_chunk=key_chunk)
        return (
            one_way(queries, keys, query_modality=query_modality, key_modality=key_modality),
            one_way(keys, queries, query_modality=key_modality, key_modality=query_modality),
        )
    _check_not_empty(queries, keys)
    parts: list[tuple[Tensor, Tensor]] = []
    with evaluating(model) as device:
        key_starts = range(0, len(keys), key_chunk)
        of_keys = [StreamingTopK(k) for _ in key_starts]
        for start in counted(range(0, len(queries), query_chunk), "searching both ways"):
            query = queries[start : start + query_chunk].to(device)
            of_queries = StreamingTopK(k)
            for key_start, best in zip(key_starts, of_keys, strict=True):
                part = keys[key_start : key_start + key_chunk].to(device)
                block = model.scores(query, part, **modalities)
                of_queries.add(block, key_start)
                best.add(block.T, start)
            parts.append(of_queries.on_cpu())
        return _concatenated(parts), _concatenated([best.on_cpu() for best in of_keys])


def exact_ranks(
    model: EvaluableModel,
    queries: Tensor,
    keys: Tensor,
    right: Sequence[Sequence[int]],
    *,
    query_modality: Modality,
    key_modality: Modality,
    query_chunk: int = 512,
    key_chunk: int = 4096,
) -> list[int]:
    """Rank (1 = first) of the best right key of every query, however far down it is.

    The keys are scored twice for each chunk of queries, in the same blocks and therefore with the same scores: once for
    the scores of the right keys, once to count the keys before the best of them.

    Args: as :func:`search`, and
        right: For each query the rows of its right keys, at least one.

    Raises:
        ValueError: for a query without a right key.
        UserError: when the model's scores are NaN.
    """
    one_of("query_modality", query_modality, Modality)
    one_of("key_modality", key_modality, Modality)
    if len(right) != len(queries) or not all(right):
        raise ValueError("right: a query has no right key; expected at least one for each.")
    ranks: list[int] = []
    with evaluating(model) as device:

        def block(query: Tensor, start: int) -> Tensor:
            part = keys[start : start + key_chunk].to(device)
            scores = model.scores(query, part, query_modality=query_modality, key_modality=key_modality)
            check_scores(scores)
            return scores

        starts = range(0, len(keys), key_chunk)
        for begin in counted(range(0, len(queries), query_chunk), "ranking"):
            query = queries[begin : begin + query_chunk].to(device)
            right_keys = right[begin : begin + query_chunk]
            rows = torch.tensor(
                [row for row, own in enumerate(right_keys) for _ in own], device=device
            )  # (P,)
            columns = torch.tensor([key for own in right_keys for key in own], device=device)  # (P,)
            only = block(query, 0) if len(starts) == 1 else None
            own = torch.empty(len(rows), device=device)
            for start in starts:
                scores = block(query, start) if only is None else only  # (q, chunk)
                here = (columns >= start) & (columns < start + key_chunk)
                own = own.to(scores.dtype)
                own[here] = scores[rows[here], columns[here] - start]
            best = own.new_full((len(query),), -torch.inf).scatter_reduce(0, rows, own, "amax")  # (q,)
            last = torch.full((len(query),), len(keys), device=device)
            first = last.scatter_reduce(0, rows, torch.where(own == best[rows], columns, len(keys)), "amin")
            before = torch.zeros(len(query), dtype=torch.int64, device=device)
            for start in starts:
                scores = block(query, start) if only is None else only
                positions = torch.arange(start, start + scores.shape[1], device=device)
                tied = (scores == best[:, None]) & (positions < first[:, None])
                before += ((scores > best[:, None]) | tied).sum(1)
            ranks += (1 + before).tolist()
    return ranks


def pair_scores(
    model: EvaluableModel,
    queries: Tensor,
    keys: Tensor,
    asked: Sequence[Sequence[int]],
    *,
    query_modality: Modality,
    key_modality: Modality,
    chunk: int = 64,
) -> list[list[float]]:
    """Scores of some keys for each query, in the order of ``asked``, without scoring everything against everything.

    Args: as :func:`search`, and
        asked: For each query the rows of ``keys`` to score, in order, possibly none.
        chunk: Queries scored at once, against every key that one of them asks for.

    Raises:
        ValueError: when ``asked`` does not have one entry per query.
        UserError: when the model's scores are NaN.
    """
    one_of("query_modality", query_modality, Modality)
    one_of("key_modality", key_modality, Modality)
    if len(asked) != len(queries):
        raise ValueError(f"asked: got {len(asked)} entries for {len(queries)} queries; expected one each.")
    result: list[list[float]] = []
    with evaluating(model) as device:
        for start in counted(range(0, len(queries), chunk), "scoring pairs"):
            wanted = asked[start : start + chunk]
            rows = list(dict.fromkeys(row for own in wanted for row in own))
            if not rows:
                result += [[] for _ in wanted]
                continue
            scores = model.scores(
                queries[start : start + chunk].to(device),
                keys[rows].to(device),
                query_modality=query_modality,
                key_modality=key_modality,
            )  # (q, rows)
            check_scores(scores)
            column = {row: i for i, row in enumerate(rows)}
            table = scores.double().cpu()
            result += [
                table[i, [column[row] for row in own]].tolist() if own else [] for i, own in enumerate(wanted)
            ]
    return result


def ranks_by_distance(model: EvaluableModel) -> bool:
    """Whether the model's scores rank as a distance does, which is symmetric; False for one without a scorer."""
    return bool(getattr(getattr(model, "scorer", None), "ranks_by_distance", False))


class StreamingTopK:
    """The k best keys of each of Q queries, of the blocks of scores seen so far.

    Blocks come with ascending keys, so that of equal scores the lower key stays first. After the first few blocks
    hardly any score beats the retained ones: a block then costs one maximum per row and one comparison.
    """

    def __init__(self, k: int) -> None:
        self.k = k
        self.values: Tensor | None = None  # (Q, <= k), best first
        self.keys: Tensor | None = None  # (Q, <= k) int64

    def add(self, block: Tensor, start: int) -> None:
        """Merge the scores (Q, n) of the next keys, the first of which is ``start``; NaN is a UserError."""
        top = block.amax(dim=1)  # NaN where any is
        if bool(top.isnan().any()):
            check_scores(block)
        if self.values is None or self.keys is None:
            order = rank_keys(block, self.k)
            self.values, self.keys = block.gather(1, order), order + start
        elif self.values.shape[1] < self.k:
            order = rank_keys(block, self.k)
            self._merge(slice(None), block.gather(1, order), order + start)
        else:
            worst = self.values[:, -1]
            rows = (top > worst).nonzero()[:, 0]
            if len(rows):
                self._merge(rows, *_above(block, rows, worst[rows], start))

    def on_cpu(self) -> tuple[Tensor, Tensor]:
        """Scores (Q, k) and keys (Q, k) int64, best first."""
        assert self.values is not None and self.keys is not None
        return self.values.cpu(), self.keys.cpu()

    def _merge(self, rows: Tensor | slice, values: Tensor, keys: Tensor) -> None:
        """Add candidates of some rows; equal ones come in the order of their keys."""
        assert self.values is not None and self.keys is not None
        # A stable sort: the retained ones stand first and have lower keys, so the order of ties stays right.
        values = torch.cat([self.values[rows], values], dim=1)
        keys = torch.cat([self.keys[rows], keys], dim=1)
        values, order = values.sort(dim=1, descending=True, stable=True)
        values, keys = values[:, : self.k], keys.gather(1, order[:, : self.k])
        if isinstance(rows, slice):
            self.values, self.keys = values.contiguous(), keys
        else:
            self.values[rows], self.keys[rows] = values, keys


def _above(block: Tensor, rows: Tensor, worst: Tensor, start: int) -> tuple[Tensor, Tensor]:
    """Values and keys (q, m) of a block's rows above a bound per row, padded with minus infinity."""
    chosen = block if len(rows) == len(block) else block[rows]
    row, column = (chosen > worst[:, None]).nonzero(as_tuple=True)  # ascending by row, then by column
    counts = row.bincount(minlength=len(rows))
    place = torch.arange(len(row), device=row.device) - (counts.cumsum(0) - counts)[row]
    shape = (len(rows), int(counts.max()))
    values = block.new_full(shape, -torch.inf)
    keys = torch.zeros(shape, dtype=torch.int64, device=block.device)
    values[row, place] = chosen[row, column]
    keys[row, place] = column + start
    return values, keys


def _check_not_empty(queries: Tensor, keys: Tensor) -> None:
    for name, rows in (("queries", queries), ("keys", keys)):
        if len(rows) == 0:
            raise ValueError(f"{name}: got none; expected at least one.")


def _concatenated(parts: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    return torch.cat([values for values, _ in parts]), torch.cat([keys for _, keys in parts])

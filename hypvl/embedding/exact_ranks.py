"""Ranks of right items however far down they are, without holding all scores."""

from collections.abc import Sequence

import torch
from torch import Tensor

from hypvl.checks import one_of
from hypvl.embedding.encode import evaluating
from hypvl.embedding.topk import check_scores
from hypvl.evaluation.protocol import EvaluableModel, Modality


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
    """Rank (1 = first) of the best right key of every query; of equal scores the lower key comes first.

    The keys are gone through twice for each chunk of queries, in the same blocks and therefore with the same scores:
    once for the scores of the right keys, once to count what comes before the best of them.

    Args:
        model: What scores them.
        queries: Embeddings (Q, D).
        keys: Embeddings (K, D).
        right: For each query the rows of its right keys, at least one.
        query_modality: What the queries are.
        key_modality: What the keys are.
        query_chunk: Queries per block.
        key_chunk: Keys per block.

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

        def block(query: Tensor, at: int) -> Tensor:
            part = keys[at : at + key_chunk].to(device)
            scores = model.scores(query, part, query_modality=query_modality, key_modality=key_modality)
            check_scores(scores)
            return scores

        starts = range(0, len(keys), key_chunk)
        for begin in range(0, len(queries), query_chunk):
            query = queries[begin : begin + query_chunk].to(device)
            wanted = right[begin : begin + query_chunk]
            rows = torch.tensor([row for row, own in enumerate(wanted) for _ in own], device=device)  # (P,)
            columns = torch.tensor([key for own in wanted for key in own], device=device)  # (P,)
            only = block(query, 0) if len(starts) == 1 else None
            own = torch.empty(len(rows), device=device)
            for at in starts:
                scores = block(query, at) if only is None else only  # (q, chunk)
                here = (columns >= at) & (columns < at + key_chunk)
                own = own.to(scores.dtype)
                own[here] = scores[rows[here], columns[here] - at]
            best = own.new_full((len(query),), -torch.inf).scatter_reduce(0, rows, own, "amax")  # (q,)
            last = torch.full((len(query),), len(keys), device=device)
            first = last.scatter_reduce(0, rows, torch.where(own == best[rows], columns, len(keys)), "amin")
            before = torch.zeros(len(query), dtype=torch.int64, device=device)
            for at in starts:
                scores = block(query, at) if only is None else only
                places = torch.arange(at, at + scores.shape[1], device=device)
                tied = (scores == best[:, None]) & (places < first[:, None])
                before += ((scores > best[:, None]) | tied).sum(1)
            ranks += (1 + before).tolist()
    return ranks

"""Scores of chosen pairs by the model's own score, without scoring everything against everything."""

from collections.abc import Sequence

from torch import Tensor

from hypvl.checks import one_of
from hypvl.embedding.encode import evaluating
from hypvl.embedding.topk import check_scores
from hypvl.evaluation.protocol import EvaluableModel, Modality


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
    """Scores of some keys for each query.

    Args:
        model: What scores them.
        queries: Embeddings (Q, D).
        keys: Embeddings (K, D).
        asked: For each query the rows of ``keys`` to score, in order, possibly none.
        query_modality: What the queries are.
        key_modality: What the keys are.
        chunk: Queries scored at once, against every key that one of them asks for.

    Returns:
        For each query its scores, in the order of ``asked``.

    Raises:
        ValueError: when ``asked`` does not have one entry per query.
        UserError: when the model's scores are NaN.
    """
    one_of("query_modality", query_modality, Modality)
    one_of("key_modality", key_modality, Modality)
    if len(asked) != len(queries):
        raise ValueError(f"asked: got {len(asked)} entries for {len(queries)} queries; expected one each.")
    found: list[list[float]] = []
    with evaluating(model) as device:
        for start in range(0, len(queries), chunk):
            wanted = asked[start : start + chunk]
            rows = list(dict.fromkeys(row for mine in wanted for row in mine))
            if not rows:
                found += [[] for _ in wanted]
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
            found += [
                table[i, [column[row] for row in mine]].tolist() if mine else []
                for i, mine in enumerate(wanted)
            ]
    return found

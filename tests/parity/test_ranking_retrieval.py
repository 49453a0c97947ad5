"""Image-text retrieval against ranking_metrics.json: every figure of it, both ways."""

from statistics import fmean
from typing import Any

import pytest
import torch

from hypvl.metrics.ranking import first_hit_ranks, found_share, median_rank, rank_keys, recall_from_ranks
from tests.parity.reference import cases, load, number

KNOWN = ("hit", "recall", "median_rank", "mean_rank", "mrr")


def _figures(name: str, ranked: list[list[int]], right: list[list[int]]) -> float:
    ranks = first_hit_ranks(ranked, right)
    known = [rank for rank in ranks if rank is not None]
    kind, _, cut = name.partition("@")
    if kind == "hit":
        return recall_from_ranks(ranks, [int(cut)])[int(cut)]
    if kind == "recall":
        shares = [found_share(row, wanted, int(cut)) for row, wanted in zip(ranked, right, strict=True)]
        return sum(shares) / len(shares)
    if kind == "median_rank":
        return median_rank(ranks, len(ranked[0]))
    reciprocal = [0.0 if rank is None else 1.0 / rank for rank in ranks]
    return {"mean_rank": fmean(known), "mrr": fmean(reciprocal)}[kind]


def _ways(given: dict[str, Any]) -> dict[str, tuple[list[list[int]], list[list[int]]]]:
    scores = torch.tensor(number(given["scores_text_by_image"]), dtype=torch.float64)  # (T, I)
    owner = given["text_to_image_index"]
    texts = [[t for t, image in enumerate(owner) if image == i] for i in range(scores.shape[1])]
    queries = [i for i, own in enumerate(texts) if own]
    return {
        "text2image": (rank_keys(scores).tolist(), [[image] for image in owner]),
        "image2text": (rank_keys(scores.T[queries]).tolist(), [texts[i] for i in queries]),
    }


@pytest.mark.parametrize("named", cases("ranking_metrics", "image_text_retrieval", "expected"))
def test_figures(named: tuple[str, Any] | None) -> None:
    assert named is not None
    name, expected = named
    ways = _ways((load("ranking_metrics") or {})["image_text_retrieval"])
    if name in ways:
        known = {key: value for key, value in expected.items() if key.partition("@")[0] in KNOWN}
        assert known
        for figure, value in known.items():
            assert _figures(figure, *ways[name]) == pytest.approx(number(value), rel=1e-9), figure
    elif name in ("mean_recall", "rsum"):
        six = [_figures(f"hit@{k}", *way) for way in ways.values() for k in (1, 5, 10)]
        assert sum(six) / (6 if name == "mean_recall" else 1) == pytest.approx(number(expected), rel=1e-9)
    else:
        pytest.skip(f"ranking_metrics.json: no definition of {name} here")

"""Evaluators of texts against ranking_metrics.json, from embeddings or scores to the reported number."""

from typing import Any

import pytest
import torch

from hypvl.datasets.text.pairs import SentencePairs
from hypvl.datasets.text.triplets import SentenceTriplets
from hypvl.evaluation.sentence_similarity import SentenceSimilarity
from hypvl.evaluation.triplets import TripletAccuracy
from hypvl.geometry.sphere import Sphere
from tests.evaluation.texts import Rows
from tests.parity.test_ranking_metrics import near, section, tensor

# Reference number -> what the evaluator calls it; on the sphere the model's own score is the cosine.
STS_METRICS = {
    "spearman_all": ("spearman", "cosine_spearman"),
    "spearman_mean": ("spearman_mean", "cosine_spearman_mean"),
    "spearman_wmean": ("spearman_wmean", "cosine_spearman_wmean"),
    "pearson_all": ("cosine_pearson",),
}


@pytest.fixture(scope="module")
def sts_metrics() -> dict[str, float]:
    rows: list[torch.Tensor] = []
    columns: dict[str, list[Any]] = {"first": [], "second": [], "gold": [], "subset": []}
    for name, given in section("sts_aggregation")["subsets"].items():
        for one, other, gold in zip(given["embeddings_1"], given["embeddings_2"], given["gold"], strict=True):
            columns["first"].append(str(len(rows)))
            columns["second"].append(str(len(rows) + 1))
            columns["gold"].append(gold)
            columns["subset"].append(name)
            rows += [tensor(one), tensor(other)]
    model = Rows(torch.stack(rows), geometry=Sphere())
    return SentenceSimilarity(SentencePairs("reference", **columns))(model).metrics  # type: ignore[arg-type]


@pytest.mark.parametrize("name", STS_METRICS)
def test_sts_from_embeddings(name: str, sts_metrics: dict[str, float]) -> None:
    for metric in STS_METRICS[name]:
        assert sts_metrics[metric] == near(section("sts_aggregation")["expected"][name], scale=100), metric


@pytest.mark.parametrize("distance", ["cosine", "euclidean", "manhattan"])
def test_triplets_from_embeddings(distance: str) -> None:
    given = section("triplets")
    rows = torch.cat([tensor(given[name]) for name in ("anchor", "positive", "negative")])
    names = [str(row) for row in range(len(rows))]
    third = len(rows) // 3
    data = SentenceTriplets("reference", names[:third], names[third : 2 * third], names[2 * third :])
    metrics = TripletAccuracy(data)(Rows(rows)).metrics  # type: ignore[arg-type]
    assert metrics[f"{distance}_accuracy"] == near(given["expected"][f"accuracy_{distance}"], scale=100)
    if distance == "euclidean":  # the model's own score is minus this distance
        assert metrics["accuracy"] == metrics["euclidean_accuracy"]

"""Passage retrieval, correlations, sentence embeddings and classification against ranking_metrics.json.

Shares there are fractions, here percent, except where their name says percent. Image-text retrieval is in
test_ranking_retrieval.py.
"""

from typing import Any, cast

import numpy as np
import pytest
import torch

from hypvl.metrics import classification, passages
from hypvl.metrics.correlation import kendall_tau, pearson, spearman
from hypvl.metrics.ranking import mean_per_class_accuracy, rank_keys
from hypvl.metrics.sentences import Distance, aggregate_correlations, triplet_accuracy
from tests.metrics.composed import topk_accuracy
from tests.parity.reference import cases, load, number

CORRELATIONS = {
    "pearson": pearson,
    "spearman": spearman,
    "kendall_tau_b": kendall_tau,
    "kendall_tau_c": lambda x, y: kendall_tau(x, y, variant="c"),
}


def near(expected: float, *, scale: float = 1.0) -> Any:
    return pytest.approx(scale * number(expected), rel=1e-9, abs=1e-9)


def tensor(rows: Any) -> torch.Tensor:
    return torch.tensor(number(rows), dtype=torch.float64)


def section(name: str) -> dict[str, Any]:
    content = load("ranking_metrics")
    assert content is not None
    return content[name]


def passage_values(name: str) -> list[float]:
    """One metric of every query of the file, in percent."""
    given = section("passage_retrieval")
    kind, _, cut = name.partition("@")
    k = int(cut)
    values = []
    for query, row in zip(given["queries"], rank_keys(tensor(given["scores"])).tolist(), strict=True):
        ranked = [given["documents"][i] for i in row]
        grades = {item: float(grade) for item, grade in given["qrels"][query].items() if grade}
        if kind.startswith("ndcg"):
            gain = cast(passages.Gain, kind.rpartition("_")[2])
            values.append(passages.ndcg_at(ranked, grades, k=k, gain=gain))
        else:
            metric = {
                "accuracy": passages.hit_at,
                "precision": passages.precision_at,
                "recall": passages.recall_at,
                "mrr": passages.reciprocal_rank_at,
                "map": passages.average_precision_at,
            }[kind]
            values.append(metric(ranked, grades.keys(), k=k))
    return values


@pytest.mark.parametrize("case", cases("ranking_metrics", "passage_retrieval", "per_query"))
def test_passages_per_query(case: tuple[str, list[float]]) -> None:
    assert passage_values(case[0]) == [near(value, scale=100) for value in case[1]]


@pytest.mark.parametrize("case", cases("ranking_metrics", "passage_retrieval", "expected"))
def test_passages_mean(case: tuple[str, float]) -> None:
    assert np.mean(passage_values(case[0])) == near(case[1], scale=100)


@pytest.mark.parametrize("case", cases("ranking_metrics", "correlations"))
def test_correlations(case: dict[str, Any]) -> None:
    known = [name for name in CORRELATIONS if name in case]
    assert known
    for name in known:
        assert CORRELATIONS[name](number(case["x"]), number(case["y"])) == near(case[name]), name


@pytest.mark.parametrize("case", cases("ranking_metrics", "sts_aggregation", "subsets"))
def test_correlation_of_each_subset(case: tuple[str, dict[str, Any]]) -> None:
    given = case[1]
    cosine = torch.cosine_similarity(tensor(given["embeddings_1"]), tensor(given["embeddings_2"]), dim=-1)
    torch.testing.assert_close(cosine, tensor(given["cosine"]), rtol=1e-9, atol=1e-9)
    assert spearman(cosine, number(given["gold"])) == near(given["spearman"])
    assert pearson(cosine, number(given["gold"])) == near(given["pearson"])


@pytest.mark.parametrize("case", cases("ranking_metrics", "sts_aggregation", "expected"))
def test_aggregated_correlations(case: tuple[str, float]) -> None:
    subsets = section("sts_aggregation")["subsets"]
    result = aggregate_correlations({k: (number(v["cosine"]), number(v["gold"])) for k, v in subsets.items()})
    assert result[case[0]] == near(case[1])


@pytest.mark.parametrize("case", cases("ranking_metrics", "triplets", "expected"))
def test_triplets(case: tuple[str, float]) -> None:
    given = section("triplets")
    rows = [tensor(given[name]) for name in ("anchor", "positive", "negative")]
    distance = cast(Distance, case[0].removeprefix("accuracy_"))
    assert triplet_accuracy(*rows, distance=distance) == near(case[1], scale=100)


@pytest.mark.parametrize("case", cases("ranking_metrics", "multiclass", "expected"))
def test_multiclass(case: tuple[str, float]) -> None:
    name, expected = case
    given = section("multiclass")
    logits, labels = tensor(given["logits"]), torch.tensor(given["labels"])
    scale = 1.0 if name.endswith("_percent") else 100.0
    if "mean_per_class" in name:
        value = mean_per_class_accuracy(rank_keys(logits, 1)[:, 0], labels)
    else:
        k = 1 if name == "elevater_accuracy" else int(name.removeprefix("top").removesuffix("_percent"))
        value = topk_accuracy(logits, labels, k=k)
    assert value == near(expected, scale=scale)


@pytest.mark.parametrize("case", cases("ranking_metrics", "multilabel", "expected"))
def test_multilabel(case: tuple[str, float]) -> None:
    given = section("multilabel")
    arrays = number(given["scores"]), given["labels"]
    values = {
        "map_11_points": classification.average_precision_11_points(*arrays, rule="elevater"),
        "map_11_points_voc2007_independent": classification.average_precision_11_points(*arrays),
        "mean_average_precision": classification.average_precision(*arrays),
    }
    assert values[case[0]] == near(case[1], scale=100)


@pytest.mark.parametrize("case", cases("ranking_metrics", "binary", "expected"))
def test_binary(case: tuple[str, float]) -> None:
    given = section("binary")
    metric = {"roc_auc": classification.roc_auc, "average_precision": classification.average_precision}[
        case[0]
    ]
    assert metric(number(given["scores"]), given["labels"]) == near(case[1], scale=100)


@pytest.mark.parametrize("item", cases("ranking_metrics", "vqa", "items"))
def test_vqa(item: dict[str, Any]) -> None:
    official = classification.vqa_accuracy(item["prediction"], item["answers"])
    simple = classification.vqa_accuracy(item["prediction"], item["answers"], rule="simple")
    assert official == near(item["vqa_accuracy"], scale=100)
    assert simple == near(item["simple_min_n_over_3"], scale=100)


@pytest.mark.parametrize("case", cases("ranking_metrics", "vqa", "expected"))
def test_vqa_mean(case: tuple[str, float]) -> None:
    rule = {"vqa_accuracy_mean": "leave_one_out", "simple_mean": "simple"}[case[0]]
    items = section("vqa")["items"]
    values = [classification.vqa_accuracy(i["prediction"], i["answers"], rule=rule) for i in items]  # type: ignore[arg-type]
    assert np.mean(values) == near(case[1], scale=100)


def test_average_over_sets() -> None:
    content = load("ranking_metrics")
    if content is None or "summary_table" not in content:
        pytest.skip("ranking_metrics.json has no summary_table")
    given = content["summary_table"]
    mean, missing = classification.mean_over_sets(
        dict(zip(given["datasets"], number(given["values"]), strict=True))
    )
    # The average of the file is rounded as it was printed.
    assert mean == pytest.approx(given["average"], abs=5e-5) and missing == []

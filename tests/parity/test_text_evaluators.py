"""Evaluators of texts against ranking_metrics.json, from embeddings or scores to the reported number."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest
import torch

from hypvl.datasets.images import Images
from hypvl.datasets.text.pairs import SentencePairs
from hypvl.datasets.text.passages import ms_marco
from hypvl.datasets.text.triplets import SentenceTriplets
from hypvl.datasets.vqa import QuestionSet
from hypvl.embedding.encode import Encoding
from hypvl.evaluation.text.passage_retrieval import PassageRetrieval
from hypvl.evaluation.text.sentence_similarity import SentenceSimilarity
from hypvl.evaluation.text.triplets import TripletAccuracy
from hypvl.evaluation.vqa import ZeroShotVQA
from hypvl.geometry.sphere import Sphere
from tests.evaluation.fakes import FakeModel, FakeTokenizer, image
from tests.evaluation.texts import Rows
from tests.parity.reference import cases
from tests.parity.test_ranking_metrics import near, section, tensor

# Reference number -> what the evaluator calls it; on the sphere the model's own score is the cosine.
STS_METRICS = {
    "spearman_all": ("spearman", "cosine_spearman"),
    "spearman_mean": ("spearman_mean", "cosine_spearman_mean"),
    "spearman_wmean": ("spearman_wmean", "cosine_spearman_wmean"),
    "pearson_all": ("cosine_pearson",),
}

PASSAGE_METRICS = [
    *(f"accuracy@{k}" for k in (1, 3, 5, 10)), *(f"precision@{k}" for k in (1, 5, 10, 20)), "mrr@10", "map@10",
    *(f"recall@{k}" for k in (1, 5, 10, 20)), "map@20", "ndcg_binary@10",
]  # fmt: skip


def reported(name: str, known: Collection[str]) -> list[Any]:
    """The expected numbers of a section that the evaluator reports; graded gains are functions only."""
    parameters = cases("ranking_metrics", name, "expected")
    return [one for one in parameters if one.values[0] is None or one.values[0][0] in known]


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


@pytest.mark.parametrize("case", reported("sts_aggregation", STS_METRICS))
def test_sts_from_embeddings(case: tuple[str, float], sts_metrics: dict[str, float]) -> None:
    for metric in STS_METRICS[case[0]]:
        assert sts_metrics[metric] == near(case[1], scale=100), metric


@pytest.mark.parametrize("case", cases("ranking_metrics", "triplets", "expected"))
def test_triplets_from_embeddings(case: tuple[str, float]) -> None:
    distance = case[0].removeprefix("accuracy_")
    given = section("triplets")
    rows = torch.cat([tensor(given[name]) for name in ("anchor", "positive", "negative")])
    names = [str(row) for row in range(len(rows))]
    third = len(rows) // 3
    data = SentenceTriplets("reference", names[:third], names[third : 2 * third], names[2 * third :])
    metrics = TripletAccuracy(data)(Rows(rows)).metrics  # type: ignore[arg-type]
    assert metrics[f"{distance}_accuracy"] == near(case[1], scale=100)
    if distance == "euclidean":  # the model's own score is minus this distance
        assert metrics["accuracy"] == metrics["euclidean_accuracy"]


class _Scored(Rows):
    """A model whose scores are those of a table: texts are numbers, of its rows for queries, of its columns else."""

    def __init__(self, scores: torch.Tensor) -> None:
        super().__init__(torch.arange(max(scores.shape), dtype=torch.float64)[:, None])
        self._scores = scores

    def scores(self, query: torch.Tensor, key: torch.Tensor, **modalities: str) -> torch.Tensor:
        return self._scores[query[:, 0].long()][:, key[:, 0].long()]


@pytest.fixture(scope="module")
def passage_metrics(tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    given = section("passage_retrieval")
    folder = tmp_path_factory.mktemp("msmarco")
    names = given["documents"]
    lines = {
        "collection.tsv": [f"{name}\t{i}" for i, name in enumerate(names)],
        "queries.dev.small.tsv": [f"{name}\t{i}" for i, name in enumerate(given["queries"])],
        "qrels.dev.tsv": [
            f"{q}\t0\t{d}\t{grade}" for q, own in given["qrels"].items() for d, grade in own.items()
        ],
    }
    for name, content in lines.items():
        (folder / name).write_text("\n".join(content) + "\n")
    ks = {"accuracy_ks": (1, 3, 5, 10), "recall_ks": (1, 5, 10, 20), "corpus_chunk": 7}
    data = ms_marco(folder)
    deep = PassageRetrieval(data, map_k=20, **ks)(_Scored(tensor(given["scores"]))).metrics  # type: ignore[arg-type]
    return deep | PassageRetrieval(data, map_k=10, **ks)(_Scored(tensor(given["scores"]))).metrics  # type: ignore[arg-type]


@pytest.mark.parametrize("case", reported("passage_retrieval", PASSAGE_METRICS))
def test_passages_from_scores(case: tuple[str, float], passage_metrics: dict[str, float]) -> None:
    assert passage_metrics[case[0].replace("_binary", "")] == near(case[1], scale=100)


@pytest.mark.parametrize("item", cases("ranking_metrics", "vqa", "items"))
def test_vqa_from_questions(item: dict[str, Any], tmp_path: Path) -> None:
    image(tmp_path / "a.png", (255, 0, 0))
    data = QuestionSet(
        Images.from_files([tmp_path / "a.png"]), ["a"], [0], ["What is it?"], [1], [item["answers"]], ["other"],
        vocabulary=[item["prediction"]],
    )  # fmt: skip
    result = ZeroShotVQA(data, encoding=Encoding(num_workers=0), tokenizer=FakeTokenizer())(FakeModel())
    assert result.items["answer"] == [item["prediction"]]  # the only one there is
    assert result.metrics["vqa_accuracy"] == near(item["vqa_accuracy"], scale=100)

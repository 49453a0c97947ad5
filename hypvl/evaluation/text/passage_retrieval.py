"""Passage retrieval: the passages of a large collection that answer a query."""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from statistics import fmean
from typing import cast

from torch import Tensor

from hypvl.allowlist import configurable
from hypvl.checks import whole_number
from hypvl.datasets.protocol import check_set
from hypvl.datasets.text.passages import PassageSet
from hypvl.embedding.cosine import ByCosine, flat_embeddings
from hypvl.embedding.encode import CachedEncoder
from hypvl.embedding.protocol import EvaluableModel, check_embeddings
from hypvl.embedding.streaming import StreamingSearch
from hypvl.evaluation.protocol import EvaluationResult, Evaluator
from hypvl.metrics import passages as metric
from hypvl.metrics.ranking import first_hit_ranks, recall_chance

_SHOWN = 10  # passages of each query in the items


@configurable("evaluate")
@dataclass
class PassageRetrieval(Evaluator):
    """MRR, recall, nDCG, MAP, accuracy and precision of passages that are ranked for queries.

    Metrics, in percent, means over queries: ``mrr@K``, ``accuracy@K`` (a relevant passage among the first K),
    ``precision@K``, ``recall@K`` (share of the relevant passages among the first K), ``ndcg@K`` (every relevant passage
    counts the same), ``map@K``. Accuracies, recalls and precisions have their chance levels beside them. All are by the
    model's own score of two texts, and with ``cosine_`` in front by the cosine of flat embeddings.

    Passages are encoded and searched in parts of ``corpus_chunk``: the collection is never in memory, nor are its
    embeddings, and nothing grows with queries x passages.

    Items, one per query: ``query`` (its id), ``rank`` of the first relevant passage by the model's own score, None
    beyond the deepest K, and ``retrieved``, the ids of the first ten.

    Args:
        mrr_k: K of ``mrr``, the main metric; ``ndcg_k`` and ``map_k`` likewise.
        accuracy_ks: Several K of ``accuracy``.
        recall_ks: Several K of ``recall`` and ``precision``.
        corpus_chunk: Passages that are encoded and searched together.
        query_chunk: Queries scored at once; ``key_chunk``: passages scored at once.

    Source: MS MARCO (arXiv 1611.09268), MRR@10; the others as sentence-transformers defines them.
    """

    dataset: PassageSet
    _: KW_ONLY
    mrr_k: int = 10
    ndcg_k: int = 10
    map_k: int = 100
    accuracy_ks: Sequence[int] = (1, 3, 5, 10)
    recall_ks: Sequence[int] = (10, 100)
    corpus_chunk: int = 65_536
    query_chunk: int = 512
    key_chunk: int = 4096

    def __post_init__(self) -> None:
        check_set(self.dataset, PassageSet)
        for name in ("mrr_k", "ndcg_k", "map_k", "corpus_chunk", "query_chunk", "key_chunk"):
            whole_number(name, getattr(self, name), least=1)
        for name in ("accuracy_ks", "recall_ks"):
            for k in getattr(self, name):
                whole_number(name, k, least=1)
        self.main_metric = f"mrr@{self.mrr_k}"
        self._depth = max(self.mrr_k, self.ndcg_k, self.map_k, *self.accuracy_ks, *self.recall_ks)

    def measure(self, model: EvaluableModel, encoder: CachedEncoder) -> EvaluationResult:
        data = self.dataset
        queries = encoder.encode_texts(data.queries, label="queries")
        check_embeddings(queries)
        searches = {
            "": self._search(model, queries),
            "cosine_": self._search(cast(EvaluableModel, ByCosine(model)), flat_embeddings(model, queries)),
        }
        count = len(data.passages)
        for start in range(0, count, self.corpus_chunk):
            texts = data.passages[start : start + self.corpus_chunk]
            keys = encoder.encode_texts(texts, label=f"passages from {start} of {count}")
            check_embeddings(keys)
            for prefix, search in searches.items():
                search.add(flat_embeddings(model, keys) if prefix else keys)
        result = EvaluationResult(meta={"passages": count, "queries": len(data.queries), **data.notes})
        for prefix, search in searches.items():
            ranked = search.result()[1].tolist()
            self._add_metrics(result, ranked, prefix)
            if not prefix:
                shown = data.passages.ids([passage for row in ranked for passage in row[:_SHOWN]])
                width = min(_SHOWN, count)
                result.items = {
                    "query": list(data.query_ids),
                    "rank": list(first_hit_ranks(ranked, data.relevant)),
                    "retrieved": [shown[i : i + width] for i in range(0, len(shown), width)],
                }
        return result

    def _search(self, model: EvaluableModel, queries: Tensor) -> StreamingSearch:
        return StreamingSearch(
            model,
            queries,
            k=self._depth,
            query_modality="text",
            key_modality="text",
            query_chunk=self.query_chunk,
            key_chunk=self.key_chunk,
        )

    def _add_metrics(self, result: EvaluationResult, ranked: Sequence[Sequence[int]], prefix: str) -> None:
        right, gallery = self.dataset.relevant, len(self.dataset.passages)
        pairs = list(zip(ranked, right, strict=True))
        k = self.mrr_k
        result.add_mean(f"{prefix}mrr@{k}", [metric.reciprocal_rank_at(*pair, k=k) for pair in pairs])
        chances = recall_chance([len(own) for own in right], gallery, ks=self.accuracy_ks)
        for k in self.accuracy_ks:
            hits = [metric.hit_at(*pair, k=k) for pair in pairs]
            result.add_mean(f"{prefix}accuracy@{k}", hits, chance=chances[k])
        for k in self.recall_ks:
            shares = [metric.recall_at(*pair, k=k) for pair in pairs]
            result.add_mean(f"{prefix}recall@{k}", shares, chance=100.0 * min(k, gallery) / gallery)
            shares = [metric.precision_at(*pair, k=k) for pair in pairs]
            drawn = min(k, gallery) / k  # places beyond the end hold nothing
            chance = 100.0 * drawn * fmean(len(own) for own in right) / gallery
            result.add_mean(f"{prefix}precision@{k}", shares, chance=chance)
        k = self.ndcg_k
        gains = [metric.ndcg_at(row, dict.fromkeys(own, 1.0), k=k) for row, own in pairs]
        result.add_mean(f"{prefix}ndcg@{k}", gains)
        k = self.map_k
        result.add_mean(f"{prefix}map@{k}", [metric.average_precision_at(*pair, k=k) for pair in pairs])

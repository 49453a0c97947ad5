"""Search a gallery that is never held whole: its embeddings come in parts, and the best keys so far are retained."""

import torch
from torch import Tensor

from hypvl.checks import one_of, whole_number
from hypvl.embedding.protocol import EvaluableModel, Modality, evaluating
from hypvl.embedding.search import StreamingTopK


class StreamingSearch:
    """The k best keys of every query, of the keys added so far.

    Memory: the queries, their k best keys, and one block of ``query_chunk x key_chunk`` scores. Of equal scores the key
    that came first stays first, as in :func:`hypvl.embedding.search.search`.

    Args:
        model: Whose ``scores`` compare queries with keys.
        queries: Embeddings (Q, D), Q >= 1.
        k: How many keys to retain for each query.
        query_modality: What the queries are; ``key_modality`` likewise.
        query_chunk: Queries per block; ``key_chunk`` likewise.
    """

    def __init__(
        self,
        model: EvaluableModel,
        queries: Tensor,
        *,
        k: int,
        query_modality: Modality,
        key_modality: Modality,
        query_chunk: int = 512,
        key_chunk: int = 4096,
    ) -> None:
        self._query_modality = one_of("query_modality", query_modality, Modality)
        self._key_modality = one_of("key_modality", key_modality, Modality)
        whole_number("k", k, least=1)
        if len(queries) == 0:
            raise ValueError("queries: got none; expected at least one.")
        self._model = model
        device = next((p.device for p in model.parameters()), torch.device("cpu"))
        self._queries = queries.to(device).split(query_chunk)
        self._best = [StreamingTopK(k) for _ in self._queries]
        self._key_chunk = key_chunk
        self.count = 0  # keys added so far

    def add(self, keys: Tensor) -> None:
        """Search the next keys, embeddings (K, D). UserError when the model's scores are NaN."""
        with evaluating(self._model) as device:
            for part in keys.split(self._key_chunk):
                part = part.to(device)
                for query, best in zip(self._queries, self._best, strict=True):
                    scores = self._model.scores(
                        query,
                        part,
                        query_modality=self._query_modality,
                        key_modality=self._key_modality,
                    )
                    best.add(scores, self.count)
                self.count += len(part)

    def result(self) -> tuple[Tensor, Tensor]:
        """Scores (Q, k) and positions of keys (Q, k) int64, best first, on the CPU; all keys where there are fewer.

        Raises:
            ValueError: when no keys were added.
        """
        if self.count == 0:
            raise ValueError("keys: got none; expected at least one.")
        parts = [best.on_cpu() for best in self._best]
        return torch.cat([values for values, _ in parts]), torch.cat([keys for _, keys in parts])

"""Queries of training samples: a mapper around any other."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from hypvl.allowlist import configurable
from hypvl.checks import one_of, whole_number, whole_number_or_none
from hypvl.data.mappers import Mapper
from hypvl.data.query_hierarchy import query_hierarchy


@configurable("dataset")
@dataclass(frozen=True)
class QueryMapper:
    """What another mapper gives, and the queries of its caption (:func:`~hypvl.data.query_hierarchy.query_hierarchy`).

    It adds ``query_text``, any number of texts; ``query_owner``, all 0, which says so; ``query_parent``, the place of
    each query's parent in this sample, -1 = none; and ``query_weight``. Batches hold the queries of all their samples
    one after the other, and parents are rows there.

    Args:
        mapper: Makes ``image``, ``caption`` and, where the data has boxes, ``box_text``.
        boxes: Whether phrases of boxes are queries, too. False = sentences and other phrases only.
        max_queries, max_phrases: As of :func:`~hypvl.data.query_hierarchy.query_hierarchy`.

    Source: Hyper3-CLIP (arXiv 2608.29313).
    """

    mapper: Mapper
    boxes: bool = True
    max_queries: int | None = 6
    max_phrases: int = 30

    def __post_init__(self) -> None:
        one_of("boxes", self.boxes, (True, False))
        whole_number_or_none("max_queries", self.max_queries, least=1)
        whole_number("max_phrases", self.max_phrases, least=0)

    def __call__(
        self, key: str, members: Mapping[str, bytes], generator: np.random.Generator
    ) -> dict[str, Any]:
        """Raises BadSample where the other mapper does."""
        fields = self.mapper(key, members, generator)
        texts = fields.get("box_text", ()) if self.boxes else ()
        queries = query_hierarchy(
            fields["caption"],
            [texts] if isinstance(texts, str) else texts,
            max_queries=self.max_queries,
            max_phrases=self.max_phrases,
        )
        return fields | {
            "query_text": [query.text for query in queries],
            "query_owner": torch.zeros(len(queries), dtype=torch.int64),
            "query_parent": torch.tensor([query.parent for query in queries], dtype=torch.int64),
            "query_weight": torch.tensor([query.weight for query in queries], dtype=torch.float32),
        }

"""The first items of a search in the order of a scorer that sees image and text together."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self, TypeAlias

import torch
from torch import Tensor

from hypvl.checks import one_of
from hypvl.data.transforms import ResizeCenterCrop, Squeeze
from hypvl.datasets.protocol import RetrievalSet
from hypvl.embedding.encode import Encoding
from hypvl.embedding.pair_scorer import PairScorer, own_pair_scorer, rerank, score_inputs
from hypvl.embedding.protocol import EvaluableModel
from hypvl.errors import DataError

RerankScore: TypeAlias = Literal["pair", "sum"]
#: Scores and items of each query, best first, (Q, k) both: what :func:`hypvl.embedding.search.search` gives.
Found: TypeAlias = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Reranking:
    """Puts the first items of each query in a new order, for texts and for images as queries.

    Source: ALBEF (arXiv 2107.07651) and X-VLM (arXiv 2111.08276) rank the first items by the matching score alone,
        BLIP (arXiv 2201.12086) by its sum with the contrastive one.
    """

    dataset: RetrievalSet
    scorer: PairScorer
    first: int  # items of each query that are scored
    score: RerankScore  # "sum": plus the score that the search ranked by
    fit: type[Squeeze] | type[ResizeCenterCrop]
    encoding: Encoding

    def __post_init__(self) -> None:
        one_of("score", self.score, RerankScore)

    @classmethod
    def of(
        cls, model: EvaluableModel, dataset: RetrievalSet, *, scorer: PairScorer | None, **settings: Any
    ) -> Self:
        """With a scorer, or the model's own. UserError for a model without one."""
        own = own_pair_scorer(model, asked_by="rerank") if scorer is None else scorer
        return cls(dataset, own, **settings)

    @property
    def meta(self) -> dict[str, Any]:
        """What a result says about it."""
        return {"first": self.first, "scorer": self.scorer.name, "score": self.score}

    def reordered(
        self, by_text: Found, by_image: Found, *, texts: Sequence[int], images: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """Items of each text and of each image, (T, k) and (I, k), in the new order.

        Every pair among the first of either direction is scored once.

        Args:
            by_text: Scores and rows of images for each text.
            by_image: Scores and rows of texts for each image.
            texts: Position of each row of a text in the data set.
            images: Likewise of each row of an image.
        """
        count = len(texts)
        top_images, top_texts = by_text[1][:, : self.first], by_image[1][:, : self.first]
        # a pair is one number: row of the image * T + row of the text
        of_texts = top_images * count + torch.arange(count)[:, None]  # (T, first)
        of_images = torch.arange(len(images))[:, None] * count + top_texts  # (I, first)
        pairs = torch.cat((of_texts.flatten(), of_images.flatten())).unique()  # sorted, by image
        asked: dict[int, list[int]] = {}
        for image, text in zip((pairs // count).tolist(), (pairs % count).tolist(), strict=True):
            asked.setdefault(images[image], []).append(texts[text])
        scored, bad = score_inputs(
            self.scorer,
            self.dataset.images,
            self.dataset.captions,
            asked,
            transform=self.fit.of(self.scorer),
            encoding=self.encoding,
            label="re-ranking",
        )
        if bad:  # its embedding comes from a store
            raise DataError(
                f"rerank: {len(bad)} of {len(asked)} images cannot be read, which the pair scorer has to see; expected "
                f"every image that has an embedding. The first: {bad[0][1]}"
            )
        values = torch.tensor([value for image in asked for value in scored[image]], dtype=torch.float64)
        return self._new_order(by_text, of_texts, pairs, values), self._new_order(
            by_image, of_images, pairs, values
        )

    def _new_order(self, found: Found, numbers: Tensor, pairs: Tensor, values: Tensor) -> Tensor:
        scores = values[torch.searchsorted(pairs, numbers)]  # (Q, first)
        if self.score == "sum":
            scores = scores + found[0][:, : self.first]
        return rerank(found[1], scores, first=self.first)

"""Zero-shot retrieval: images for a text and texts for an image, by the model's own score."""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from itertools import pairwise
from statistics import fmean
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from hypvl.allowlist import configurable
from hypvl.checks import one_of, whole_number_or_none
from hypvl.data.transforms import ResizeCenterCrop, Squeeze
from hypvl.datasets.protocol import RetrievalSet, check_set
from hypvl.embedding.encode import CachedEncoder, EncodedImages
from hypvl.embedding.pair_scorer import PairScorer
from hypvl.embedding.protocol import EvaluableModel, Modality
from hypvl.embedding.search import exact_ranks, search_both_ways
from hypvl.errors import DataError
from hypvl.evaluation.further_positives import FurtherPositives, add_positive_metrics, right_positions
from hypvl.evaluation.protocol import EvaluationResult, Evaluator
from hypvl.evaluation.reranking import Reranking, RerankScore
from hypvl.metrics import ranking

Resize: TypeAlias = Literal["squeeze", "crop"]
_DIRECTIONS = ("text_to_image", "image_to_text")


@dataclass(frozen=True)
class FoldRanks:
    """Search results of one fold in one direction, for metrics; queries and items are positions in the data set."""

    queries: list[int]
    right_counts: list[int]  # number of right items of each query
    gallery: int  # number of items, unreadable ones included
    # The first item of each query, or as many as positives need, best first; none for an unreadable image.
    retrieved: list[list[int]]
    ranks: list[int | None]  # of the first right item of each query, None beyond ``depth``
    median: float  # of the ranks, exact beyond ``depth`` too


@configurable("evaluate")
@dataclass
class ZeroShotRetrieval(Evaluator):
    """Recall@K, mean recall and median rank, both ways.

    A text has one right image, an image one or more right texts. A query is a hit at K when a right item is among its
    first K. Metrics, shares in percent:

    - ``text_to_image_recall@K`` and ``image_to_text_recall@K``, each with ``_chance`` beside it, per query in
      ``samples``;
    - ``mean_recall``, the mean of all of these, with its chance;
    - ``text_to_image_median_rank`` and ``image_to_text_median_rank`` of the first right item, 1 = first, the mean of
      the two in the middle for an even number of queries; exact, whatever ``depth``.

    With ``folds`` the images are cut, in their order, into this many parts of equal size. Each is a gallery with its
    own captions, and every metric is the mean over the parts: "COCO 1K" is the 5,000 images of Karpathy's test split in
    5 folds.

    With ``positives`` a text may have several right images. Over the queries that the file names, in the same
    galleries: ``<direction>_positive_recall@K``; ``<direction>_r_precision``, the share of right items among the first
    R; ``<direction>_map@r``, the mean over ranks 1 … R of the precision at that rank where the item is right, else 0.
    R is the number of right items of the query in the file. Each has its chance beside it.

    With ``rerank`` the first so many items of every query, in both directions, are put in the order of the model's pair
    scorer, which sees image and text together (BLIP's matching head); those after them keep their places. Every metric
    is then of that order, and ``meta["rerank"]`` says so.

    An image that cannot be read is not in the gallery: its texts are misses (ranked last for the median), and it is a
    missed query itself. An image without captions is in the gallery but is not a query. ``meta["warnings"]`` names the
    share of captions that the tokenizer cut.

    Items: one per text, ``text_key`` (position of its caption), ``text_image`` (key of the right image),
    ``text_rank``, ``text_top1`` (key of the first image); one per image that is a query, ``image_key``, ``image_rank``,
    ``image_top1`` (position of the first caption). Ranks are those of the first right item, 1 = first, None beyond
    ``depth``.

    Args:
        dataset: Images and captions; with ``positives`` it has ``image_ids`` and ``caption_ids``.
        ks: Cut-offs.
        metric: The one to look at first; None = ``text_to_image_recall@K`` of the smallest K, and with ``positives``
            ``text_to_image_map@r``.
        depth: Ranks beyond it are None in the items.
        folds: Parts of the gallery; 1 = the whole gallery.
        resize: ``squeeze`` the whole image to a square, as MERU does, or ``crop`` the centre of the resized image,
            as CLIP and those that build on it do.
        positives: Further right pairs, see :func:`hypvl.datasets.retrieval.positives.caption_positives`.
        rerank: Items of each query that the pair scorer puts in a new order; None = the order of the embeddings.
        rerank_score: ``"pair"``: the pair scorer's score alone; ``"sum"``: plus the score of the embeddings.
        pair_scorer: The scorer; None = the model's own.
        query_chunk: Queries scored at once, with ``key_chunk`` gallery items.
    """

    dataset: RetrievalSet
    _: KW_ONLY
    ks: Sequence[int] = (1, 5, 10)
    metric: str | None = None
    depth: int = 100
    folds: int = 1
    resize: Resize = "squeeze"
    positives: FurtherPositives | None = None
    rerank: int | None = None
    rerank_score: RerankScore = "pair"
    pair_scorer: PairScorer | None = None
    query_chunk: int = 512
    key_chunk: int = 4096

    def __post_init__(self) -> None:
        one_of("resize", self.resize, Resize)
        one_of("rerank_score", self.rerank_score, RerankScore)
        check_set(self.dataset, RetrievalSet)
        if not self.ks or min(self.ks) < 1:
            raise ValueError(f"ks: got {list(self.ks)}; expected at least one cut-off, each at least 1.")
        if not 1 <= self.folds <= len(self.dataset.images):
            raise ValueError(
                f"folds: got {self.folds}; expected 1 … {len(self.dataset.images)}, the number of images."
            )
        if self.positives is not None and self.folds > 1:
            raise ValueError(
                f"folds: got {self.folds} with positives, which are of the whole gallery; expected 1."
            )
        if self.positives is not None:
            check_set(self.positives, FurtherPositives, name="positives")
        whole_number_or_none("rerank", self.rerank, least=1)
        self.ks = tuple(sorted(set(self.ks)))
        self.depth = max(self.depth, self.ks[-1])
        recalls = [f"{direction}_recall@{k}" for direction in _DIRECTIONS for k in self.ks]
        usual = recalls[0] if self.positives is None else "text_to_image_map@r"
        self.main_metric = one_of("metric", self.metric or usual, [usual, *recalls, "mean_recall"])
        self._texts_of: list[list[int]] = [[] for _ in range(len(self.dataset.images))]
        for caption, image in enumerate(self.dataset.caption_image):
            self._texts_of[image].append(caption)
        self._right = None if self.positives is None else right_positions(self.dataset, self.positives)

    def measure(self, model: EvaluableModel, encoder: CachedEncoder) -> EvaluationResult:
        data = self.dataset
        reranking = self._reranking(model, encoder)
        texts = encoder.encode_texts(data.captions, label="captions")
        fit = Squeeze if self.resize == "squeeze" else ResizeCenterCrop
        transform = fit.of(model)
        images = encoder.encode_images(data.images, transform=transform)
        count = len(data.images)
        cuts = [fold * count // self.folds for fold in range(self.folds + 1)]
        parts = [
            self._both_ways(model, texts, images, range(begin, end), reranking)
            for begin, end in pairwise(cuts)
        ]
        result = EvaluationResult({}, self._items(parts), self._meta(cuts))
        result.meta["resize"] = self.resize if isinstance(transform, fit) else "as the model says"
        if reranking is not None:
            result.meta["rerank"] = reranking.meta
        result.meta |= encoder.truncation(data.captions)
        for name in _DIRECTIONS:
            self.count(result, name, [part[name] for part in parts])
        recalls = [f"{name}_recall@{k}" for name in _DIRECTIONS for k in self.ks]
        for end in ("", "_chance"):
            values = [result.metrics[name + end] for name in recalls]
            result.metrics[f"mean_recall{end}"] = sum(values) / len(values)
        if self._right is not None:
            for name, right in self._right.items():
                part = parts[0][name]
                retrieved = dict(zip(part.queries, part.retrieved, strict=True))
                add_positive_metrics(result, name, retrieved, right, gallery=part.gallery, ks=self.ks)
        return result

    def _reranking(self, model: EvaluableModel, encoder: CachedEncoder) -> Reranking | None:
        """What puts the first items in a new order; None where nothing does."""
        if self.rerank is None:
            return None
        fit = Squeeze if self.resize == "squeeze" else ResizeCenterCrop
        return Reranking.of(
            model,
            self.dataset,
            scorer=self.pair_scorer,
            first=self.rerank,
            score=self.rerank_score,
            fit=fit,
            encoding=encoder.encoding,
        )

    def _both_ways(
        self,
        model: EvaluableModel,
        texts: Tensor,
        images: EncodedImages,
        fold: range,
        reranking: Reranking | None = None,
    ) -> dict[str, FoldRanks]:
        """Search the images of a fold for their captions, and the captions for the images."""
        own_texts = [text for image in fold for text in self._texts_of[image]]
        queries = [image for image in fold if self._texts_of[image]]
        if not own_texts:
            raise DataError(
                f"fold of the images {fold.start} … {fold.stop - 1}: has no captions; use fewer folds."
            )
        own_texts.sort()  # the order of the data set decides ties
        rows = [row for row, image in enumerate(images.indices.tolist()) if image in fold]
        readable = images.indices[rows].tolist()
        if not readable:
            raise DataError(
                f"fold of the images {fold.start} … {fold.stop - 1}: none can be read; the first: {images.bad[0][1]}"
            )
        text_row = {text: row for row, text in enumerate(own_texts)}
        image_row = {image: row for row, image in enumerate(readable)}
        owners = [self.dataset.caption_image[text] for text in own_texts]
        part_texts, part_images = texts[own_texts], images.embeddings[rows]

        further = [items for right in (self._right or {}).values() for items in right.values()]
        both = search_both_ways(
            model,
            part_texts,
            part_images,
            k=max([self.depth, self.rerank or 1, *map(len, further)]),
            query_modality="text",
            key_modality="image",
            query_chunk=self.query_chunk,
            key_chunk=self.key_chunk,
        )
        (_, to_images), (_, to_texts) = both
        if reranking is not None:
            to_images, to_texts = reranking.reordered(*both, texts=own_texts, images=readable)
        right_images = [[image_row[image]] if image in image_row else [] for image in owners]
        right_texts = [
            [text_row[text] for text in self._texts_of[image]] if image in image_row else []
            for image in queries
        ]
        # The image of each text and of each gallery row: hits of all queries in one comparison.
        text_image, row_image = torch.tensor(owners), torch.tensor(readable)
        text_ranks = _first_hits(row_image[to_images] == text_image[:, None])
        by_image = dict(zip(readable, _first_hits(text_image[to_texts] == row_image[:, None]), strict=True))
        image_ranks = [by_image.get(image) for image in queries]
        count = 1 if self._right is None else None  # only the first is shown in the items
        texts_of = {
            image: [own_texts[row] for row in text_rows]
            for image, text_rows in zip(readable, to_texts[:, :count].tolist(), strict=True)
        }
        # An unreadable query has no row and no right item, so that any row may stand in for it.
        query_rows = [image_row.get(image, 0) for image in queries]
        median_texts = self._median(
            model, part_texts, part_images, text_ranks, right_images, len(fold), "text", "image"
        )
        median_images = self._median(
            model, part_images[query_rows], part_texts, image_ranks, right_texts, len(own_texts), "image", "text"
        )  # fmt: skip
        return {
            "text_to_image": FoldRanks(
                queries=own_texts,
                right_counts=[1] * len(own_texts),
                gallery=len(fold),
                retrieved=[[readable[row] for row in rows] for rows in to_images[:, :count].tolist()],
                ranks=text_ranks,
                median=median_texts,
            ),
            "image_to_text": FoldRanks(
                queries=queries,
                right_counts=[len(self._texts_of[image]) for image in queries],
                gallery=len(own_texts),
                retrieved=[texts_of.get(image, []) for image in queries],
                ranks=image_ranks,
                median=median_images,
            ),
        }

    def _median(
        self,
        model: EvaluableModel,
        queries: Tensor,
        keys: Tensor,
        ranks: Sequence[int | None],
        right: Sequence[Sequence[int]],
        gallery: int,
        query: Modality,
        key: Modality,
    ) -> float:
        """Median rank; ranks beyond the search results are computed where the median may be one of them."""
        known = sum(rank is not None for rank in ranks)
        if known <= len(ranks) // 2:
            late = [i for i, rank in enumerate(ranks) if rank is None and right[i]]
            late_ranks = exact_ranks(
                model,
                queries[late],
                keys,
                [right[i] for i in late],
                query_modality=query,
                key_modality=key,
                query_chunk=self.query_chunk,
                key_chunk=self.key_chunk,
            )
            exact = dict(zip(late, late_ranks, strict=True))
            ranks = [exact.get(i, rank) for i, rank in enumerate(ranks)]
        return ranking.median_rank(ranks, gallery)

    def count(self, result: EvaluationResult, direction: str, folds: Sequence[FoldRanks]) -> None:
        """Add the metrics of one direction, each a mean over the folds; a subclass adds its own after these."""
        for k in self.ks:
            hits = [ranking.hits_at(fold.ranks, k) for fold in folds]
            chance = fmean(
                ranking.recall_chance(fold.right_counts, fold.gallery, ks=[k])[k] for fold in folds
            )
            result.add_mean(f"{direction}_recall@{k}", *hits, chance=chance)
        result.metrics[f"{direction}_median_rank"] = fmean(fold.median for fold in folds)

    def _items(self, parts: Sequence[dict[str, FoldRanks]]) -> dict[str, list[Any]]:
        data = self.dataset
        rows: dict[str, list[Any]] = {}
        for direction, name in zip(_DIRECTIONS, ("text", "image"), strict=True):
            own = [part[direction] for part in parts]
            queries = [query for part in own for query in part.queries]
            top = [items[0] if items else None for part in own for items in part.retrieved]
            rows[f"{name}_rank"] = [rank for part in own for rank in part.ranks]
            if name == "text":
                rows["text_key"] = list(queries)
                rows["text_image"] = [data.keys[data.caption_image[query]] for query in queries]
                rows["text_top1"] = [None if image is None else data.keys[image] for image in top]
            else:
                rows["image_key"] = [data.keys[query] for query in queries]
                rows["image_top1"] = list(top)
        return rows

    def _meta(self, cuts: Sequence[int]) -> dict[str, Any]:
        data = self.dataset
        meta: dict[str, Any] = {
            "images": len(data.images),
            "captions": len(data.captions),
            "distinct_captions": len(set(data.captions)),
            "images_without_captions": sum(not own for own in self._texts_of),
            "depth": self.depth,
        }
        if self.folds > 1:
            meta["fold_images"] = [end - begin for begin, end in pairwise(cuts)]
        if self.positives is not None and self._right is not None:
            items = [right.values() for right in self._right.values()]
            meta["positives"] = {
                "source": self.positives.source,
                **{f"{name}_queries": len(right) for name, right in self._right.items()},
                "outside_the_gallery": sum(item < 0 for own in items for right in own for item in right),
            }
        return meta


def _first_hits(hits: Tensor) -> list[int | None]:
    """Place (1 = first) of the first hit of each row, None without one: (Q, k) bool."""
    places = torch.where(hits.any(dim=1), hits.int().argmax(dim=1) + 1, 0)
    return [place or None for place in places.tolist()]

"""Zero-shot retrieval: pictures for a text and texts for a picture, by the model's own score."""

from collections.abc import Sequence

from torch import Tensor

from hypvl.data.tokenizer import get_tokenizer
from hypvl.data.transforms import Squeeze
from hypvl.evaluation.features import Encoding, encode_images, encode_texts, search
from hypvl.evaluation.metrics import ranking
from hypvl.evaluation.protocol import (
    EvaluableModel,
    EvaluationResult,
    Evaluator,
    Modality,
    RetrievalSet,
    Tokenizer,
)


class ZeroShotRetrieval(Evaluator):
    """Recall@K both ways.

    Pictures are squeezed to a square, not cropped. A text has one right picture, a picture one right text or
    more. Metrics, in percent: ``text_to_image_recall@K`` and ``image_to_text_recall@K``, each with ``_chance``
    beside it. A picture that cannot be read is no candidate, so that its texts are misses, and is itself a
    query that is missed; ``meta["unreadable"]`` counts them. A picture without captions is a candidate but no
    query.

    Items: one per text, ``text_key`` (position of its caption), ``text_image`` (key of the right picture),
    ``text_rank``, ``text_top1`` (key of the picture that came first); one per picture that is a query,
    ``image_key``, ``image_rank``, ``image_top1`` (position of the caption that came first). Ranks are those of
    the first right item, 1 = first, None beyond ``depth``.

    Args:
        dataset: Pictures and captions.
        ks: Cut-offs.
        depth: How far down ranks are looked for.
        encoding: Batches, workers, precision.
        tokenizer: In place of hypvl's own, with the model's context length.
        query_chunk: Queries scored at once.
        key_chunk: Gallery items scored at once.
    """

    main_metric = "text_to_image_recall@1"

    def __init__(
        self,
        dataset: RetrievalSet,
        *,
        ks: Sequence[int] = (1, 5, 10),
        depth: int = 100,
        encoding: Encoding | None = None,
        tokenizer: Tokenizer | None = None,
        query_chunk: int = 512,
        key_chunk: int = 4096,
    ) -> None:
        if not ks or min(ks) < 1:
            raise ValueError(f"ks: got {list(ks)}; expected at least one cut-off, each at least 1.")
        self.dataset = dataset
        self.ks = tuple(sorted(set(ks)))
        self.depth = max(depth, self.ks[-1])
        self.encoding = Encoding() if encoding is None else encoding
        self.tokenizer = tokenizer
        self.query_chunk = query_chunk
        self.key_chunk = key_chunk
        self.main_metric = f"text_to_image_recall@{self.ks[0]}"

    def __call__(self, model: EvaluableModel) -> EvaluationResult:
        """Encode, search both ways and count."""
        data = self.dataset
        tokenizer = get_tokenizer(model.context_length) if self.tokenizer is None else self.tokenizer
        texts = encode_texts(
            model, data.captions, tokenizer=tokenizer, encoding=self.encoding, label="captions"
        )
        images = encode_images(
            model, data.images, transform=Squeeze(model.image_size), encoding=self.encoding
        )
        own_texts: list[list[int]] = [[] for _ in range(len(data.images))]
        for caption, image in enumerate(data.caption_image):
            own_texts[image].append(caption)
        queries = [image for image, own in enumerate(own_texts) if own]

        # Positions in the data set of what was found: of the pictures only those that could be read.
        readable = images.indices
        found_images = readable[self._search(model, texts, images.embeddings, "text", "image")]
        found_texts = self._search(model, images.embeddings, texts, "image", "text").tolist()
        lists: dict[int, list[int]] = dict(zip(readable.tolist(), found_texts, strict=True))

        text_ranks = ranking.first_hit_ranks(found_images, [[image] for image in data.caption_image])
        image_ranks = ranking.first_hit_ranks(
            [lists.get(image, []) for image in queries], [own_texts[image] for image in queries]
        )
        found: dict[str, float] = {}
        ways = (
            ("text_to_image", text_ranks, [1] * len(text_ranks), len(data.images)),
            ("image_to_text", image_ranks, [len(own_texts[image]) for image in queries], len(data.captions)),
        )
        for way, ranks, right_counts, gallery in ways:
            recall = ranking.recall_from_ranks(ranks, self.ks)
            chance = ranking.recall_chance(right_counts, gallery, ks=self.ks)
            for k in self.ks:
                found[f"{way}_recall@{k}"] = recall[k]
                found[f"{way}_recall@{k}_chance"] = chance[k]
        return EvaluationResult(
            metrics=found,
            items={
                "text_key": list(range(len(data.captions))),
                "text_image": [data.keys[image] for image in data.caption_image],
                "text_rank": list(text_ranks),
                "text_top1": [data.keys[image] for image in found_images[:, 0].tolist()],
                "image_key": [data.keys[image] for image in queries],
                "image_rank": list(image_ranks),
                "image_top1": [lists[image][0] if image in lists else None for image in queries],
            },
            meta={
                "images": len(data.images),
                "captions": len(data.captions),
                "distinct_captions": len(set(data.captions)),
                "images_without_captions": len(data.images) - len(queries),
                "depth": self.depth,
                "unreadable": len(images.bad),
                "unreadable_first": [reason for _, reason in images.bad[:10]],
                "main_metric": self.main_metric,
            },
        )

    def _search(
        self, model: EvaluableModel, queries: Tensor, keys: Tensor, query: Modality, key: Modality
    ) -> Tensor:
        """Positions (Q, depth) of the best keys, best first."""
        return search(
            model,
            queries,
            keys,
            k=self.depth,
            query_modality=query,
            key_modality=key,
            query_chunk=self.query_chunk,
            key_chunk=self.key_chunk,
        )[1]

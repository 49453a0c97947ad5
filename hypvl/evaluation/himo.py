"""Whether the score of an image grows with the length of its text, over prefixes of long captions."""

import math
import re
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from itertools import pairwise

from hypvl.allowlist import configurable
from hypvl.data.transforms import Squeeze
from hypvl.datasets.images import Images
from hypvl.datasets.protocol import RetrievalSet, check_set
from hypvl.embedding.encode import CachedEncoder
from hypvl.embedding.pairs import evenly, first_captions
from hypvl.embedding.protocol import EvaluableModel
from hypvl.embedding.search import pair_scores
from hypvl.errors import DataError
from hypvl.evaluation.protocol import EvaluationResult, Evaluator
from hypvl.metrics.correlation import pearson

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


@configurable("evaluate")
@dataclass
class HiMo(Evaluator):
    """HiMo@K: mean correlation of 1 ... K with the scores of K texts of one image, each longer than the one before.

    The first caption of each image is split into sentences, and these into K parts of nearly equal numbers; text k is
    the first k parts. Captions of fewer than K sentences are left out.

    Metrics, for every K: ``himo@K`` in [-1, 1], the mean of Pearson's correlation (0 where all scores are equal), by
    the model's own score; ``monotone_share@K`` in percent, images whose every text scores higher than the one before,
    with its ``_chance`` of 100 / K!.

    Items, one per image: ``key``, ``caption``, ``sentences``, ``scores`` (by K, None for those left out).

    Args:
        ks: Numbers of texts, each at least 2.
        limit: Largest number of images, evenly spread; None = all.
        tokenizer: Texts are cut at its context length; longer prefixes are then equal.

    Source: HiMo-CLIP (2025), the measure HiMo@K.
    """

    dataset: RetrievalSet
    _: KW_ONLY
    ks: Sequence[int] = (2, 3, 4, 5)
    limit: int | None = None

    def __post_init__(self) -> None:
        if not self.ks or min(self.ks) < 2:
            raise ValueError(f"ks: got {list(self.ks)}; expected numbers of texts, each at least 2.")
        check_set(self.dataset, RetrievalSet)
        self.ks = tuple(sorted(set(self.ks)))
        self.main_metric = f"himo@{self.ks[0]}"

    def measure(self, model: EvaluableModel, encoder: CachedEncoder) -> EvaluationResult:
        data = self.dataset
        first = first_captions(data)
        chosen = [image for image in first if len(sentences(first[image])) >= self.ks[0]]
        if not chosen:
            raise DataError(
                f"HiMo: no caption has {self.ks[0]} sentences; expected long captions, such as ShareGPT4V's or DOCCI's."
            )
        short = len(first) - len(chosen)
        chosen = evenly(chosen, self.limit)
        images = encoder.encode_images(Images(data.images, chosen), transform=Squeeze.of(model))
        rows = [chosen[i] for i in images.indices.tolist()]
        # K -> texts of each image, none where its caption is too short
        grown = {k: [growing(first[image], k) for image in rows] for k in self.ks}
        names = list(dict.fromkeys(text for lists in grown.values() for texts in lists for text in texts))
        if not names:
            raise DataError(f"HiMo: no readable image has a caption of {self.ks[0]} sentences.")
        place = {text: i for i, text in enumerate(names)}
        keys = encoder.encode_texts(names, label="texts")
        result = EvaluationResult()
        scores: dict[str, list[list[float] | None]] = {}
        for k, lists in grown.items():
            scored = pair_scores(
                model,
                images.embeddings,
                keys,
                [[place[text] for text in texts] for texts in lists],
                query_modality="image",
                key_modality="text",
            )
            scores[str(k)] = [row or None for row in scored]
            if complete := [row for row in scored if row]:
                result.add_mean(f"himo@{k}", [correlation(row) for row in complete])
                grows = [100.0 * all(later > earlier for earlier, later in pairwise(row)) for row in complete]
                result.add_mean(f"monotone_share@{k}", grows, chance=100.0 / math.factorial(k))
        result.items = {
            "key": [data.keys[image] for image in rows],
            "caption": [first[image] for image in rows],
            "sentences": [len(sentences(first[image])) for image in rows],
            "scores": [{k: values[i] for k, values in scores.items()} for i in range(len(rows))],
        }
        result.meta = {
            "images": len(data.images),
            "too_short": short,
            "texts": len(names),
            "counted": {f"himo@{k}": len(result.samples.get(f"himo@{k}", ())) for k in self.ks},
        }
        return result


def sentences(caption: str) -> list[str]:
    """A caption split after ``.``, ``!`` or ``?`` and white space."""
    return [part for part in _SENTENCE_END.split(caption.strip()) if part]


def growing(caption: str, k: int) -> list[str]:
    """K prefixes of the caption that end with a sentence, the last one whole; none for fewer than K sentences."""
    parts = sentences(caption)
    if len(parts) < k:
        return []
    return [" ".join(parts[: (i + 1) * len(parts) // k]) for i in range(k)]


def correlation(scores: Sequence[float]) -> float:
    """Pearson's correlation of 1 ... K with K >= 2 scores; 0 where they are all the same."""
    return 0.0 if len(set(scores)) == 1 else pearson(range(1, len(scores) + 1), scores)

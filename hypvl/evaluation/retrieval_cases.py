"""Retrieval in examples: which queries find their partner first, which do not, and the words of those that do not."""

import re
from collections.abc import Callable, Sequence
from typing import Any

from hypvl.embedding.pairs import EncodedPairs, evenly
from hypvl.embedding.protocol import EvaluableModel, Modality
from hypvl.embedding.search import exact_ranks, search

_WORD = re.compile(r"[^\W\d_]+(?:['\u2019-][^\W\d_]+)*")
_SHOWN_KEYS = 3  # answers shown of a query
_EXAMPLES = 6  # right and wrong queries shown, each
_LEAST = 5  # queries that a word must be in to be counted
_WORDS = 8
_LONGEST = 500  # characters of a caption


def retrieval_cases(
    model: EvaluableModel, pairs: EncodedPairs, *, thumbnail: Callable[[str], int]
) -> dict[str, Any]:
    """Both ways over pairs: how many queries fail, and examples.

    Equal captions are one answer, and so are the images that have them.

    Args:
        thumbnail: Gives the position of an image's thumbnail for its key.

    Returns:
        By way (``text_to_image``, ``image_to_text``): ``queries``; ``right``, how many find a partner first;
        ``within_5``; ``median_rank``; ``right_examples`` and ``wrong_examples``, each with ``image`` (of the query's
        pair), ``caption``, ``rank`` and ``answers``: ``image``, ``caption``, ``score``, ``right``. And ``words``:
        words of captions whose text queries fail most (:func:`failing_words`), with ``word``, ``queries``, ``failed``
        and ``low`` and ``high``, the interval of the share that fails.
    """
    same: dict[str, list[int]] = {}
    for row, caption in enumerate(pairs.captions):
        same.setdefault(caption, []).append(row)
    partners = [same[caption] for caption in pairs.captions]
    result: dict[str, Any] = {}
    ways: tuple[tuple[str, Modality, Modality], ...] = (
        ("text_to_image", "text", "image"),
        ("image_to_text", "image", "text"),
    )
    ranks: dict[str, list[int]] = {}
    for way, asked, answered in ways:
        queries, keys = (pairs.texts if x == "text" else pairs.images for x in (asked, answered))
        ranks[way] = exact_ranks(model, queries, keys, partners, query_modality=asked, key_modality=answered)
        scores, best = search(
            model, queries, keys, k=_SHOWN_KEYS, query_modality=asked, key_modality=answered
        )
        result[way] = _way(pairs, ranks[way], scores.tolist(), best.tolist(), partners, thumbnail)
    return {**result, "words": failing_words(pairs.captions, [rank > 1 for rank in ranks["text_to_image"]])}


def shown_caption(caption: str) -> str:
    """A caption as a page shows it: its first 500 characters."""
    return caption if len(caption) <= _LONGEST else f"{caption[: _LONGEST - 1]}…"


def failing_words(
    captions: Sequence[str], failed: Sequence[bool], *, most: int = _WORDS
) -> list[dict[str, Any]]:
    """The words whose queries fail most often, by the lower end of the interval of that share.

    The intervals hold for all words together with a probability of 95 % (Bonferroni). Words in every caption say
    nothing and are left out, and so are those in fewer than five.

    Example:
        >>> rows = failing_words(["a cat"] * 6 + ["a dog"] * 6, [True] * 6 + [False] * 6)
        >>> [(row["word"], row["failed"], row["queries"]) for row in rows]
        [('cat', 6, 6), ('dog', 0, 6)]
    """
    from scipy.stats import binomtest

    counts: dict[str, list[int]] = {}
    for caption, wrong in zip(captions, failed, strict=True):
        for word in sorted(set(_WORD.findall(caption.lower()))):
            entry = counts.setdefault(word, [0, 0])
            entry[0] += 1
            entry[1] += int(wrong)
    usable = {word: entry for word, entry in counts.items() if _LEAST <= entry[0] < len(captions)}
    rows: list[dict[str, Any]] = []
    for word, (queries, misses) in usable.items():
        interval = binomtest(misses, queries).proportion_ci(1 - 0.05 / len(usable), method="wilson")
        low, high = float(interval.low), float(interval.high)
        rows.append({"word": word, "queries": queries, "failed": misses, "low": low, "high": high})
    return sorted(rows, key=lambda row: (-row["low"], row["word"]))[:most]


def _way(
    pairs: EncodedPairs,
    ranks: Sequence[int],
    scores: Sequence[Sequence[float]],
    best: Sequence[Sequence[int]],
    partners: Sequence[Sequence[int]],
    thumbnail: Callable[[str], int],
) -> dict[str, Any]:
    def example(row: int) -> dict[str, Any]:
        return {
            "image": thumbnail(pairs.keys[row]),
            "caption": shown_caption(pairs.captions[row]),
            "rank": ranks[row],
            "answers": [
                {
                    "image": thumbnail(pairs.keys[key]),
                    "caption": shown_caption(pairs.captions[key]),
                    "score": score,
                    "right": key in partners[row],
                }
                for score, key in zip(scores[row], best[row], strict=True)
            ],
        }

    right = [row for row, rank in enumerate(ranks) if rank == 1]
    wrong = sorted((row for row, rank in enumerate(ranks) if rank > 1), key=lambda row: (-ranks[row], row))
    # The worst failures, and some from the middle: a mislabelled image alone says little.
    chosen = [*wrong[: _EXAMPLES // 2], *evenly(wrong[_EXAMPLES // 2 :], _EXAMPLES - _EXAMPLES // 2)]
    ordered = sorted(ranks)
    return {
        "queries": len(ranks),
        "right": len(right),
        "within_5": sum(rank <= 5 for rank in ranks),
        "median_rank": ordered[len(ordered) // 2],
        "right_examples": [example(row) for row in evenly(right, _EXAMPLES)],
        "wrong_examples": [example(row) for row in chosen],
    }

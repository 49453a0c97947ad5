"""Metrics of true captions against false ones: pure functions of scores. Shares are in percent.

Ties: a true caption that scores no higher than a false one is a miss, whatever their order in a file.
"""

import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from hypvl.checks import number

#: Scores of the true caption of an image and of its false ones; None = the image could not be read.
Scored: TypeAlias = tuple[float, Sequence[float]] | None
#: Chance level of :func:`paraphrase_hit`, in percent: that the one false item of three comes last.
PARAPHRASE_CHANCE = 100.0 / 3.0
#: Chance levels of :func:`group_hits`, in percent, for a random order of the four scores.
GROUP_CHANCE = {"text": 25.0, "image": 25.0, "group": 100.0 / 6.0}


def choice_hits(scored: Sequence[Scored]) -> list[bool]:
    """Whether each true caption scores above all false ones of its image; a tie and None are misses.

    Raises:
        ValueError: for a score that is NaN.

    Example:
        >>> choice_hits([(0.9, [0.1, 0.2]), (0.5, [0.5]), None])
        [True, False, False]
    """
    _check_scored(scored)
    return [one is not None and all(one[0] > foil for foil in one[1]) for one in scored]


def choice_chance(foils: Sequence[int]) -> float:
    """Percent of choices that a random order gets right, the mean of ``1 / (1 + n)``, n >= 1 foils of a choice.

    Example:
        >>> choice_chance([1, 3])
        37.5
    """
    if not foils or min(foils) < 1:
        raise ValueError(
            f"foils: got {list(foils)[:5]}; expected at least one choice, each with a false caption."
        )
    return 100.0 * float(np.mean([1.0 / (1 + count) for count in foils]))


def detection(scored: Sequence[Scored], *, threshold: float) -> dict[str, float]:
    """Classification by a threshold: a text is predicted true when it scores above it.

    Args:
        scored: Of each image; None = unreadable, all of its texts count as wrong.
        threshold: On the scale of the scores.

    Returns:
        In percent: ``p_c``, true captions predicted true; ``p_f``, false ones predicted false; ``min_p``, the smaller;
        ``acc``, the mean of both; ``precision`` (0 when nothing is predicted true) and ``f1`` of the predicted true
        captions.

    Raises:
        ValueError: without choices, for a score that is NaN, or a threshold that is not finite.

    Source: p_c, p_f and acc as in VALSE (arXiv 2112.07566), precision and F1 as VL-CheckList's (arXiv 2207.00221).

    Example:
        >>> numbers = detection([(0.9, [0.1]), (0.2, [0.4])], threshold=0.5)
        >>> numbers["p_c"], numbers["p_f"], numbers["acc"]
        (50.0, 100.0, 75.0)
    """
    if not scored:
        raise ValueError("scored: got no choices; expected at least one.")
    _check_scored(scored)
    threshold = number("threshold", threshold)
    readable = [one for one in scored if one is not None]
    p_c = sum(one[0] > threshold for one in readable) / len(scored)
    # Each image counts once, however many false captions it has.
    p_f = sum(sum(foil <= threshold for foil in one[1]) / len(one[1]) for one in readable) / len(scored)
    predicted = p_c + 1.0 - p_f
    precision = p_c / predicted if predicted else 0.0
    shares = {
        "acc": (p_c + p_f) / 2.0,
        "p_c": p_c,
        "p_f": p_f,
        "min_p": min(p_c, p_f),
        "precision": precision,
        "f1": 2.0 * precision * p_c / (precision + p_c) if p_c else 0.0,
    }
    return {name: 100.0 * share for name, share in shares.items()}


def group_hits(text: ArrayLike, image: ArrayLike) -> dict[str, bool]:
    """Hits of a group of two images and two captions; the first of each and the second of each belong together.

    Args:
        text: (2, 2), ``text[i][c]``: score of caption c for image i, the image being the query.
        image: (2, 2), ``image[c][i]``: score of image i for caption c, the caption being the query.

    Returns:
        ``text``: both images prefer their caption; ``image``: both captions prefer their image; ``group``: both
        hold. A tie is a miss.

    Raises:
        ValueError: for other shapes, or NaN.

    Source: Winoground, Thrush et al. 2022 (arXiv 2204.03162), equations 1 to 3.

    Example:
        >>> group_hits([[0.9, 0.1], [0.2, 0.8]], [[0.9, 0.2], [0.1, 0.8]])
        {'text': True, 'image': True, 'group': True}
    """
    by_image, by_caption = np.asarray(text, dtype=np.float64), np.asarray(image, dtype=np.float64)
    if by_image.shape != (2, 2) or by_caption.shape != (2, 2):
        raise ValueError(
            f"text and image: got shapes {by_image.shape} and {by_caption.shape}; expected (2, 2)."
        )
    if np.isnan(by_image).any() or np.isnan(by_caption).any():
        raise ValueError("text and image: hold NaN; expected numbers, since NaN compares with nothing.")
    hits = {
        name: bool((margins(rows) > 0).all()) for name, rows in (("text", by_image), ("image", by_caption))
    }
    return {**hits, "group": all(hits.values())}


def paraphrase_hit(rows: ArrayLike) -> bool:
    """Whether the first score of every row is above all others of the row; a tie is a miss.

    SugarCrepe++'s rule with image-to-text scores is ``[[caption, foil], [paraphrase, foil]]`` of one image (ITT), and
    with text-to-text scores ``[[paraphrase, foil]`` for the caption, ``[caption, foil]]`` for the paraphrase (TOT).
    Chance of either is :data:`PARAPHRASE_CHANCE` for a symmetric score: one of three numbers must be the extreme one.

    Args:
        rows: (Q, K), K >= 2.

    Raises:
        ValueError: for another shape, or NaN.

    Source: Dumpala et al. 2024, SugarCrepe++ (arXiv 2406.11171), section 4.

    Example:
        >>> paraphrase_hit([[0.9, 0.1], [0.8, 0.3]])
        True
    """
    table = np.asarray(rows, dtype=np.float64)
    if table.ndim != 2 or table.shape[1] < 2 or np.isnan(table).any():
        raise ValueError(
            f"rows: got shape {table.shape}, or NaN in it; expected (Q, K) numbers with K of at least 2."
        )
    return bool((table[:, :1] > table[:, 1:]).all())


def selection_jaccard(scores: Sequence[float], right: Sequence[bool]) -> float:
    """Jaccard index of the right items and as many items with the highest scores, in percent.

    Formula: with k right items, j of which are among the first k, ``j / (2 k - j)``. Of equal scores the wrong item
    comes first.

    Args:
        scores: Of each candidate.
        right: Whether it is a right one; at least one is.

    Raises:
        ValueError: for other lengths, no right item, or NaN.

    Source: Bitton et al. 2022, WinoGAViL (arXiv 2207.12576).

    Example:
        >>> selection_jaccard([0.9, 0.5, 0.1], [True, False, True])
        33.333333333333336
    """
    count = sum(right)
    if len(scores) != len(right) or not count or any(map(math.isnan, scores)):
        raise ValueError(
            f"scores, right: got {len(scores)} scores, {len(right)} marks, {count} of them right, or NaN; expected a "
            "number for each, at least one right."
        )
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], right[i]))
    hits = sum(right[i] for i in order[:count])
    return 100.0 * hits / (2 * count - hits)


def selection_jaccard_chance(candidates: int, right: int) -> float:
    """Mean of :func:`selection_jaccard` over random orders, in percent: j is hypergeometric.

    Args:
        candidates: Number of candidates.
        right: How many of them are right, 1 ... ``candidates``.

    Raises:
        ValueError: for other numbers.

    Example:
        >>> selection_jaccard_chance(2, 1)
        50.0
    """
    if not 1 <= right <= candidates:
        raise ValueError(f"right: got {right}; expected 1 … {candidates}, the number of candidates.")
    orders = math.comb(candidates, right)
    return 100.0 * math.fsum(
        j / (2 * right - j) * math.comb(right, j) * math.comb(candidates - right, right - j) / orders
        for j in range(1, right + 1)
    )


def _check_scored(scored: Sequence[Scored]) -> None:
    for place, one in enumerate(scored):
        if one is not None and (math.isnan(one[0]) or any(math.isnan(foil) for foil in one[1])):
            raise ValueError(
                f"scored[{place}]: holds NaN; expected numbers, since NaN compares with nothing."
            )


def margins(rows: ArrayLike) -> "np.ndarray[tuple[int, ...], np.dtype[np.float64]]":
    """Score of the own item minus that of the other one, of each query: (2, 2) -> (2,).

    Example:
        >>> margins([[0.75, 0.5], [0.25, 0.5]])
        array([0.25, 0.25])
    """
    square = np.asarray(rows, dtype=np.float64)
    return np.diagonal(square) - np.diagonal(square[:, ::-1])

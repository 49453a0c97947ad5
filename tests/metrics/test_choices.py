import math
from itertools import permutations

import numpy as np
import pytest

from hypvl.metrics.choices import (
    GROUP_CHANCE,
    PARAPHRASE_CHANCE,
    choice_chance,
    choice_hits,
    detection,
    group_hits,
    margins,
    paraphrase_hit,
    selection_jaccard,
    selection_jaccard_chance,
)
from tests.parity.reference import cases


def test_a_hit_beats_every_foil_and_a_tie_or_no_image_is_a_miss() -> None:
    scored = [(0.5, [0.4, 0.3]), (0.5, [0.5]), (0.5, [0.1, 0.6]), None, (-3.0, [-4.0])]
    assert choice_hits(scored) == [True, False, False, False, True]


def test_chance_is_the_mean_over_choices() -> None:
    assert choice_chance([1, 1]) == 50.0
    assert choice_chance([4]) == pytest.approx(20.0)
    assert choice_chance([1, 3]) == pytest.approx((50 + 25) / 2)
    for wrong in ([], [0, 1]):
        with pytest.raises(ValueError, match="each with a false caption"):
            choice_chance(wrong)


def test_detection_by_hand() -> None:
    scored = [(0.9, [0.1]), (0.4, [0.6]), (0.8, [0.7]), None]
    result = detection(scored, threshold=0.5)
    # captions called true: 2 of 4; foils called false: 1 of 4 (the unreadable image is wrong in both)
    assert (result["p_c"], result["p_f"], result["acc"], result["min_p"]) == (50.0, 25.0, 37.5, 25.0)
    # called true: 2 captions and 3 of 4 foils
    assert result["precision"] == pytest.approx(40.0)
    assert result["f1"] == pytest.approx(100 * 2 * 0.4 * 0.5 / 0.9)


def test_detection_counts_an_image_once_and_a_score_at_the_threshold_is_false() -> None:
    result = detection([(0.5, [0.5, 0.9]), (0.6, [0.1, 0.2])], threshold=0.5)
    assert (result["p_c"], result["p_f"]) == (50.0, 75.0)
    nothing = detection([(0.0, [0.0])], threshold=1.0)
    assert (nothing["precision"], nothing["f1"], nothing["p_f"]) == (0.0, 0.0, 100.0)
    with pytest.raises(ValueError, match="got no choices"):
        detection([], threshold=0.0)


@pytest.mark.parametrize(
    ("scores", "text", "image"),
    [
        ([[4, 1], [2, 3]], True, True),  # rows are images, columns captions
        ([[4, 1], [6, 7]], True, False),  # caption 0 prefers image 1
        ([[3, 4], [1, 5]], False, True),  # image 0 prefers caption 1
        ([[4, 4], [2, 5]], False, True),  # a tie of captions
        ([[4, 1], [4, 5]], True, False),  # a tie of images
        ([[1, 2], [2, 1]], False, False),
    ],
)
def test_group_by_hand(scores: list[list[float]], text: bool, image: bool) -> None:
    result = group_hits(scores, np.transpose(scores))
    assert result == {"text": text, "image": image, "group": text and image}


def test_group_directions_are_distinguished() -> None:
    good, bad = [[1, 0], [0, 1]], [[0, 1], [1, 0]]
    assert group_hits(good, bad) == {"text": True, "image": False, "group": False}
    assert margins([[5, 2], [7, 1]]).tolist() == [3, -6]
    with pytest.raises(ValueError, match=r"expected \(2, 2\)"):
        group_hits([[1, 2, 3]], good)


def test_group_chance_is_what_random_scores_get() -> None:
    draws = np.random.default_rng(0).random((6000, 2, 2))
    result = [group_hits(scores, scores.T) for scores in draws]
    for name, chance in GROUP_CHANCE.items():  # 3 standard errors
        assert 100 * np.mean([one[name] for one in result]) == pytest.approx(chance, abs=1.7)


@pytest.mark.parametrize("case", cases("ranking_metrics", "triplets", "expected"))
def test_triplet_accuracies_are_choices(case: tuple[str, float]) -> None:
    """A triplet is a choice with one foil: its score is the similarity, or minus the distance."""
    from tests.parity.reference import load

    name, expected = case
    content = load("ranking_metrics")
    assert content is not None
    anchor, positive, negative = (
        np.asarray(content["triplets"][key], dtype=float) for key in ("anchor", "positive", "negative")
    )

    def similarity(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        if name.endswith("cosine"):
            return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
        return -np.linalg.norm(a - b, ord=2 if name.endswith("euclidean") else 1, axis=1)

    scored = [
        (p, [n])
        for p, n in zip(
            similarity(anchor, positive).tolist(), similarity(anchor, negative).tolist(), strict=True
        )
    ]
    assert np.mean(choice_hits(scored)) == pytest.approx(expected, abs=1e-9)


def test_paraphrase_hit_by_hand() -> None:
    assert paraphrase_hit([[0.5, 0.4], [0.9, 0.4]])
    assert not paraphrase_hit([[0.5, 0.4], [0.4, 0.4]])  # a tie
    assert not paraphrase_hit([[0.5, 0.6], [0.9, 0.6]])
    for wrong in ([0.5, 0.4], [[0.5]], [[0.5, math.nan]]):
        with pytest.raises(ValueError, match="rows: got shape"):
            paraphrase_hit(wrong)


def test_chance_of_a_paraphrase_hit_is_that_of_random_scores() -> None:
    draws = np.random.default_rng(0).random((6_000, 3))
    itt = [paraphrase_hit([[a, c], [b, c]]) for a, b, c in draws]  # two captions and the foil
    tot = [paraphrase_hit([[a, b], [a, c]]) for a, b, c in draws]  # the three symmetric scores of the texts
    assert 100 * np.mean(itt) == pytest.approx(PARAPHRASE_CHANCE, abs=2)
    assert 100 * np.mean(tot) == pytest.approx(PARAPHRASE_CHANCE, abs=2)


def test_jaccard_index_of_the_chosen_by_hand() -> None:
    # Two are right and two are chosen: both, one of three together, none.
    assert selection_jaccard([0.9, 0.1, 0.8], [True, False, True]) == 100.0
    assert selection_jaccard([0.9, 0.5, 0.1], [True, False, True]) == pytest.approx(100 / 3)
    assert selection_jaccard([0.1, 0.5, 0.4, 0.2], [True, False, False, True]) == 0.0
    assert selection_jaccard([1.0, 1.0], [True, False]) == 0.0  # a tie


def test_chance_of_the_jaccard_index_is_the_mean_over_all_orders() -> None:
    right = [True, True, False, False, False]
    values = [selection_jaccard(order, right) for order in permutations(range(5))]
    assert selection_jaccard_chance(5, 2) == pytest.approx(np.mean(values))
    assert selection_jaccard_chance(3, 3) == 100.0


def test_a_selection_without_right_items_or_with_nan_is_an_error() -> None:
    for scores, right in (([1.0], [False]), ([math.nan], [True]), ([1.0, 2.0], [True])):
        with pytest.raises(ValueError, match="scores, right: got"):
            selection_jaccard(scores, right)
    with pytest.raises(ValueError, match="right: got 4; expected 1 … 3"):
        selection_jaccard_chance(3, 4)

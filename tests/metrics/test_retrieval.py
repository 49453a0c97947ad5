"""Ranks and precisions by hand, and chance levels against all orders."""

from itertools import permutations

import pytest

from hypvl.metrics.retrieval import (
    average_precision_at_r,
    average_precision_at_r_chance,
    found_share,
    mean_rank,
    mean_reciprocal_rank,
    median_rank,
    r_precision,
    r_precision_chance,
)


def test_medians_by_hand() -> None:
    assert median_rank([5, 1, 2], 10) == 2.0
    assert median_rank([5, 1, 2, 4], 10) == 3.0
    assert median_rank([5, None, None], 10) == 10.0
    assert median_rank([1, None], 10) == 5.5


def test_means_by_hand() -> None:
    assert mean_rank([1, 2, 6]) == 3.0
    assert mean_reciprocal_rank([1, 2, None, 4]) == pytest.approx((1 + 0.5 + 0.25) / 4)


def test_precisions_by_hand() -> None:
    # Right: a, b, c, so R = 3. Of the first three x, a, b two are right, at places 2 and 3.
    ranked = ["x", "a", "b", "y", "c"]
    assert r_precision(ranked, "abc") == pytest.approx(100 * 2 / 3)
    assert average_precision_at_r(ranked, "abc") == pytest.approx(100 * (1 / 2 + 2 / 3) / 3)
    assert found_share(ranked, "abc", 5) == 100.0
    assert found_share(ranked, "abc", 2) == pytest.approx(100 / 3)


def test_an_item_outside_the_gallery_counts_in_r() -> None:
    assert r_precision(["a", "x"], ["a", "lost"]) == 50.0
    assert average_precision_at_r(["a", "x"], ["a", "lost"]) == 50.0
    assert average_precision_at_r([], ["a"]) == r_precision([], ["a"]) == 0.0


def test_one_right_item_gives_recall_at_1() -> None:
    for ranked, hit in ((["a", "b"], 100.0), (["b", "a"], 0.0)):
        assert r_precision(ranked, ["a"]) == average_precision_at_r(ranked, ["a"]) == hit


def test_order_within_the_first_r_moves_only_the_average_precision() -> None:
    early, late = ["a", "b", "x", "y"], ["x", "y", "a", "b"]
    assert r_precision(early, "abcd") == r_precision(late, "abcd") == 50.0
    assert average_precision_at_r(early, "abcd") > average_precision_at_r(late, "abcd")


@pytest.mark.parametrize(
    ("count", "size", "outside"),
    [(1, 1, 0), (1, 4, 0), (2, 5, 0), (3, 5, 0), (5, 5, 0), (3, 5, 1), (1, 4, 1), (6, 4, 3)],
)
def test_chance_is_the_mean_over_all_orders(count: int, size: int, outside: int) -> None:
    orders = list(permutations(range(size)))
    right = range(-outside, count - outside)  # negative ones are in no order
    mean = sum(r_precision(order, right) for order in orders) / len(orders)
    assert r_precision_chance(count, size, in_gallery=count - outside) == pytest.approx(mean)
    mean = sum(average_precision_at_r(order, right) for order in orders) / len(orders)
    assert average_precision_at_r_chance(count, size, in_gallery=count - outside) == pytest.approx(mean)


def test_what_cannot_be_measured() -> None:
    for function in (mean_rank, mean_reciprocal_rank):
        with pytest.raises(ValueError, match="got no queries"):
            function([])
    with pytest.raises(ValueError, match="got no queries"):
        median_rank([], 3)
    with pytest.raises(ValueError, match="leave queries without a right item out"):
        r_precision(["a"], [])
    for function in (r_precision_chance, average_precision_at_r_chance):
        with pytest.raises(ValueError, match=r"right_count: got 4, 4 of them in a gallery of 3"):
            function(4, 3)

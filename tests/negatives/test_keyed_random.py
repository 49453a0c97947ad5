"""Draws are a function of seed, position and decision."""

from hypvl.negatives.keyed_random import Draws


def test_draws_are_those_of_the_key() -> None:
    # Python promises the numbers of random.Random(key).random(): these never change
    keys = [(0, 0, 0), (0, 1, 0), (1, 0, 0)]
    assert [Draws(*key).below(1000) for key in keys] == [844, 488, 229]
    assert Draws(3, 5, 1).shuffled(range(6)) == Draws(3, 5, 1).shuffled(range(6))


def test_keys_do_not_run_into_each_other() -> None:
    keys = [
        (seed, position, decision) for seed in range(8) for position in range(40) for decision in range(4)
    ]
    assert len({Draws(*key).below(1 << 50) for key in keys}) == len(keys)


def test_shuffling_keeps_the_items_and_favours_none() -> None:
    first = [Draws(0, i, 0).shuffled("abcd") for i in range(4000)]
    assert all(sorted(order) == ["a", "b", "c", "d"] for order in first)
    for letter in "abcd":
        share = sum(order[0] == letter for order in first) / 4000
        assert abs(share - 0.25) < 0.03, letter  # 4 standard deviations

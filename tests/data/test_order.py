import collections
import time

import numpy as np
import pytest

from hypvl.data.order import PositionSampler

FROZEN = [8, 1, 2, 7, 9, 11, 10, 3, 6, 4, 5, 0, 1, 6, 5, 0, 2, 7, 8, 9, 11, 10, 4, 3]
FROZEN_REPLACEMENT = 8
FROZEN_DRAW = 2561184104382475069


def rows_of(sampler, start, stop):
    return [sampler.locate(position)[1] for position in range(start, stop)]


@pytest.mark.parametrize("sizes", [[10], [3, 1, 6], [4, 0, 4, 2], [1] * 10])
@pytest.mark.parametrize("window", [1, 3, 10, 4000])
def test_every_row_comes_once_in_an_epoch(sizes, window):
    sampler = PositionSampler(sizes, seed=7, shuffle_window=window)
    for epoch in range(3):
        located = [sampler.locate(epoch * 10 + i) for i in range(10)]
        assert {e for e, _ in located} == {epoch}
        assert sorted(row for _, row in located) == list(range(10))


def test_order_is_a_pure_function_whatever_was_asked_before():
    a, b = (PositionSampler([50, 30, 20], seed=3, shuffle_window=16) for _ in range(2))
    forward = rows_of(a, 0, 300)
    asked = np.random.default_rng(0).permutation(300)
    assert [b.locate(int(p))[1] for p in asked] == [forward[p] for p in asked]


def test_epochs_and_seeds_differ():
    sampler = PositionSampler([100], seed=0, shuffle_window=1000)
    first = rows_of(sampler, 0, 100)
    assert first != rows_of(sampler, 100, 200)
    assert first != rows_of(PositionSampler([100], seed=1, shuffle_window=1000), 0, 100)
    assert first != list(range(100))


def test_window_one_keeps_the_rows_of_a_shard_together_and_in_order():
    rows = rows_of(PositionSampler([5, 5, 5], seed=2, shuffle_window=1), 0, 15)
    steps = collections.Counter((b - a) for a, b in zip(rows, rows[1:] + rows[:1], strict=True))
    assert steps[1] == 12  # inside shards; the other three steps go from shard to shard


def test_windows_bound_how_far_a_row_moves_but_their_borders_move_between_epochs():
    sampler = PositionSampler([1000], seed=5, shuffle_window=10)
    sets = []
    for epoch in range(2):
        rows = np.array(rows_of(sampler, epoch * 1000, (epoch + 1) * 1000)).reshape(-1, 10)
        spans = [set(r.tolist()) for r in rows]
        # each window holds ten neighbours (the sequence is a circle: one window may pass its end)
        assert sum(max(s) - min(s) == 9 for s in spans) >= 99
        sets.append({frozenset(s) for s in spans})
    assert not sets[0] & sets[1]


def test_first_place_is_uniform():
    counts = collections.Counter(
        PositionSampler([2, 2, 1], seed=s, shuffle_window=2).locate(0)[1] for s in range(2000)
    )
    assert all(330 < counts[row] < 470 for row in range(5))  # 400 expected, sd 18


def test_reference_values_never_change():
    # Frozen: a checkpoint of an older version must resume on the same samples.
    assert rows_of(PositionSampler([3, 4, 5], seed=11, shuffle_window=4), 0, 24) == FROZEN
    assert PositionSampler([3, 4, 5], seed=11).replacement(2**40, 1) == FROZEN_REPLACEMENT
    assert PositionSampler([9], seed=11).generator(5).integers(2**63) == FROZEN_DRAW


def test_generators_differ_by_position_attempt_and_seed_also_beyond_32_bits():
    sampler = PositionSampler([10], seed=0)
    keys = [(p, k) for p in (0, 1, 2**32, 2**32 + 1, 2**33) for k in range(3)]
    draws = {sampler.generator(p, k).integers(2**63) for p, k in keys}
    draws |= {PositionSampler([10], seed=2**32).generator(p, k).integers(2**63) for p, k in keys}
    assert len(draws) == 30


def test_a_huge_data_set_costs_a_window_not_an_epoch():
    sampler = PositionSampler([10_000] * 10_000, seed=0)
    start = time.perf_counter()
    rows = rows_of(sampler, 10**12 - 50, 10**12 + 50)
    assert time.perf_counter() - start < 0.5
    assert len(set(rows)) == 100 and max(rows) < 10**8


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"shard_sizes": [], "seed": 0}, "got 0 rows"),
        ({"shard_sizes": [1], "seed": -1}, "seed: got -1"),
        ({"shard_sizes": [1], "seed": 0, "shuffle_window": 0}, "shuffle_window: got 0"),
    ],
)
def test_wrong_arguments(arguments, words):
    with pytest.raises(ValueError, match=words):
        PositionSampler(**arguments)

import numpy as np
import pytest

from hypvl.data.bad_samples import BadSamples
from hypvl.errors import DataError


def test_counts_and_first_keys():
    tally = BadSamples(max_fraction=0.5, warm_up=10)
    tally.add(6, [("a", "torn"), ("b", "empty")])
    tally.add(2, [("a", "torn again")])
    assert (tally.good, tally.bad) == (8, 3)
    assert tally.fraction == pytest.approx(3 / 11)
    assert tally.first == {"a": "torn", "b": "empty"}
    assert str(tally) == "3 of 11 samples (27.3%) could not be read (a: torn; b: empty)"
    assert str(BadSamples()) == "no bad samples among 0"


def test_too_many_is_an_error_that_names_share_and_keys():
    tally = BadSamples(max_fraction=0.1, warm_up=80)
    tally.add(90, [(f"k{i}", "torn") for i in range(10)])
    tally.check()  # exactly the fraction
    tally.add(0, [("k10", "torn")])
    with pytest.raises(DataError, match=r"11 of 101 samples \(10.9%\).*k0: torn.*max_bad_fraction=0.1"):
        tally.check()


def test_a_few_early_ones_do_not_stop_a_run_but_many_do():
    tally = BadSamples(max_fraction=0.1, warm_up=100)
    tally.add(8, [("k", "torn")] * 20)
    tally.check()
    with pytest.raises(DataError):
        tally.check(final=True)
    tally.add(0, [("k", "torn")])
    with pytest.raises(DataError, match="21 of 29"):
        tally.check()


def test_none_allowed():
    tally = BadSamples(max_fraction=0.0)
    tally.check(final=True)
    tally.add(5, [("k", "torn")])
    with pytest.raises(DataError):
        tally.check()
    with pytest.raises(ValueError, match=r"max_bad_fraction: got 1.5"):
        BadSamples(max_fraction=1.5)


def test_state_goes_through_a_checkpoint_and_ranks_are_added():
    a, b = BadSamples(max_fraction=0.2), BadSamples(max_fraction=0.2)
    a.add(5, [("x", "torn")])
    b.add(7, [("y", "torn"), ("z", "torn")])
    fresh = BadSamples(max_fraction=0.2)
    fresh.load_state_dict(a.state_dict())
    expected = {"good": 5, "bad": 1, "first": {"x": "torn"}, "unreported": [["x", "torn"]]}
    assert fresh.state_dict() == a.state_dict() == expected
    both = a.merged([a.state_dict(), b.state_dict()])
    assert (both.good, both.bad, list(both.first)) == (
        12,
        3,
        ["y", "z", "x"],
    )  # of the rank with the most first
    assert both.unreported == [("x", "torn"), ("y", "torn"), ("z", "torn")]
    assert both.max_fraction == 0.2
    fresh.load_state_dict({"good": 1, "bad": 2, "first": {}})  # as earlier checkpoints have it
    assert (fresh.bad, fresh.unreported) == (2, [])


def test_a_report_is_short_and_says_only_what_is_new():
    tally = BadSamples()
    tally.add(9, [("old", "torn")])
    tally.unreported.clear()
    tally.add(90, [("a", "x" * 400), ("b", "torn"), ("c", "torn"), ("d", "torn")])
    assert tally.report() == (
        f"4 more bad samples (a: {'x' * 94}...; b: torn; c: torn), 5 of 104 (4.8%) so far"
    )
    tally.unreported[:] = [("d", "torn")]
    assert tally.report().startswith("1 more bad sample (d: torn), ")


def test_only_the_first_keys_are_kept():
    tally = BadSamples()
    for i in range(1000):
        tally.add(100, [(f"k{i}", "torn")])
    assert list(tally.first) == [f"k{i}" for i in range(20)] and tally.bad == 1000


def test_the_share_is_that_of_all_ranks() -> None:
    """At 8 % of bad samples and a limit of 10 %, some rank of many is above it: none stops the run."""
    random = np.random.default_rng(0)
    for ranks in (8, 64, 256):
        alone, states = 0, []
        for rank in range(ranks):
            tally = BadSamples(max_fraction=0.1)
            bad = int(random.binomial(1000, 0.08))
            tally.add(1000 - bad, [(f"{rank}-{i}", "torn") for i in range(bad)])
            states.append(tally.state_dict())
            alone += tally.fraction > 0.1
        assert ranks < 256 or alone > 0
        tally.merged(states).check()
    states[7] = {"good": 100, "bad": 9000, "first": {"a": "torn", "b": "empty"}}
    with pytest.raises(
        DataError, match=r"could not be read \(most on rank 7: a: torn; b: empty; 0-0: torn\); more than"
    ):
        tally.merged(states).check()


def test_after_a_resume_the_share_is_exact_and_the_worst_rank_that_of_the_new_run() -> None:
    def read(tally: BadSamples, rank: int, steps: range) -> None:
        for step in steps:
            tally.add(9 - rank, [(f"{rank}-{step}-{i}", "torn") for i in range(1 + rank)])

    whole = [BadSamples(max_fraction=0.1, warm_up=0) for _ in range(2)]
    resumed = [BadSamples(max_fraction=0.1, warm_up=0) for _ in range(2)]
    for rank in range(2):
        read(whole[rank], rank, range(5))
    saved = whole[0].merged([tally.of_this_rank() for tally in whole]).state_dict()
    resumed[0].load_state_dict(saved)  # as a resumed run does: on rank 0
    for rank in range(2):
        read(whole[rank], rank, range(5, 8))
        read(resumed[rank], rank, range(5, 8))
    one, other = (tallies[0].merged([t.of_this_rank() for t in tallies]) for tallies in (whole, resumed))
    assert (one.good, one.bad) == (other.good, other.bad) == (8 * 17, 8 * 3)
    assert "most on rank 1: 1-0-0: torn" in str(one) and "most on rank 1: 1-5-0: torn" in str(other)

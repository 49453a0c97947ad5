"""Orders and parts of data sets. The orders are frozen: another one would be another benchmark."""

import itertools
from pathlib import Path

from hypothesis import given, strategies as st

from hypvl.datasets.classification.folders import ImageFolderSet
from hypvl.datasets.classification.splits import counted, per_class, share, shuffled
from tests.evaluation.fakes import BLUE, RED, image


def test_the_order_is_that_of_sha256() -> None:
    # printf 'dtd:0' | sha256sum begins with c530ce65, of 1 with 4aee594d, 2 acbd4f19, 3 eb5c88db.
    assert shuffled(4, key="dtd") == [1, 2, 0, 3]
    assert shuffled(8, key="dtd") == [7, 1, 2, 5, 0, 3, 6, 4]
    assert shuffled(8, key="eurosat") == [4, 7, 2, 1, 6, 0, 5, 3]
    assert shuffled(0, key="x") == []


@given(st.integers(0, 60), st.lists(st.floats(0, 1), max_size=3))
def test_neighbouring_shares_are_a_partition(count: int, cuts: list[float]) -> None:
    edges = [0.0, *sorted(round(cut, 3) for cut in cuts), 1.0]
    order = shuffled(count, key="x")
    parts = [share(order, begin, end) for begin, end in itertools.pairwise(edges)]
    assert sorted(i for part in parts for i in part) == list(range(count))
    assert all(part == sorted(part) for part in parts)


def test_shares_and_counts() -> None:
    order = [3, 1, 4, 0, 2]
    assert share(order, 0.0, 0.4) == [1, 3] and share(order, 0.4, 1.0) == [0, 2, 4]
    assert len(share(range(31500), 0.1, 0.2)) == 3150  # no rounding of 0.1 to binary
    assert counted(order, 1, 3, total=4) == [1, 4]
    assert counted(order, 2, 4, total=10) == [1]  # half as long as published: 1:2 instead of 2:4


def test_so_many_of_each_class() -> None:
    labels = [0, 1, 0, 1, 0, 1, 0, 2, 2]
    chosen = per_class(labels, 2, key="x")
    assert sorted(labels[i] for i in chosen) == [0, 0, 1, 1, 2]  # of two images one stays for the test
    assert sorted(chosen + per_class(labels, 2, key="x", rest=True)) == list(range(9))
    first = [i for i in shuffled(9, key="x") if labels[i] == 0][:2]
    assert [i for i in chosen if labels[i] == 0] == sorted(first)


def test_a_subset_is_a_set(tmp_path: Path) -> None:
    for i, color in enumerate((RED, BLUE, RED)):
        image(tmp_path / "ab"[i % 2] / f"{i}.png", color)
    whole = ImageFolderSet(tmp_path, prompts=["a {}"])
    part = whole.take([2, 0])
    assert part.keys == ["b/1.png", "a/0.png"] and part.labels == [1, 0] and len(part) == 2
    assert part.classes == ["a", "b"] and part.prompts == ["a {}"]
    assert part[0][0].float().mean(dim=(1, 2)).tolist() == list(BLUE) and part[1][1] == 0
    assert part.ids == [str(tmp_path / "b" / "1.png"), str(tmp_path / "a" / "0.png")]
    again = part.take([1])
    assert again.keys == ["a/0.png"] and again[0][0].float().mean(dim=(1, 2)).tolist() == list(RED)

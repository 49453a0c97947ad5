"""Checks of arguments name the argument, what came and what was expected."""

from typing import Literal, Protocol

import numpy as np
import pytest

from hypvl.checks import (
    closest,
    missing_members,
    names_parameter,
    natural_number,
    number,
    one_of,
    whole_number,
)


def test_one_of_takes_values_and_literals() -> None:
    assert one_of("way", "a", ("a", "b")) == "a"
    assert one_of("amp", False, Literal["bf16", False]) is False
    assert one_of("way", None, Literal["x"] | Literal["y", None]) is None
    assert one_of("way", None, Literal["x"] | None) is None


@pytest.mark.parametrize("value", ["img", "Image", 0, None, True])
def test_one_of_refuses_the_rest(value: object) -> None:
    with pytest.raises(ValueError, match=r"query_modality: got .*; expected 'image' or 'text'"):
        one_of("query_modality", value, Literal["image", "text"])


def test_false_is_not_zero() -> None:
    with pytest.raises(ValueError, match="expected 'bf16' or False"):
        one_of("amp", 0, Literal["bf16", False])


def test_the_closest_of_many_is_named() -> None:
    with pytest.raises(ValueError, match="the closest is 'geometric'"):
        one_of("average", "geometrc", ("arithmetic", "geometric", "max", "min"))


def test_number_in_range() -> None:
    assert number("lr", 5, above=0) == 5.0
    assert number("lr", np.float32(0.5), least=0, most=1) == 0.5
    assert whole_number("seed", 3.0, least=0) == 3
    assert whole_number("seed", np.int64(7)) == 7


@pytest.mark.parametrize("value", [-1, 0, 2, float("nan"), float("inf"), "0.5", None, True, [1]])
def test_number_out_of_range(value: object) -> None:
    with pytest.raises(ValueError, match=r"dropout: got .*; expected a number above 0 and below 2"):
        number("dropout", value, above=0, below=2)


@pytest.mark.parametrize("value", [0, 1.5, float("nan"), float("inf"), "3", None, True])
def test_whole_number_out_of_range(value: object) -> None:
    with pytest.raises(ValueError, match="expected a whole number of at least 1 and up to 9"):
        whole_number("steps", value, least=1, most=9)


@pytest.mark.parametrize("text", ["", "²", "٣", "-1", "+1", "1.0", "1e3", " 1", "1_000", "9" * 19])
def test_what_is_no_natural_number(text: str) -> None:
    assert natural_number(text) is None


def test_natural_numbers() -> None:
    assert [natural_number(text) for text in ("0", "007", "9" * 18)] == [0, 7, 10**18 - 1]


class Likeness(Protocol):
    """What :func:`missing_members` is asked for."""

    width: int

    @property
    def name(self) -> str: ...

    def __len__(self) -> int: ...

    def draw(self) -> None: ...


def test_members_that_are_missing_are_listed_in_the_order_of_the_protocol() -> None:
    class Some:
        width = 3

        def draw(self) -> None: ...

    class Whole(Some):
        name = "x"

        def __len__(self) -> int:
            return 0

    one = Some()
    one.__len__ = lambda: 1  # type: ignore[attr-defined]  # Python looks for it on the class only
    assert missing_members(one, Likeness) == ["name", "__len__"]
    assert missing_members(Whole(), Likeness) == []
    assert missing_members(None, Likeness) == ["width", "name", "__len__", "draw"]


@pytest.mark.parametrize(
    ("pattern", "name", "named"),
    [
        ("model.textual.*", "model.textual.ln_final.weight", True),
        ("model.*.log_scale", "model.visual_head.log_scale", True),
        ("model.*.log_scale", "model.log_scale", False),
        ("*_head.*", "model.visual_head.projection.weight", True),
        ("log_scale", "model.scorer.log_scale", True),  # without a dot: the last part
        ("log_*", "model.geometry.log_curv", True),
        ("scorer", "model.scorer.log_scale", False),
        ("scorer.log_scale", "model.scorer.log_scale", False),
        ("model.scorer.Log_scale", "model.scorer.log_scale", False),
    ],
)
def test_patterns_of_parameter_names(pattern: str, name: str, named: bool) -> None:
    assert names_parameter(pattern, name) is named


def test_the_closest_name_is_found_in_any_iterable_and_may_be_none() -> None:
    assert closest("tran", iter(["evaluate", "train"])) == "train"
    assert closest("zzz", ["train"]) is None and closest("zzz", []) is None
    assert closest("zzz", ["train"], cutoff=0) == "train"

"""Answers as the official evaluation compares them."""

import pytest

from hypvl.metrics.answers import normalize_answer


@pytest.mark.parametrize(
    ("answer", "normal"),
    [
        ("The Dog.", "dog"),
        ("1,000", "1000"),
        ("3.5", "3.5"),
        ("12:30 p.m.", "12:30 pm"),
        ("Two", "2"),
        ("none", "0"),
        ("red/white", "red white"),
        ("dont know", "don't know"),
        ("its", "its"),
        ("man's hat!", "man's hat"),
        ("a\nb", "b"),
        ("?", ""),
    ],
)
def test_by_hand(answer: str, normal: str) -> None:
    assert normalize_answer(answer) == normal
    assert normalize_answer(normal) == normal

import argparse

import pytest

from benchmarks.common import count, counts


def test_counts() -> None:
    assert count("12") == 12
    assert counts("4096,8192") == [4096, 8192]


@pytest.mark.parametrize("text", ["0", "-3", "a", "1.5", "", "4096,"])
def test_what_is_no_count_is_said(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="expected a whole number of at least 1"):
        counts(text)

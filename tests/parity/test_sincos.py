"""Entries of the fixed two-dimensional positions (sincos.json)."""

from typing import Any

import pytest
import torch

from hypvl.encoders.image_base import sincos_2d
from tests.parity.reference import cases, number

PATCHES = 14 * 14  # the published models cut 224 pixels into patches of 16
WIDTHS = {"vit_s": 384, "vit_b": 768, "vit_l": 1024}


def width_of(name: str, case: dict[str, Any]) -> int:
    """The width is not in the file: every patch has squared norm width / 2, which gives it from ``l2``."""
    return round(2 * case["l2"] ** 2 / PATCHES) if "l2" in case else WIDTHS[name]


@pytest.mark.parametrize("item", cases("sincos"))
def test_entries(item: tuple[str, dict[str, Any]]) -> None:
    name, case = item
    if not isinstance(case, dict) or "rows" not in case:
        return  # "meta" describes the file
    table = sincos_2d(width_of(name, case), (14, 14))[0].double()  # (197, width)
    result = table[case["rows"]][:, case["cols"]]
    # The table is fp32: half a unit in the last place of 1 is 6e-8.
    torch.testing.assert_close(
        result, torch.tensor(number(case["values"]), dtype=torch.float64), rtol=0, atol=2e-7
    )
    if "sum" in case:
        assert table.sum().item() == pytest.approx(case["sum"], rel=1e-7)
    if "l2" in case:
        assert table.norm().item() == pytest.approx(case["l2"], rel=1e-7)
    for row, norm in enumerate(case.get("row_l2_first", [])):
        assert table[row].norm().item() == pytest.approx(norm, rel=1e-6, abs=1e-12)

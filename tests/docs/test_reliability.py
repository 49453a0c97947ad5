"""Every test that docs/reliability.md names exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/reliability.md").read_text(encoding="utf-8")
NAMED = re.findall(r"`([\w/]+\.py)::(\w+)`", PAGE)
TABLES = re.findall(r"^\| promise \|.*\n\|---.*\n((?:\|.*\n)+)", PAGE, re.M)
ROWS = "".join(TABLES).splitlines()


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_a_named_test_is_there(file: str, name: str) -> None:
    assert f"def {name}(" in (ROOT / "tests" / file.removeprefix("tests/")).read_text(encoding="utf-8")


def test_every_row_has_a_promise_a_test_a_figure_and_a_place() -> None:
    assert len(NAMED) >= len(ROWS) > 0
    for row in ROWS:
        cells = [cell.strip() for cell in row.strip("|").split(" | ")]
        assert len(cells) == 4 and all(cells) and "::" in cells[1], row

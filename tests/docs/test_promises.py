"""Pages that name the tests which prove a promise name tests that exist."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests"
PAGES = ("docs/reliability.md", "SECURITY.md")
_NAMED = re.compile(r"`(?:tests/)?([\w/]+\.py)::(\w+)(?:::(\w+))?(?:\[[^`]*\])?`")


def functions(path: Path) -> set[str]:
    """The tests of a file, also those of its classes."""
    tree = ast.parse(path.read_text("utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}


@pytest.mark.parametrize("page", PAGES)
def test_named_tests_exist(page: str) -> None:
    named = _NAMED.findall((ROOT / page).read_text("utf-8"))
    assert named
    missing = [
        "::".join(filter(None, parts))
        for parts in named
        if not (TESTS / parts[0]).is_file() or not set(filter(None, parts[1:])) <= functions(TESTS / parts[0])
    ]
    assert missing == []


def test_every_guarantee_names_a_test() -> None:
    """Each point of the list of SECURITY.md names one."""
    text = (ROOT / "SECURITY.md").read_text("utf-8")
    part = text.partition("## What is guaranteed")[2].partition("\n## ")[0]
    points = part.split("\n- ")[1:]
    assert len(points) > 15
    assert [point for point in points if not _NAMED.search(point)] == []


def test_every_promise_names_a_test() -> None:
    """Each row of a table with the column "test" names one."""
    at = None
    for line in (ROOT / "docs/reliability.md").read_text("utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")] if line.startswith("|") else []
        if "test" in cells:
            at = cells.index("test")
        elif not cells:
            at = None
        elif at is not None and not set(line) <= set("|-: "):
            assert _NAMED.search(cells[at]), line

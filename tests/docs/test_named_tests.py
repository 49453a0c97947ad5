"""The tests that a page names as proof exist, and README.md lists every page."""

import ast
import re

from tests.test_docs import PAGES, ROOT

NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def test_the_tests_that_pages_name_exist() -> None:
    named = {match for page in PAGES for match in NAMED.findall(page.read_text(encoding="utf-8"))}
    assert len(named) >= 10
    for path, name in named:
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        assert name in functions, f"{path}::{name}"


def test_the_table_of_the_readme_lists_every_page() -> None:
    linked = set(re.findall(r"\]\((docs/[\w/]+\.md)", (ROOT / "README.md").read_text(encoding="utf-8")))
    pages = {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")}
    # A log of decisions; what docs/evaluation.md leads to.
    assert pages - linked <= {"docs/log.md", "docs/evaluation_data.md"}

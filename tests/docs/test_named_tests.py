"""The tests that a page names as proof exist."""

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

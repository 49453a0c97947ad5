import json
from pathlib import Path

import pytest

from hypvl.datasets.classification.folders import ImageFolderSet
from hypvl.embedding.encode import Encoding
from hypvl.errors import DataError
from hypvl.evaluation.hierarchical import HierarchicalClassification
from hypvl.evaluation.protocol import Evaluator
from tests.evaluation.contract import EvaluatorContract
from tests.evaluation.fakes import BLUE, GREEN, RED, FakeModel, FakeTokenizer, broken, image

TREE = {
    "color": {"parents": []},
    "warm": {"parents": ["color"]},
    "cold": {"parents": ["color"]},
    "red": {"parents": ["warm"]},
    "yellow": {"parents": ["warm"]},
    "green": {"parents": ["cold"]},
    "blue": {"parents": ["cold"]},
}


def evaluator(folder: Path, *, encoding: Encoding, bad: int = 0) -> HierarchicalClassification:
    """Three images named right; one green image labelled blue (two edges), one red labelled green (four)."""
    images = [("red", RED), ("green", GREEN), ("blue", BLUE), ("blue", GREEN), ("green", RED)]
    for i, (label, color) in enumerate(images):
        image(folder / "set" / label / f"{i}.png", color)
    for i in range(bad):
        broken(folder / "set" / "red" / f"x{i}.png")
    (folder / "set" / "yellow").mkdir(parents=True, exist_ok=True)
    tree = folder / "tree.json"
    tree.write_text(json.dumps(TREE))
    dataset = ImageFolderSet(folder / "set", prompts=["a {} thing"])
    return HierarchicalClassification(dataset, tree, encoding=encoding, tokenizer=FakeTokenizer())


class TestHierarchicalClassification(EvaluatorContract):
    evaluator_class = HierarchicalClassification

    def build(self, folder: Path, *, encoding: Encoding, bad: int) -> Evaluator:
        return evaluator(folder, encoding=encoding, bad=bad)


def test_values_by_hand(tmp_path: Path) -> None:
    result = evaluator(tmp_path, encoding=Encoding(num_workers=0))(FakeModel())
    assert result.metrics["tie"] == pytest.approx((0 + 0 + 0 + 2 + 4) / 5)
    assert result.metrics["tie_chance"] == pytest.approx((0 + 2 + 4 + 4) / 4)
    assert result.metrics["lca_error"] == pytest.approx((1 + 1 + 1 + 2 + 3) / 5)
    assert result.metrics["hierarchical_precision"] == pytest.approx((3 + 2 / 3 + 1 / 3) / 5)
    assert result.metrics["top1_accuracy"] == pytest.approx(60.0)
    assert sorted(result.items["tie"]) == [0, 0, 0, 2, 4]


def test_chance_is_measured_against_the_label_of_each_image(tmp_path: Path) -> None:
    evaluator(tmp_path, encoding=Encoding())
    lopsided = {**TREE, "blue": {"parents": ["navy"]}, "navy": {"parents": ["cold"]}}
    (tmp_path / "lopsided.json").write_text(json.dumps(lopsided))
    dataset = ImageFolderSet(tmp_path / "set", prompts=["a {} thing"])
    result = HierarchicalClassification(
        dataset, tmp_path / "lopsided.json", encoding=Encoding(num_workers=0), tokenizer=FakeTokenizer()
    )(FakeModel())
    # Edges from blue to blue, green, red, yellow: 0, 3, 5, 5; from green 0, 3, 4, 4; from red 0, 2, 4, 5.
    blue, green, red = 13 / 4, 11 / 4, 11 / 4
    assert result.metrics["tie_chance"] == pytest.approx((2 * blue + 2 * green + red) / 5)


def test_missing_class_and_broken_file_are_named(tmp_path: Path) -> None:
    evaluator(tmp_path, encoding=Encoding())
    dataset = ImageFolderSet(tmp_path / "set", prompts=["a {} thing"])
    small = tmp_path / "small.json"
    small.write_text(json.dumps({"red": {"parents": []}}))
    with pytest.raises(DataError, match="lacks the class 'blue'"):
        HierarchicalClassification(dataset, small)
    small.write_text(json.dumps({"red": [], "green": [], "blue": [], "yellow": []}))
    with pytest.raises(DataError, match="no path between the classes 'blue' and 'green'"):
        HierarchicalClassification(dataset, small)
    for nodes, message in (({"red": "red"}, "no entry for the class 'blue'"), (["red"], "got 1; expected 4")):
        with pytest.raises(DataError, match=message):
            HierarchicalClassification(dataset, tmp_path / "tree.json", nodes=nodes)


def test_wordnet_pairs_with_names_give_the_same(tmp_path: Path) -> None:
    by_name = evaluator(tmp_path, encoding=Encoding(num_workers=0))
    ids = {name: f"n{i:08d}" for i, name in enumerate(TREE)}
    pairs = [f"{ids[p]} {ids[node]}" for node, entry in TREE.items() for p in entry["parents"]]
    (tmp_path / "wordnet.is_a.txt").write_text("\n".join(pairs))
    (tmp_path / "words.txt").write_text("".join(f"{node}\t{name} (color)\n" for name, node in ids.items()))
    dataset = ImageFolderSet(tmp_path / "set", prompts=["a {} thing"])
    by_id = HierarchicalClassification(
        dataset,
        tmp_path / "wordnet.is_a.txt",
        nodes=[ids[name] for name in dataset.classes],
        words=tmp_path / "words.txt",
        encoding=Encoding(num_workers=0),
        tokenizer=FakeTokenizer(),
    )
    one, other = by_name(FakeModel()), by_id(FakeModel())
    assert one.metrics == other.metrics and one.items["tie"] == other.items["tie"]
    assert one.items["label_node"][0] == "blue"
    assert other.items["label_node"][0] == f"{ids['blue']} blue (color)"
    assert sorted(other.samples["tie"]) == [0, 0, 0, 2, 4]


def test_nodes_of_another_folder_are_an_error(tmp_path: Path) -> None:
    evaluator(tmp_path, encoding=Encoding())
    dataset = ImageFolderSet(tmp_path / "set", prompts=["a {} thing"])
    nodes = list(dataset.folders)
    assert HierarchicalClassification(dataset, tmp_path / "tree.json", nodes=nodes).nodes == nodes
    with pytest.raises(DataError, match=f"nodes: got {nodes[1]!r} for the class folder {nodes[0]!r}"):
        HierarchicalClassification(dataset, tmp_path / "tree.json", nodes=[nodes[1], nodes[0], *nodes[2:]])

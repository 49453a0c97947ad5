import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from hypvl.datasets.composition.choices import Choice
from hypvl.datasets.composition.vl_checklist import vl_checklist
from hypvl.embedding.encode import Encoding
from hypvl.errors import DataError, MissingDataError
from hypvl.evaluation.foil_accuracy import CaptionChoice
from tests.evaluation.fakes import FakeModel, FakeTokenizer
from tests.evaluation.miniatures.vl_checklist import FILES, make


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make(tmp_path)
    return tmp_path / "vlchecklist"


def test_first_texts_of_every_file_are_choices(root: Path) -> None:
    data = vl_checklist(root, images=root / "images")
    assert len(data.choices) == 8 and {choice.kind for choice in data.choices} == set(FILES)
    assert data.choices[0].kind == "Attribute/color/vaw"  # in the order of the places
    assert Choice(0, "green wall", ("red wall",), "Attribute/color/vaw") == data.choices[0]
    assert "hake/hico_20160224_det/images/test2015/HICO_test2015_00000001.jpg" in data.keys
    assert len(data.images) == 4 and all(data.images[i].shape == (3, 7, 9) for i in range(4))


def test_published_averages_by_hand(root: Path) -> None:
    data = vl_checklist(root, images=root / "images")
    encoding = Encoding(num_workers=0)
    metrics = CaptionChoice(data, main_metric="macro_accuracy", encoding=encoding, tokenizer=FakeTokenizer())(
        FakeModel()
    ).metrics
    # files: vg_obj 1 of 2, swig_agent 1 of 1, hake 1 of 1; color vg 2 of 2, vaw 0 of 1; relation 1 of 1
    assert metrics["accuracy_Object"] == pytest.approx((50 + 100 + 100) / 3)
    assert metrics["accuracy_Object/Location/center"] == pytest.approx((50 + 100) / 2)
    assert metrics["accuracy_Attribute"] == metrics["accuracy_Attribute/color"] == 50.0
    assert metrics["accuracy_Relation"] == metrics["accuracy_Relation/action/vg"] == 100.0
    assert metrics["macro_accuracy"] == pytest.approx((50 + 100 + 100 + 100 + 0 + 100) / 6)
    assert metrics["accuracy"] == pytest.approx(100 * 6 / 8)


def test_only_the_first_entries_of_each_file_are_read(root: Path) -> None:
    data = vl_checklist(root, images=root / "images", limit=1)
    assert len(data.choices) == len(FILES) and data.meta == {"limit": 1}
    assert len(vl_checklist(root, images=root / "images", limit=None).choices) == 8
    with pytest.raises(DataError, match="limit: got 0"):
        vl_checklist(root, limit=0)


def test_types_choose_by_place(root: Path) -> None:
    data = vl_checklist(root, images=root / "images", types=["Attribute/color", "Relation"])
    assert list(data.means) == [
        "accuracy_Attribute", "accuracy_Relation", "accuracy_Attribute/color", "accuracy_Relation/action",
        "macro_accuracy",
    ]  # fmt: skip
    with pytest.raises(DataError, match=r"types: got \['Attribute/col'\]; .* such as Attribute/color/vaw"):
        vl_checklist(root, types=["Attribute/col"])


def test_images_lie_where_the_yaml_says_unless_a_folder_is_given(root: Path) -> None:
    own = vl_checklist(root)
    assert own.images.ids == vl_checklist(root, images=root / "images").images.ids  # type: ignore[attr-defined]
    shutil.move(root / "images", root.parent / "elsewhere")
    with pytest.raises(MissingDataError, match=r"vaw\.json: its only image is not there"):
        vl_checklist(root)
    assert len(vl_checklist(root, images=root.parent / "elsewhere").choices) == 8


def test_missing_files_are_named(root: Path) -> None:
    with pytest.raises(MissingDataError, match=r"corpus/v1: holds no YAML files .*om-ai-lab/VL-CheckList"):
        vl_checklist(root / "nowhere")
    (root / "data" / "Attribute" / "color" / "vg.json").unlink()
    with pytest.raises(MissingDataError, match=r"color/vg\.json: is not there"):
        vl_checklist(root)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "vg.yaml: is not valid YAML"),
        ("- 3", "vg.yaml: has no text 'ANNO_PATH'"),
        ("{ANNO_PATH: a.json, IMG_ROOT: b, TYPE: OTHER}", "vg.yaml: has TYPE 'OTHER'; expected TUPLE_JSON"),
        ("{ANNO_PATH: data/Attribute/color/vg.json, TYPE: TUPLE_JSON}", "vg.yaml: has no text 'IMG_ROOT'"),
    ],
)
def test_a_broken_yaml_is_named(root: Path, text: str, message: str) -> None:
    (root / "corpus" / "v1" / "Attribute" / "color" / "vg.yaml").write_text(text)
    with pytest.raises(DataError, match=message.replace(".", r"\.")):
        vl_checklist(root)


@pytest.mark.parametrize(
    "entry",
    [["a.jpg"], ["a.jpg", {"POS": ["x"]}], ["a.jpg", {"POS": ["x"], "NEG": []}], [3, {}], {"POS": ["x"]}],
)
def test_a_broken_entry_is_named(root: Path, entry: Any) -> None:
    path = root / "data" / "Relation" / "action" / "vg.json"
    path.write_text(json.dumps([*FILES["Relation/action/vg"], entry]))
    with pytest.raises(DataError, match=r"action/vg\.json, entry 1: expected \[image, "):
        vl_checklist(root)


def test_an_unknown_source_needs_its_own_folder(root: Path) -> None:
    folder = root / "corpus" / "v1" / "Attribute" / "color"
    (folder / "vg.yaml").rename(folder / "other.yaml")
    with pytest.raises(
        DataError, match=r"other\.yaml: is of a source 'other'; expected one of vg, vaw, swig, hake"
    ):
        vl_checklist(root, images=root / "images")
    assert len(vl_checklist(root).choices) == 8


def test_an_empty_list_is_refused(root: Path) -> None:
    (root / "data" / "Attribute" / "color" / "vg.json").write_text("[]")
    with pytest.raises(DataError, match=r"vg\.json: expected a list of at least one entry"):
        vl_checklist(root)

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from hypvl.datasets.composition.choices import Choice, Choices
from hypvl.datasets.composition.valse import PIECES, valse
from hypvl.embedding.encode import Encoding
from hypvl.errors import DataError, MissingDataError
from hypvl.evaluation.foil_accuracy import CaptionChoice
from hypvl.evaluation.protocol import EvaluationResult
from tests.evaluation.fakes import FakeModel, FakeTokenizer
from tests.evaluation.miniatures.valse import SOURCES, WRONG, make


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make(tmp_path)
    return tmp_path


def read(root: Path, **settings: Any) -> Choices:
    return valse(
        root / "valse",
        coco=root / "coco",
        visual7w=root / "visual7w" / "images",
        swig=root / "swig" / "images_512",
        visdial=root / "visdial" / "VisualDialog_val2018",
        **settings,
    )


def measured(root: Path, **settings: Any) -> EvaluationResult:
    encoding = Encoding(num_workers=0)
    return CaptionChoice(
        read(root),
        main_metric="macro_accuracy",
        extra=["auroc", "threshold"],
        encoding=encoding,
        tokenizer=FakeTokenizer(),
        **settings,
    )(FakeModel())


def edit(root: Path, piece: str, **changes: Any) -> None:
    path = root / "valse" / "data" / f"{piece}.json"
    content = json.loads(path.read_text())
    first = next(iter(content))
    content[first] = {k: v for k, v in {**content[first], **changes}.items() if v is not None}
    path.write_text(json.dumps(content))


def test_only_entries_with_votes_count(root: Path) -> None:
    data = read(root)
    assert data.choices[0] == Choice(0, "A red thing.", ("A green thing.",), "existence")
    assert [choice.kind for choice in data.choices] == [piece for piece in PIECES for _ in range(2)]
    assert data.meta == {"min_votes": 2, "entries": dict.fromkeys(PIECES, 3)}
    assert len(read(root, min_votes=3).choices) == 11 and len(read(root, min_votes=0).choices) == 33


def test_every_image_is_found_in_the_folder_of_its_data_set(root: Path) -> None:
    data = read(root)
    result = {(choice.kind, Path(data.images.ids[choice.image])) for choice in data.choices}  # type: ignore[attr-defined]
    assert result == {(piece, root / folder / name) for piece, (_, folder, name, _, _) in SOURCES.items()}
    assert all(data.images[i].shape == (3, 7, 9) for i in range(len(data.images)))


def test_without_a_split_an_image_of_2017_is_looked_for_in_both_folders(root: Path) -> None:
    edit(root, "relations", original_split=None)
    data = read(root, pieces=["relations"])
    assert len(data.images) == 1
    edit(root, "relations", image_file="000000000009.jpg")
    data = read(root, pieces=["relations"])
    assert Path(data.images.ids[0]) == root / "coco" / "val2017" / "000000000009.jpg"  # type: ignore[attr-defined]


def test_published_averages_by_hand(root: Path) -> None:
    metrics = measured(root).metrics
    half, full = 50.0, 100.0
    assert {p: metrics[f"accuracy_{p}"] for p in PIECES} == {p: half if p in WRONG else full for p in PIECES}
    assert metrics["accuracy_counting"] == pytest.approx((half + full + full) / 3)
    assert (metrics["accuracy_actions"], metrics["accuracy_coreference"]) == (75.0, 75.0)
    assert metrics["macro_accuracy"] == pytest.approx((4 * half + 7 * full) / 11)


def test_detection_by_hand(root: Path) -> None:
    metrics = measured(root).metrics
    # To the fake model a true text scores 1 and a false one 0: in a piece of WRONG captions are 1, 0 and foils 0, 1.
    assert (metrics["auroc_existence"], metrics["auroc_foil-it"]) == (100.0, 50.0)
    assert metrics["auroc_counting"] == pytest.approx((50 + 100 + 100) / 3)
    assert metrics["macro_auroc"] == metrics["macro_acc"] == pytest.approx((4 * 50 + 7 * 100) / 11)
    assert (metrics["p_c_foil-it"], metrics["p_f_foil-it"], metrics["min_p_existence"]) == (50.0, 50.0, 100.0)


def test_some_pieces_have_their_own_averages_only(root: Path) -> None:
    data = read(root, pieces=["foil-it", "counting-hard"])
    assert data.means == {
        "accuracy_counting": ["counting-hard"],
        "macro_accuracy": ["foil-it", "counting-hard"],
    }
    with pytest.raises(DataError, match=r"pieces: got \['counting'\]; expected some of existence, "):
        read(root, pieces=["counting"])


def test_missing_files_are_named(root: Path) -> None:
    shutil.rmtree(root / "swig")
    with pytest.raises(MissingDataError, match=r"action-replacement\.json: its only image is not there"):
        read(root)
    assert len(read(root, pieces=["existence", "plurals"]).choices) == 4
    (root / "valse" / "data" / "plurals.json").unlink()
    with pytest.raises(
        MissingDataError, match=r"data: lacks plurals\.json .*VALSE\), or leave these out of pieces"
    ):
        read(root)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"foil": None}, "entry existence_0: has no text 'foil'"),
        ({"mturk": None}, r"entry existence_0: has no votes .* min_votes=0 to keep all"),
        ({"mturk": {"foil": 0}}, "entry existence_0, mturk: has no whole number 'caption'"),
        ({"image_file": None}, "entry existence_0: has no text 'image_file'"),
    ],
)
def test_broken_entries_are_named(root: Path, changes: dict[str, Any], message: str) -> None:
    edit(root, "existence", **changes)
    with pytest.raises(DataError, match=message):
        read(root)


def test_a_file_without_entries_that_count_is_named(root: Path) -> None:
    with pytest.raises(DataError, match=r"existence\.json: no entry has min_votes=4 votes"):
        read(root, min_votes=4)
    (root / "valse" / "data" / "existence.json").write_text("[]")
    with pytest.raises(DataError, match=r"existence\.json: expected an object of at least one entry"):
        read(root)

import json
from pathlib import Path

import pytest

from hypvl.datasets.composition.winogavil import winogavil
from hypvl.errors import DataError, MissingDataError
from tests.evaluation.miniatures.datacomp import make_winogavil


def test_cues_candidates_and_associations(tmp_path: Path) -> None:
    make_winogavil(tmp_path)
    data = winogavil(tmp_path)
    assert [one.caption for one in data.selections] == ["A red", "An indigo blue"]
    assert data.selections[0].right == (True, False, False, True, False)
    assert data.selections[1].images == (0, 1, 2, 3, 4) and data.selections[1].kind == "5"
    assert data.keys == ["rose", "sky", "leaf", "cherry", "grass"] and len(data.images) == 5
    assert winogavil(tmp_path, template="a photo of {}.").selections[0].caption == "a photo of red."


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    make_winogavil(tmp_path)
    with pytest.raises(ValueError, match="template: got 'a photo'"):
        winogavil(tmp_path, template="a photo")
    with pytest.raises(MissingDataError, match=r"none of its 5 images is there.*put winogavil_images"):
        winogavil(tmp_path, images=tmp_path)
    file = tmp_path / "winogavil_dataset.json"
    entry = {"cue": "red", "candidates": ["rose", "sky"], "associations": ["rose"]}
    for change, message in (
        ({"associations": ["moon"]}, "entry 0: associations: moon: not among the candidates"),
        ({"associations": []}, "entry 0: associations: got .*expected a list of different names"),
        ({"candidates": ["sky", "sky"]}, "entry 0: candidates: got .*expected a list of different names"),
        ({"cue": None}, "entry 0: has no text 'cue'"),
        ({"candidates": ["../rose", "rose"]}, "winogavil_dataset.json: "),
    ):
        file.write_text(json.dumps([entry | change]))
        with pytest.raises(DataError, match=message):
            winogavil(tmp_path)
    with pytest.raises(MissingDataError, match=r"winogavil_dataset\.json: is not there"):
        winogavil(tmp_path / "none")

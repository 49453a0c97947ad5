from pathlib import Path

import pytest

from hypvl.datasets.composition.choices import Paraphrase
from hypvl.datasets.composition.sugarcrepe_pp import KINDS, sugarcrepe_pp
from hypvl.errors import DataError, MissingDataError
from tests.evaluation.miniatures.compositionality import sugarcrepe_pp as make


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make(tmp_path)
    return tmp_path


def test_entries_by_kind(root: Path) -> None:
    data = sugarcrepe_pp(root / "sugarcrepe_pp", images=root / "coco" / "val2017")
    assert [one.kind for one in data.paraphrases] == list(KINDS)
    assert data.paraphrases[0] == Paraphrase(0, ("a red dog", "the dog is red"), "a green dog", "swap_object")
    assert data.keys == ["000000085329.jpg", "000000297343.jpg"]


def test_the_files_may_have_sugarcrepes_names_and_no_folder_data(root: Path) -> None:
    (root / "sugarcrepe_pp" / "data" / "swap_attribute.json").rename(root / "sugarcrepe_pp" / "swap_att.json")
    (root / "sugarcrepe_pp" / "data").rename(root / "old")
    data = sugarcrepe_pp(root / "sugarcrepe_pp", images=root / "coco" / "val2017", kinds=["swap_attribute"])
    assert len(data.paraphrases) == 1


def test_what_is_missing_or_wrong_is_named(root: Path) -> None:
    with pytest.raises(DataError, match=r"kinds: got \['swap'\]; expected some of swap_object, "):
        sugarcrepe_pp(root / "sugarcrepe_pp", images=root, kinds=["swap"])
    with pytest.raises(MissingDataError, match=r"none of its 2 images is there.*put COCO's val2017"):
        sugarcrepe_pp(root / "sugarcrepe_pp", images=root)
    path = root / "sugarcrepe_pp" / "data" / "swap_object.json"
    path.write_text('[{"filename": "a.jpg", "caption": "red"}]')
    with pytest.raises(DataError, match=r"swap_object\.json, entry 0: has no text 'caption2'"):
        sugarcrepe_pp(root / "sugarcrepe_pp", images=root)
    path.unlink()
    with pytest.raises(MissingDataError, match=r"lacks swap_object\.json or swap_obj\.json"):
        sugarcrepe_pp(root / "sugarcrepe_pp", images=root)

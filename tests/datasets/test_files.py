"""What readers share: checked fields, messages for missing images."""

from pathlib import Path

import pytest

from hypvl.datasets.files import integer_of, require_images, text_of
from hypvl.errors import DataError, MissingDataError
from tests.evaluation.fakes import RED, image as pil_image


def test_fields_are_checked_where_they_are_read() -> None:
    assert text_of({"a": "b"}, "a", "f.json, entry 1") == "b"
    assert integer_of({"x": 12.0}, "x", "f.json, entry 1") == 12
    with pytest.raises(DataError, match=r"f\.json, entry 1: has no text 'a'; got \{'a': 3\}"):
        text_of({"a": 3}, "a", "f.json, entry 1")
    for wrong in ({"x": 1.5}, {"x": "3"}, {"x": True}, {}):
        with pytest.raises(DataError, match="has no whole number 'x'"):
            integer_of(wrong, "x", "f.json, entry 1")


def test_images_are_missing_when_not_one_is_there(tmp_path: Path) -> None:
    here, missing = pil_image(tmp_path / "a.png", RED), tmp_path / "b.png"
    require_images([missing, here], source=tmp_path / "s.json", what="images of S")
    require_images([], source=tmp_path / "s.json", what="images of S")
    with pytest.raises(
        MissingDataError, match=r"s\.json: its only image is not there: .* put images of S there"
    ):
        require_images([missing], source=tmp_path / "s.json", what="images of S")

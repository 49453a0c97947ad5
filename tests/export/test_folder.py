"""A folder of an export is whole or not there, also after Ctrl-C at its worst moments."""

from pathlib import Path
from typing import Any

import pytest

from hypvl.errors import ConfigError, DataError
from hypvl.export.folder import new_folder


def test_what_was_written_gets_the_name(tmp_path: Path) -> None:
    with new_folder(tmp_path / "a" / "out") as draft:
        (draft / "x").write_text("1")
        assert not (tmp_path / "a" / "out").exists()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["out"]
    assert (tmp_path / "a" / "out" / "x").read_text() == "1"
    with (
        pytest.raises(ConfigError, match="out is a folder that holds something"),
        new_folder(tmp_path / "a" / "out"),
    ):
        raise AssertionError


def test_ctrl_c_while_it_is_written_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), new_folder(tmp_path / "out") as draft:
        (draft / "x").write_text("1")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_while_the_draft_is_made_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = Path.mkdir

    def interrupted(self: Path, *args: Any, **options: Any) -> None:
        make(self, *args, **options)
        if self.name.startswith(".out."):
            raise KeyboardInterrupt

    monkeypatch.setattr(Path, "mkdir", interrupted)
    with pytest.raises(KeyboardInterrupt), new_folder(tmp_path / "out"):
        raise AssertionError
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    message = r"out: cannot be made \(.*\); name another folder"
    with pytest.raises(DataError, match=message), new_folder(tmp_path / "file" / "out"):
        raise AssertionError

"""wiki_sections from the archive and from an unpacked file."""

from pathlib import Path

import pytest

from hypvl.datasets.text.triplets import wiki_sections
from hypvl.errors import DataError, MissingDataError
from tests.evaluation.miniatures import wikisections


def test_the_archive_and_the_unpacked_file_say_the_same(tmp_path: Path) -> None:
    wikisections.make(tmp_path)
    packed = wiki_sections(tmp_path / "wikisections")
    assert packed.anchor[0] == "A red house, with a door." and packed.anchor[2] == 'The "green" party.'
    assert packed.positive[1] == "A yellow beach." and packed.negative[3] == "So blue."
    (tmp_path / "test.csv").write_text(wikisections.HEADER + wikisections.ROWS)
    assert wiki_sections(tmp_path) == packed


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"neither wikipedia-sections-triplets\.zip nor test\.csv"):
        wiki_sections(tmp_path)
    file = tmp_path / "test.csv"
    file.write_text("Sentence1,Sentence2\na,b\n")
    with pytest.raises(DataError, match="has no column Sentence3"):
        wiki_sections(tmp_path)
    file.write_text(wikisections.HEADER)
    with pytest.raises(DataError, match="has no rows"):
        wiki_sections(tmp_path)
    file.write_text(wikisections.HEADER + "a,b\n")
    with pytest.raises(DataError, match="line 2: has no Sentence3"):
        wiki_sections(tmp_path)
    file.unlink()
    (tmp_path / "wikipedia-sections-triplets.zip").write_bytes(b"PK no archive")
    with pytest.raises(DataError, match="damaged"):
        wiki_sections(tmp_path)

"""Reader of triplets of sentences: sections of Wikipedia articles."""

import csv
import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hypvl.allowlist import configurable
from hypvl.checks import one_of
from hypvl.datasets.files import read_text
from hypvl.datasets.text.pairs import plain
from hypvl.errors import DataError, MissingDataError
from hypvl.io.archives import read_zip_member

_ARCHIVE = "wikipedia-sections-triplets.zip"
_COLUMNS = ("Sentence1", "Sentence2", "Sentence3")
_LARGEST = 1 << 31  # bytes of train.csv


@dataclass(frozen=True)
class SentenceTriplets:
    """Triplets of sentences, one a row."""

    name: str  # of the set, for messages
    anchor: Sequence[str]
    positive: Sequence[str]  # of the same section as the anchor
    negative: Sequence[str]  # of another section of the same article


@configurable("evaluate")
def wiki_sections(
    root: str | Path, *, split: Literal["train", "validation", "test"] = "test"
) -> SentenceTriplets:
    """Wikipedia sections: ``root/wikipedia-sections-triplets.zip`` with ``test.csv``, or ``root/test.csv``.

    The CSV has a header with ``Sentence1`` (anchor), ``Sentence2`` (positive) and ``Sentence3`` (negative); fields may
    be quoted.

    Raises:
        MissingDataError: when neither file is there.
        DataError: for another layout, or no rows.

    Source: Ein Dor et al. 2018, "Learning Thematic Similarity Metric Using Triplet Networks".
    """
    one_of("split", split, ("train", "validation", "test"))
    archive, file = Path(root) / _ARCHIVE, Path(root) / f"{split}.csv"
    if file.is_file():
        where, text = str(file), read_text(file)
    elif archive.is_file():
        where = f"{archive}, {split}.csv"
        text = _member(archive, f"{split}.csv")
    else:
        raise MissingDataError(
            f"{root}: has neither {_ARCHIVE} nor {split}.csv (looked in {Path.cwd()}); put the archive of "
            "sentence-transformers there."
        )
    columns: tuple[list[str], list[str], list[str]] = ([], [], [])
    table = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        if lacking := [name for name in _COLUMNS if name not in (table.fieldnames or ())]:
            raise DataError(f"{where}: has no column {', '.join(lacking)}; expected {', '.join(_COLUMNS)}.")
        for row in table:
            for name, column in zip(_COLUMNS, columns, strict=True):
                if row[name] is None:
                    raise DataError(f"{where}, line {table.line_num}: has no {name}; copy the file again.")
                column.append(plain(row[name]))
    except csv.Error as error:
        raise DataError(
            f"{where}, line {table.line_num}: is no CSV ({error}); copy the file again."
        ) from error
    if not columns[0]:
        raise DataError(f"{where}: has no rows; expected triplets.")
    return SentenceTriplets(f"Wiki sections {split}", *columns)


def _member(archive: Path, name: str) -> str:
    try:
        return read_zip_member(archive, name, max_bytes=_LARGEST).decode("utf-8-sig")
    except KeyError as error:
        raise DataError(f"{archive}: has no {name}; download it again.") from error
    except (UnicodeDecodeError, OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{archive}: {name} cannot be read ({error}); download it again.") from error

"""What a user gives to a command: a folder of images, TARs, files of texts."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypvl.checks import one_of
from hypvl.data.tokenizer import is_blank
from hypvl.datasets.files import images_below, open_table, read_text, text_lines
from hypvl.datasets.images import IMAGE_EXTENSIONS, TarMembers
from hypvl.errors import DataError, MissingDataError
from hypvl.io.json_text import parse_json
from hypvl.io.table_text import TABLE_SUFFIXES, Quoting


@dataclass(frozen=True)
class Texts:
    """At least one text, and an id for each."""

    texts: Sequence[str]
    ids: Sequence[str]

    def __len__(self) -> int:
        return len(self.texts)


def image_paths(folder: str | Path) -> list[Path]:
    """The image files anywhere below a folder, in sorted order; raises MissingDataError when there are none."""
    folder = Path(folder)
    if not folder.is_dir():
        raise MissingDataError(f"{folder}: is not a folder; expected one with images.")
    paths = images_below(folder)
    if not paths:
        raise MissingDataError(
            f"{folder}: holds no images; expected files that end in {', '.join(IMAGE_EXTENSIONS)}."
        )
    return paths


def text_file(
    path: str | Path,
    *,
    text_key: str = "caption",
    id_key: str | None = None,
    separator: str | None = None,
    quoting: Quoting = "minimal",
) -> Texts:
    """The texts of a file: a table (``.csv``, ``.tsv``, ``.jsonl``, a JSON list of objects), or ``.txt``, one a line.

    Blank lines and blank texts are left out.

    Args:
        path: The file, UTF-8.
        text_key: Key, or column, of the text; not used for ``.txt``.
        id_key: Key of the id; None = ``<file name>:<line>``.
        separator: Of a table, see :class:`hypvl.io.table_text.TableText`, as ``quoting``.

    Raises:
        MissingDataError: when the file is not there.
        DataError: naming the line that cannot be used.
    """
    one_of("quoting", quoting, Quoting)
    path = Path(path)
    suffixes = (*TABLE_SUFFIXES, ".json", ".txt")
    if path.suffix.lower() not in suffixes:
        raise DataError(f"{path}: ends in {path.suffix!r}; expected one of {', '.join(sorted(suffixes))}.")
    rows: Iterable[tuple[str, Mapping[str, Any]]]
    if path.suffix.lower() == ".txt":
        lines = text_lines(read_text(path))
        rows = ((f"line {number}", {text_key: line}) for number, line in enumerate(lines, start=1))
    else:
        rows = open_table(path, separator=separator, quoting=quoting).usable_rows()
    texts: list[str] = []
    ids: list[str] = []
    keys = [text_key] if id_key is None else [text_key, id_key]
    for place, row in rows:
        missing = [key for key in keys if not isinstance(row.get(key), str | int | float)]
        if missing:
            raise DataError(
                f"{path}, {place}: has no text under {missing[0]!r}; its keys are {', '.join(map(str, row))}."
            )
        text = str(row[text_key])
        if not is_blank(text):
            texts.append(text.strip())
            ids.append(f"{path.name}:{place.split()[1]}" if id_key is None else str(row[id_key]))
    if not texts:
        raise DataError(f"{path}: holds no texts; expected at least one.")
    return Texts(texts, ids)


def tar_texts(place: str, *, member: str) -> Texts:
    """The texts in a TAR.

    Args:
        place: File or http(s) address.
        member: Extension of the member that is the text, ``txt``, or of a JSON object and its key, ``json.caption``.

    Raises:
        DataError: naming the sample that has no such text.
    """
    members = TarMembers([place])
    extension, _, key = member.partition(".")
    texts: list[str] = []
    for i in range(len(members)):
        try:
            content = members.read(i, extension).decode("utf-8")
            text: Any = parse_json(content)[key] if key else content
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{members.key(i)}: has no text at {member} ({error!r}).") from error
        if not isinstance(text, str):
            raise DataError(f"{members.key(i)}: {member} is a {type(text).__name__}; expected a text.")
        texts.append(text.strip())
    return Texts(texts, members.ids)

"""What readers share: folders, text and JSON files, tables, the places of images, messages for what is missing."""

import io
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

from hypvl.checks import none_of, one_of, setting
from hypvl.datasets.images import IMAGE_EXTENSIONS
from hypvl.errors import DataError, MissingDataError
from hypvl.io.files import is_file, path_below, read_regular
from hypvl.io.json_text import parse_json
from hypvl.io.table_text import MAX_FIELD_LINES, Quoting, TableText

TextEncoding: TypeAlias = Literal["utf-8", "latin-1"]
_LARGEST_FILE = 1 << 32  # bytes of a text or JSON file


def require_folder(folder: Path, layout: str) -> None:
    """Raise MissingDataError, saying what to do, unless ``folder`` is there."""
    if not folder.is_dir():
        raise MissingDataError(
            f"{folder}: is not there (looked in {Path.cwd()}); put {layout} there, or give the folder by "
            f"{_folder_setting()}."
        )


def require_files(paths: Sequence[Path], remedy: str) -> None:
    """Raise MissingDataError, saying what to do, unless all files of one folder are there."""
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        alone = len(paths) == 1
        what = f"{paths[0]}: is not there" if alone else f"{paths[0].parent}: lacks {', '.join(missing)}"
        raise MissingDataError(f"{what} (looked in {Path.cwd()}); {remedy}.")


def read_lines(path: Path) -> list[str]:
    """Lines of a text file that are not empty, stripped."""
    return [line.strip() for line in text_lines(read_text(path)) if line.strip()]


def text_lines(text: str) -> list[str]:
    """Lines as files have them, ended by LF, CR LF or CR; ``str.splitlines`` would also cut at U+2028 and the like."""
    return io.StringIO(text, newline=None).read().split("\n")


def read_text(path: Path, *, encoding: TextEncoding = "utf-8") -> str:
    """A text file. Latin-1 is never refused: every byte is one of its characters.

    Raises:
        MissingDataError: when it is not there.
        DataError: when it cannot be read.
        ValueError: for another encoding.
    """
    one_of("encoding", encoding, TextEncoding)
    try:
        data = read_regular(path, max_bytes=_LARGEST_FILE)
        if encoding == "latin-1":
            return data.decode("latin-1")
        if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise DataError(f"{path}: is UTF-16; expected UTF-8: iconv -f UTF-16 -t UTF-8 OLD > NEW.")
        return data.decode("utf-8-sig")
    except FileNotFoundError as error:
        raise MissingDataError(
            f"{path}: is not there; see hypvl docs evaluation for the layout of the set."
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"{path}: cannot be read as UTF-8 text ({reason}).") from error


def read_json(path: Path, advice: str = "") -> Any:
    """A JSON file; raises as :func:`read_text`, and DataError, which ends with ``advice``, for broken JSON."""
    try:
        return parse_json(read_text(path))
    except ValueError as error:
        raise DataError(f"{path}: is not valid JSON ({error}){advice and f'; {advice}'}.") from error


def class_folders(root: Path) -> list[str]:
    """Names of the folders in ``root``, sorted; without hidden ones and those of archives made on a Mac."""
    return sorted(path.name for path in root.iterdir() if path.is_dir() and not _left_behind(path.name))


def images_below(folder: Path) -> list[Path]:
    """Image files anywhere below a folder, in sorted order; links are followed, what is hidden is left out."""
    images: list[Path] = []
    seen: set[str] = set()
    for where, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(where)
        if real in seen:  # a link to a folder above
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not _left_behind(name))
        images += [
            Path(where, name)
            for name in files
            if name.rpartition(".")[2].lower() in IMAGE_EXTENSIONS and not _left_behind(name)
        ]
    return sorted(images)


def _left_behind(name: str) -> bool:
    """Whether an operating system or an editor made it: ``.ipynb_checkpoints``, ``._1.png``, ``__MACOSX``."""
    return name.startswith(".") or name == "__MACOSX"


def open_table(
    path: Path,
    *,
    separator: str | None = None,
    quoting: Quoting = "minimal",
    max_field_lines: int = MAX_FIELD_LINES,
) -> TableText:
    """Open a table; raises MissingDataError when it is not there."""
    if not path.exists():
        raise MissingDataError(f"{path}: is not there; see hypvl docs evaluation for the layout of the set.")
    return TableText(path, separator=separator, quoting=quoting, max_field_lines=max_field_lines)


def image_place(source: Path, root: str | Path | None, name: str) -> Path:
    """The path of an image that a file names.

    Args:
        source: The file.
        root: Folder that it may not leave; None: it starts from the folder of the file, and may lead anywhere.
        name: The path.

    Raises:
        DataError: for one outside ``root``.
    """
    if root is None:
        return source.parent / name
    try:
        return path_below(Path(root), name)
    except ValueError as error:
        raise DataError(f"{source}: {error}.") from error


def require_images(paths: Iterable[Path], *, source: Path, what: str = "its images") -> None:
    """Raise MissingDataError, saying what to do, unless at least one of the images is there.

    Args:
        paths: All images that ``source`` names; none is fine.
        source: The file, for the message.
        what: Which images these are and where they come from.
    """
    paths = list(paths)
    if paths and not any(is_file(path) for path in paths):
        raise MissingDataError(
            f"{source}: {none_of(len(paths), 'image', 'is there, such as', 'is not there:')} {paths[0]}; "
            f"put {what} there, or give the folder by {_folder_setting()}."
        )


def _folder_setting() -> str:
    """How the user gives another folder: by flags where the command has them (hypvl.cli.captioned_data)."""
    flag = setting("images_root", key="an override")
    return f"--data NAME:FOLDER, or for a table by {flag}" if flag.startswith("--") else flag


def read_entries(path: Path, kind: type[list] | type[dict]) -> list[tuple[str, Any]]:
    """(place, entry) of each entry of a JSON file that is a list, or an object of entries by their names.

    Raises:
        MissingDataError: when the file is not there.
        DataError: when it has another layout, or no entries.
    """
    content = read_json(path)
    if not isinstance(content, kind) or not content:
        article = "a list" if kind is list else "an object"
        raise DataError(f"{path}: expected {article} of at least one entry; got {str(content)[:80]}")
    entries = content.items() if isinstance(content, dict) else enumerate(content)
    return [(f"{path}, entry {key}", entry) for key, entry in entries]


def text_of(entry: Any, name: str, where: str) -> str:
    """A text of an entry; raises DataError naming the place when the entry does not have it."""
    value = entry.get(name) if isinstance(entry, Mapping) else None
    if not isinstance(value, str):
        raise DataError(f"{where}: has no text {name!r}; got {str(entry)[:120]}")
    return value


def integer_of(entry: Mapping[str, Any], name: str, where: str) -> int:
    """A whole number of an entry, which the file may write as 12.0; raises as :func:`text_of`."""
    value = entry.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1:
        raise DataError(f"{where}: has no whole number {name!r}; got {value!r}.")
    return int(value)

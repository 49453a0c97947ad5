"""Images inside ZIP files, read in place: nothing is unpacked, so no member can write anywhere."""

import os
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from hypvl.checks import none_of
from hypvl.datasets.files import require_files
from hypvl.datasets.images import read_image
from hypvl.errors import DataError, MissingDataError
from hypvl.io.files import is_file
from hypvl.io.images import ImageError, decode_image

_LARGEST = 1 << 28  # bytes of one image; an archive with more may be a trap
# RuntimeError: encrypted; NotImplementedError, which is one: an unknown compression.
_UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError)


class ZipReader:
    """One ZIP file. Each process opens it for itself, so that workers do not share a position in it.

    Raises:
        MissingDataError: when it is not there.
        DataError: when it is not a ZIP file, or is cut off.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._opened: tuple[int, zipfile.ZipFile] | None = None
        self.names = frozenset(self._file().namelist())

    def read(self, name: str) -> bytes:
        """A member, its CRC-32 compared.

        Raises:
            DataError: naming the member, when it is not there, damaged, encrypted or larger than 256 MiB.
        """
        try:
            file = self._file()
            if file.getinfo(name).file_size > _LARGEST:
                raise DataError(f"{self.path}::{name}: has more than {_LARGEST} bytes; expected an image.")
            return file.read(name)
        except KeyError as error:
            raise DataError(f"{self.path}::{name}: is not in the ZIP file.") from error
        except _UNREADABLE as error:
            raise DataError(f"{self.path}::{name}: cannot be read ({error}).") from error

    def _file(self) -> zipfile.ZipFile:
        if self._opened is None or self._opened[0] != os.getpid():
            require_files([self.path], "put the set's ZIP file there, packed")
            try:
                self._opened = (os.getpid(), zipfile.ZipFile(self.path))
            except (zipfile.BadZipFile, OSError) as error:
                raise DataError(
                    f"{self.path}: cannot be read as a ZIP file ({error}); get it again."
                ) from error
        return self._opened[1]

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "names": self.names, "_opened": None}  # files stay with their process


class ZipImages:
    """Images in ZIP files and beside them, by the words of an index file: ``train.zip@path/in/zip.jpg``, or a path.

    Args:
        folder: Where the files lie.
        index: The index file, for messages.
        places: Its word for each image.

    Raises:
        MissingDataError: when none of the images is there.
        DataError: for a place outside the folder.
    """

    def __init__(self, folder: Path, index: Path, places: Sequence[str]) -> None:
        self._folder = folder
        self._places = list(places)
        self._zips: dict[str, ZipReader] = {}
        for archive, at in dict.fromkeys(place.partition("@")[:2] for place in places):
            if Path(archive).is_absolute() or ".." in Path(archive).parts:
                raise DataError(f"{index}: names {archive!r}, outside its folder; expected a file beside it.")
            if at:
                self._zips[archive] = ZipReader(_find(folder, archive))
        if not any(self._exists(place) for place in places):
            raise MissingDataError(
                f"{index}: {none_of(len(places), 'image', 'is there, such as', 'is not there:')} {places[0]}; "
                f"put the ZIP files of the set into {folder}."
            )

    @property
    def ids(self) -> list[str]:
        """Where each image is: ``<ZIP file>::<member>``, or a file."""
        parts = (place.partition("@") for place in self._places)
        return [
            f"{self._zips[archive].path}::{member}" if at else str(self._folder / archive)
            for archive, at, member in parts
        ]

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Tensor:
        """uint8 (3, h, w); raises DataError naming the image."""
        archive, at, member = self._places[index].partition("@")
        if not at:
            return read_image(self._folder / archive)
        reader = self._zips[archive]
        content = reader.read(member)
        try:
            return decode_image(content)
        except ImageError as error:
            raise DataError(f"{reader.path}::{member}: {error}.") from error

    def _exists(self, place: str) -> bool:
        archive, at, member = place.partition("@")
        return member in self._zips[archive].names if at else is_file(self._folder / archive)


def _find(folder: Path, archive: str) -> Path:
    """The ZIP file, also where its case differs."""
    exact = folder / archive
    if exact.is_file():
        return exact
    same = [path for path in folder.glob("*") if path.name.lower() == archive.lower()]
    return same[0] if len(same) == 1 else exact

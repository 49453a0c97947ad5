"""Images inside ZIP files, read in place: nothing is unpacked, so no member can write anywhere."""

import os
import zipfile
import zlib
from pathlib import Path
from typing import Any

from hypvl.errors import DataError, MissingDataError

_LARGEST = 1 << 28  # bytes of one image; more is a trap


class ZipReader:
    """One ZIP file. Each process opens it for itself, so that workers do not share a position in it.

    Args:
        path: The file.

    Raises:
        MissingDataError: when it is not there.
        DataError: when it is no ZIP file, or is cut off.
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
        # RuntimeError: encrypted; NotImplementedError: an unknown compression.
        except (
            zipfile.BadZipFile,
            zlib.error,
            EOFError,
            OSError,
            RuntimeError,
            NotImplementedError,
        ) as error:
            raise DataError(f"{self.path}::{name}: cannot be read ({error}).") from error

    def _file(self) -> zipfile.ZipFile:
        if self._opened is None or self._opened[0] != os.getpid():
            try:
                self._opened = (os.getpid(), zipfile.ZipFile(self.path))
            except FileNotFoundError as error:
                raise MissingDataError(
                    f"{self.path}: is not there; put the set's ZIP file there, packed."
                ) from error
            except (zipfile.BadZipFile, OSError) as error:
                raise DataError(
                    f"{self.path}: cannot be read as a ZIP file ({error}); get it again."
                ) from error
        return self._opened[1]

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "names": self.names, "_opened": None}  # files stay with their process

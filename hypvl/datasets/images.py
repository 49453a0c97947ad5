"""Images of evaluation sets by position: from files, and from TARs."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from hypvl.data.shards import shard_index
from hypvl.data.storage import FileHandles, LocalFile, Source, open_source
from hypvl.data.tar_index import MemberError, TarIndex, build_index, in_blocks, read_members
from hypvl.errors import DataError
from hypvl.io.images import ImageError, decode_image, read_image_file
from hypvl.io.tar import Read

_READ_AHEAD = 1 << 20  # bytes read together from a server
IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff", "ppm", "pgm")


def read_image(path: Path) -> Tensor:
    """An image file as uint8 (3, h, w).

    Raises:
        DataError: naming the file, when it is missing or no image.
    """
    try:
        return read_image_file(path)
    except ImageError as error:
        raise DataError(f"{path}: {error}.") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from error


class ImagesByStem:
    """The images of a folder, found by their names without extension.

    Args:
        folder: It is not searched below.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._found: dict[str, list[Path]] = {}
        for path in sorted(folder.iterdir()):
            if path.suffix.lower().lstrip(".") in IMAGE_EXTENSIONS and path.name[0] != ".":
                self._found.setdefault(path.stem, []).append(path)

    def get(self, stem: str) -> Path | None:
        """The image, None when there is none.

        Raises:
            DataError: when there are two of this name.
        """
        found = self._found.get(stem, [])
        if len(found) > 1:
            raise DataError(
                f"{self._folder}: has {' and '.join(path.name for path in found)} for {stem!r}; expected one image."
            )
        return found[0] if found else None


class FileImages:
    """Images in files, read when asked for.

    Args:
        paths: Of each image.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = list(paths)

    @property
    def ids(self) -> list[str]:
        """Where each image is."""
        return [str(path) for path in self.paths]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        """uint8 (3, h, w); raises DataError naming the file."""
        return read_image(self.paths[index])


class TarMembers:
    """Samples of some TARs in order, each a key and members by extension, read at their place.

    Args:
        paths: The TARs: files, or http(s) addresses (read by range requests, downloaded once into the user's
            cache where the server has none).

    Raises:
        DataError: for a file that is no TAR, or is cut off: a part of a test set is another test set.
    """

    def __init__(self, paths: Sequence[Path | str]) -> None:
        handles = FileHandles()
        self._sources: list[Source] = []
        self._reads: list[Read] = []
        self._where: list[tuple[int, int]] = []  # (TAR, sample in it)
        self._indexes: list[TarIndex] = []
        for number, path in enumerate(paths):
            try:
                source = open_source(str(path), handles)
                read: Read = source.read
                if isinstance(source, LocalFile):
                    index = build_index(in_blocks(read, source.block), source.size(), source.place)
                else:
                    index = shard_index(source)
                    read = in_blocks(read, _READ_AHEAD)  # samples are asked for in order
            except OSError as error:
                raise DataError(f"{path}: cannot be read ({error.strerror}).") from error
            if index.damage is not None:
                raise DataError(f"{source.place}: {index.damage}; download it again.")
            self._sources.append(source)
            self._reads.append(read)
            self._indexes.append(index)
            self._where += [(number, sample) for sample in range(len(index))]

    def __len__(self) -> int:
        return len(self._where)

    def key(self, i: int) -> str:
        """``<name of the TAR>/<key in it>``."""
        tar, sample = self._where[i]
        return f"{self._sources[tar].name}/{self._indexes[tar].key(sample)}"

    def id(self, i: int) -> str:
        """Where the sample is: ``<path of the TAR>::<key in it>``."""
        tar, sample = self._where[i]
        return f"{self._sources[tar].place}::{self._indexes[tar].key(sample)}"

    def extensions(self, i: int) -> list[str]:
        """Extensions of the members of sample i, in the order of the TAR."""
        tar, sample = self._where[i]
        return [extension for extension, _, _ in self._indexes[tar].members(sample)]

    def read(self, i: int, extension: str) -> bytes:
        """Content of one member.

        Raises:
            DataError: when the sample has no such member.
        """
        tar, sample = self._where[i]
        try:
            found = read_members(self._reads[tar], self._indexes[tar], sample, {extension})
        except (OSError, MemberError) as error:
            raise DataError(f"{self.key(i)}: cannot be read ({error}).") from error
        if extension in found:
            return found[extension]
        raise DataError(f"{self.key(i)}: has no .{extension} member; found {', '.join(self.extensions(i))}.")

    def image(self, i: int) -> Tensor:
        """The image of sample i, uint8 (3, h, w); raises DataError naming the sample."""
        extension = next((e for e in self.extensions(i) if e in IMAGE_EXTENSIONS), None)
        if extension is None:
            raise DataError(f"{self.key(i)}: has no image; found {', '.join(self.extensions(i))}.")
        try:
            return decode_image(self.read(i, extension))
        except ImageError as error:
            raise DataError(f"{self.key(i)}: {error}.") from error

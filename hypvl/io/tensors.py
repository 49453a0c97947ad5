"""Files of tensors: written whole or not at all, and a full disk is an OSError that names the file."""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from hypvl.io.files import replacing, write_atomically
from hypvl.io.json_text import parse_json
from hypvl.io.zip_checksum import ChecksumWriter

if TYPE_CHECKING:
    from torch import Tensor

_OS_ERROR = re.compile(r"\(os error (\d+)\)")


def write_torch(path: Path, state: Mapping[str, Any]) -> None:
    """``torch.save`` to a file that appears whole or not at all, with an OSError that says why it does not.

    The file has a checksum of its bytes, which :func:`hypvl.io.archives.zip_damage` compares.
    """
    write_atomically(path, lambda file: _save(state, file))


def write_safetensors(path: Path, tensors: Mapping[str, "Tensor"], *, metadata: Mapping[str, Any]) -> None:
    """A safetensors file of contiguous tensors that appears whole or not at all, in a folder that exists.

    ``metadata`` is kept as texts; text that is not valid Unicode, as in file names, is escaped. The same tensors and
    metadata give the same bytes.

    Raises:
        OSError: when it cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    texts = {key: str(value).encode("utf-8", "backslashreplace").decode() for key, value in metadata.items()}
    try:
        with replacing(path) as part:
            save_file(dict(tensors), part, metadata=texts)
            _sort_metadata(part)
    except SafetensorError as error:  # how its writer reports errors of the system
        number = _OS_ERROR.search(str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error


def _sort_metadata(path: Path) -> None:
    """Put the metadata of a file in the order of its keys: the library writes it in another one every time."""
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = parse_json(file.read(size))
        header["__metadata__"] = dict(sorted(header.get("__metadata__", {}).items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) > size:
            raise ValueError(
                f"{path}: its header takes {len(text)} bytes sorted, and {size} as it was written."
            )
        file.seek(8)
        file.write(text.ljust(size))  # with spaces, as the library does


def _save(state: Mapping[str, Any], file: BinaryIO) -> None:
    import torch

    writer = ChecksumWriter(file)
    try:
        torch.save(state, writer)  # type: ignore[arg-type]  # it needs write and flush
    except Exception:
        if writer.error is not None:
            raise writer.error from None
        raise
    writer.finish()

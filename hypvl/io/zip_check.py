"""Whether a ZIP archive still holds what was written into it."""

import errno
import struct
import zipfile
import zlib
from pathlib import Path

_DIRECTORY = 0x10  # MS-DOS attribute of a directory


def zip_damage(path: Path) -> str | None:
    """What is wrong with an archive, or None: every member is read and compared with its CRC-32.

    A file written by ``torch.save`` is such an archive. Its CRCs were computed from memory while it was written, so
    they need no file beside it, travel with copies and are in files of earlier versions, too; ``torch.load`` does
    not look at them. A CRC-32 finds every change of up to 32 neighbouring bits.

    Args:
        path: The file.

    Returns:
        A few words, e.g. "data/3 was changed after it was written", or None for a whole archive.

    Raises:
        OSError: when it cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if member.is_dir() or member.external_attr & _DIRECTORY:
                    return f"{member.filename} should be a file"
            changed = archive.testzip()
    except (
        zipfile.BadZipFile,
        RuntimeError,
        EOFError,
        ValueError,
        OverflowError,
        struct.error,
        zlib.error,
    ) as error:
        return f"no whole ZIP archive: {error}"
    except OSError as error:
        if error.errno != errno.EINVAL:  # a place that no file has, in a damaged table of contents
            raise
        return "no whole ZIP archive: its table of contents is damaged"
    return (
        None
        if changed is None
        else f"{changed.partition('/')[2] or changed} was changed after it was written"
    )

"""A folder of results that is there whole or not at all."""

import contextlib
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from hypvl.errors import ConfigError, DataError


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A draft beside ``folder`` to write into, which gets its name when the block ends without an error.

    Raises:
        ConfigError: when the folder is there and holds something.
        DataError: when it cannot be made.
    """
    check_new(folder)
    # Named before it is made: Ctrl-C while it is made leaves none behind.
    draft = folder.parent / f".{folder.name}.{secrets.token_hex(4)}"
    try:
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            draft.mkdir(mode=0o700)
        except OSError as error:
            raise DataError(f"{folder}: cannot be made ({error.strerror}); name another folder.") from error
        yield draft
        draft.chmod(0o755)
        if folder.is_dir():
            folder.rmdir()
        draft.replace(folder)
    except OSError as error:
        raise DataError(
            f"{folder}: cannot be written to ({error.strerror or error}); name another folder."
        ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def check_new(folder: Path) -> None:
    """ConfigError for a folder that holds something, or a file of that name."""
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if folder.exists():
        what = "a folder that holds something" if folder.is_dir() else "a file"
        raise ConfigError(f"--output: {folder} is {what}; expected a new or an empty folder.")

"""Files that are written whole or not at all, and locks between processes."""

import contextlib
import errno
import fcntl
import functools
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeAlias, cast

from hypvl.checks import one_of
from hypvl.errors import DataError

DigestKind: TypeAlias = Literal["md5", "sha256"]
#: Bytes of a file of records (JSON, lines) that is read at once.
LARGEST_RECORD = 1 << 30
_held: set[int] = set()  # open lock files of this process
_KINDS = (
    (stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISCHR, "a device"), (stat.S_ISBLK, "a device"),
)  # fmt: skip


def write_atomically(path: Path, content: str | bytes | Callable[[BinaryIO], None]) -> None:
    """Give ``path`` this content, whole or not at all: written beside it, brought to disk, renamed.

    A file that could not be completed is removed again; a symbolic link beside ``path`` is not followed. The folder
    must exist. ``content`` is text (written as UTF-8), bytes, or a function that writes into the open file.

    Raises:
        OSError: when it cannot be written; what was at ``path`` is still there.
    """
    with replacing(path) as part, open_new(part) as file:
        if callable(content):
            content(file)
        else:
            file.write(content.encode("utf-8") if isinstance(content, str) else content)


def write_output(
    path: Path, content: str | bytes | Callable[[BinaryIO], None], *, flag: str | None = None
) -> None:
    """:func:`write_atomically` for results: makes the folder, and says in one sentence why it failed.

    Raises:
        DataError: it cannot be written; it names the ``flag`` that named the file or its folder, such as ``--output``.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
    except OSError as error:
        place, advice = (f"{path}:", "folder") if flag is None else (f"{flag}: {path}", "place")
        reason = error.strerror or error
        raise DataError(f"{place} cannot be written ({reason}); name another {advice}.") from error


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A new name beside ``path`` to write to: the file there replaces ``path`` when the block ends without an error.

    The file is brought to disk first. After an error it is removed, and what was at ``path`` is still there.

    Raises:
        OSError: when it cannot be written; one without a file name receives ``path``.
    """
    # Not known before: nobody can put a link there, and processes on several machines do not meet.
    part = path.with_name(f".{path.name}.{int.from_bytes(os.urandom(6))}.part")
    try:
        yield part
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            part.unlink()
        if isinstance(error, OSError) and error.filename is None and error.errno is not None:
            error.filename = str(path)  # a write does not know where it writes to
        raise
    sync_folder(path.parent)


def is_file(path: Path) -> bool:
    """Whether there is a file; False, too, for what cannot be the path of one: too long, or with a null character."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading, links followed.

    Raises:
        OSError: when it cannot be read, or is a folder, a device or a pipe, which may have no end or never answer.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError as error:
        raise OSError(errno.EINVAL, str(error), str(path)) from error  # a null character, or half of one
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):
        os.close(handle)
        what = next((name for test, name in _KINDS if test(mode)), "something else")
        raise OSError(errno.EINVAL, f"not a regular file but {what}", str(path))
    return os.fdopen(handle, "rb")


def read_regular(path: Path, *, max_bytes: int = LARGEST_RECORD) -> bytes:
    """The content of a regular file; OSError as :func:`open_regular`, and when it has more than ``max_bytes``."""
    with open_regular(path) as file:
        status = os.fstat(file.fileno())
        data = file.read() if status.st_size <= max_bytes else None
    if data is None or len(data) > max_bytes:
        raise OSError(errno.EFBIG, f"more than {max_bytes} bytes", str(path))
    return data


def file_digest(path: Path, kind: DigestKind) -> str:
    """Hex digest of a file's content. Raises OSError."""
    one_of("kind", kind, DigestKind)
    with open_regular(path) as file:
        return hashlib.file_digest(cast(Any, file), kind).hexdigest()


def path_below(root: Path, name: str) -> Path:
    """``root / name``; ValueError if it leaves ``root`` by ``..`` or as an absolute path. Links are not looked at."""
    path = root / name
    if ".." in name or path == Path(name):
        inside, whole = (Path(os.path.normpath(place.absolute())) for place in (root, path))
        if inside not in whole.parents:
            raise ValueError(f"{name!r} is outside images_root {root}; name a folder that holds it, or none")
    return path


def open_new(path: Path) -> BinaryIO:
    """A new file to write to; one that is there, or a symbolic link, is an error (FileExistsError)."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.fdopen(os.open(path, flags, 0o666), "wb")


@contextlib.contextmanager
def exclusive_lock(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold a lock file while the block runs; the system frees it when the process ends, however it ends.

    Processes forked inside the block (data workers) do not hold it, so that none that lives on, or is stopped, keeps it
    from the next run. It is made if needed and stays. A symbolic link there is refused.

    Raises:
        BlockingIOError: when another process holds it and ``wait`` is False.
        OSError: when the lock file cannot be opened.
    """
    _close_in_forked_processes()
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    _held.add(handle)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        if handle in _held:  # else this is a forked process
            _held.remove(handle)
            os.close(handle)


@functools.cache
def _close_in_forked_processes() -> None:
    def close() -> None:
        while _held:
            os.close(_held.pop())

    os.register_at_fork(after_in_child=close)


def sync_folder(folder: Path) -> None:
    """Bring a rename to disk, where the file system can."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

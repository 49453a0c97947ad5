"""Runs cases of damaged input: no crash, no hang, no write outside the allowed folders, memory bounded.

A case makes its input in a sandbox and gives it to a real reader. What may happen: good samples, counted bad samples,
or a :class:`hypvl.errors.UserError`. Everything else fails the case: another exception, a signal, more time than
``SECONDS``, a file that appears or changes where nothing may be written.
"""

import contextlib
import dataclasses
import hashlib
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from hypvl.errors import UserError

#: Seconds of the processor that one case may take (a 10 MB caption and an image of 80 megapixels included); by the
#: clock it may take :data:`WAITED` times as long, on a machine with other work.
SECONDS = 20.0
WAITED = 6
#: Where attacks with absolute paths aim at; nothing may ever be there.
ELSEWHERE = Path("/tmp/hypvl-fuzz-elsewhere")
#: What each sandbox holds before a case runs.
CANARY = "this file must stay as it is\n"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a reader did with the input of a case."""

    good: int = 0  # samples that were used
    bad: int = 0  # samples that were counted as bad
    refused: bool = False  # a UserError instead


@dataclasses.dataclass(frozen=True)
class Sandbox:
    """The folders of a case. Only ``out``, ``cache`` and indexes beside the input may change."""

    root: Path

    @property
    def inputs(self) -> Path:
        return self.root / "in"

    @property
    def out(self) -> Path:
        return self.root / "out"

    @property
    def outside(self) -> Path:
        """Where attacks aim at: it holds a file that must stay the only one."""
        return self.root / "outside"


@dataclasses.dataclass(frozen=True)
class Case:
    """One damaged input: ``run`` makes it and reads it."""

    name: str
    run: Callable[[Sandbox], Outcome]


class FuzzFailure(AssertionError):  # noqa: N818 (it is an assertion)
    """A case did what none may do."""


def sandbox(root: Path) -> Sandbox:
    """An empty sandbox below a folder that does not exist yet."""
    box = Sandbox(root)
    for folder in (box.inputs, box.out, box.outside, root / "cache"):
        folder.mkdir(parents=True)
    (box.outside / "canary").write_text(CANARY)
    return box


def run_case(case: Case, root: Path) -> Outcome:
    """Run a case in a sandbox made at ``root``. Raises FuzzFailure."""
    box = sandbox(root)
    with _place(box), _time_limit(case.name):
        try:
            outcome = case.run(box)
        except UserError as error:
            if not str(error).strip():
                raise FuzzFailure(f"{case.name}: a {type(error).__name__} without a sentence") from error
            outcome = Outcome(refused=True)
        except FuzzFailure:
            raise
        except BaseException as error:
            raise FuzzFailure(f"{case.name}: {type(error).__name__}: {error}") from error
    written = sorted(path for path in _tree(box.root) if not _allowed(path, box))
    if ELSEWHERE.exists() or written != ["outside/canary"] or (box.outside / "canary").read_text() != CANARY:
        raise FuzzFailure(f"{case.name}: wrote outside its folder: {written}")
    return outcome


def peak_memory() -> int:
    """Bytes of resident memory at most, of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def digest(data: bytes) -> str:
    """A short digest, to compare samples."""
    return hashlib.sha256(data).hexdigest()[:16]


def _tree(root: Path) -> Iterator[str]:
    for folder, folders, files in os.walk(root):
        for name in files + [name for name in folders if (Path(folder) / name).is_symlink()]:
            yield (Path(folder) / name).relative_to(root).as_posix()


def _allowed(path: str, box: Sandbox) -> bool:
    """Inputs are allowed as they are made by the case itself; a reader adds indexes only, see ``readers``."""
    return path.startswith(("in/", "out/", "cache/"))


@contextlib.contextmanager
def _place(box: Sandbox) -> Iterator[None]:
    """Working folder and the user's cache inside the sandbox."""
    before, cache = Path.cwd(), os.environ.get("XDG_CACHE_HOME")
    os.chdir(box.outside)  # a relative name written to leaves its mark there
    os.environ["XDG_CACHE_HOME"] = str(box.root / "cache")
    try:
        yield
    finally:
        os.chdir(before)
        if cache is None:
            del os.environ["XDG_CACHE_HOME"]
        else:
            os.environ["XDG_CACHE_HOME"] = cache


@contextlib.contextmanager
def _time_limit(name: str) -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise FuzzFailure(f"{name}: still running after {SECONDS} s")

    timers = {
        signal.SIGALRM: (signal.ITIMER_REAL, WAITED * SECONDS),
        signal.SIGPROF: (signal.ITIMER_PROF, SECONDS),
    }
    before = {number: signal.signal(number, stop) for number in timers}
    for timer, seconds in timers.values():
        signal.setitimer(timer, seconds)
    started = time.process_time()
    try:
        yield
    finally:
        for number, (timer, _) in timers.items():
            signal.setitimer(timer, 0)
            signal.signal(number, before[number])
    if time.process_time() - started > SECONDS:  # code that signals do not interrupt
        raise FuzzFailure(f"{name}: took {time.process_time() - started:.1f} s")

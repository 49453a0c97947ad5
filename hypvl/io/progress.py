"""A progress bar on the terminal, and nothing where nobody would see it move."""

import threading
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, TypeVar

from hypvl.checks import one_of
from hypvl.io.redact import printable

if TYPE_CHECKING:
    from rich.progress import Progress

T = TypeVar("T")
Unit: TypeAlias = Literal["items", "bytes", "share"]


SOON = 1.0  # seconds after which what may be short shows its bar
_HIDDEN: ContextVar[bool] = ContextVar("hidden", default=False)


class MoveBar(Protocol):
    """Moves a bar to what is done; None leaves its total, or its text, as it is."""

    def __call__(self, done: int, total: int | None = None, text: str | None = None) -> None: ...


@contextmanager
def no_bars(*, hidden: bool = True) -> Iterator[None]:
    """No bar is shown while the block runs; ``hidden=False`` changes nothing."""
    before = _HIDDEN.get()
    _HIDDEN.set(before or hidden)
    try:
        yield
    finally:
        _HIDDEN.set(before)


@contextmanager
def terminal_bar(
    label: str, *, unit: Unit = "items", shown: bool = True, after: float = 0.0
) -> Iterator[MoveBar]:
    """A bar on stderr with a label before it while the block runs, if that is a terminal and the bar is ``shown``.

    Behind the bar are the "items" or "bytes" done, or only their "share". It appears ``after`` so many seconds, with
    what was done until then, so that short work shows nothing. Inside the block of another bar there is none.
    """
    one_of("unit", unit, Unit)
    from rich import progress
    from rich.console import Console

    console = Console(stderr=True)
    if _HIDDEN.get() or not (shown and console.is_terminal):
        yield lambda done, total=None, text=None: None  # rich < 14.3 ends a disabled bar with an empty line
        return
    columns: dict[str, tuple[progress.ProgressColumn, ...]] = {
        "items": (progress.MofNCompleteColumn(), progress.TimeRemainingColumn()),
        "bytes": (progress.DownloadColumn(), progress.TransferSpeedColumn()),
        "share": (progress.TaskProgressColumn(), progress.TimeRemainingColumn()),
    }
    text_column = progress.TextColumn("{task.description}", markup=False)
    bar = progress.Progress(
        text_column, progress.BarColumn(), *columns[unit], console=console, transient=True
    )
    task = bar.add_task(printable(label), total=None)
    with no_bars(), _started(bar, after):
        yield lambda done, total=None, text=None: bar.update(
            task, completed=done, total=total, description=None if text is None else printable(text)
        )


def counted(items: Iterable[T], label: str, *, total: int | None = None) -> Iterator[T]:
    """The items, one by one, with a bar that counts them where that takes longer than :data:`SOON`.

    Args:
        items: What a loop goes over.
        label: What the loop does.
        total: Number of items; None = their length where they have one.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    with terminal_bar(label, after=SOON) as move_bar:
        for done, item in enumerate(items):
            move_bar(done, total)
            yield item


@contextmanager
def _started(bar: "Progress", after: float) -> Iterator[None]:
    """The bar is live while the block runs, from ``after`` seconds on, also when nothing moves it until then."""
    lock, ended = threading.Lock(), False

    def start() -> None:
        with lock:
            if not ended:
                bar.start()

    timer = threading.Timer(after, start) if after else None
    if timer is None:
        start()
    else:
        timer.daemon = True
        timer.start()
    try:
        yield
    finally:
        if timer is not None:
            timer.cancel()
        with lock:
            ended = True
            if bar.live.is_started:
                bar.stop()

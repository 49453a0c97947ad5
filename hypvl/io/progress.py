"""A progress bar on the terminal, and nothing where nobody would see it move."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, Protocol, TypeAlias

from hypvl.checks import one_of
from hypvl.io.redact import printable

Unit: TypeAlias = Literal["items", "bytes", "share"]


class MoveBar(Protocol):
    """Moves a bar to what is done; None leaves its total, or its text, as it is."""

    def __call__(self, done: int, total: int | None = None, text: str | None = None) -> None: ...


@contextmanager
def terminal_bar(label: str, *, unit: Unit = "items", shown: bool = True) -> Iterator[MoveBar]:
    """A bar on stderr with a label before it while the block runs, if that is a terminal and the bar is ``shown``.

    Behind the bar are the "items" or "bytes" done, or only their "share".
    """
    one_of("unit", unit, Unit)
    from rich import progress
    from rich.console import Console

    console = Console(stderr=True)
    if not (shown and console.is_terminal):
        yield lambda done, total=None, text=None: None  # rich < 14.3 ends a disabled bar with an empty line
        return
    columns: dict[str, tuple[progress.ProgressColumn, ...]] = {
        "items": (progress.MofNCompleteColumn(), progress.TimeRemainingColumn()),
        "bytes": (progress.DownloadColumn(), progress.TransferSpeedColumn()),
        "share": (progress.TaskProgressColumn(), progress.TimeRemainingColumn()),
    }
    text_column = progress.TextColumn("{task.description}", markup=False)
    with progress.Progress(
        text_column, progress.BarColumn(), *columns[unit], console=console, transient=True
    ) as bar:
        task = bar.add_task(printable(label), total=None)
        yield lambda done, total=None, text=None: bar.update(
            task, completed=done, total=total, description=None if text is None else printable(text)
        )

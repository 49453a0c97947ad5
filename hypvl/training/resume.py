"""The checkpoint that a run resumes from, read by every rank and compared before anything is trained.

Every rank reads the file itself. Without a shared folder, or where one machine sees an old state of it, ranks would
otherwise train on a mixture of two checkpoints.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypvl import distributed
from hypvl.errors import CheckpointError
from hypvl.models.checkpoint_io import checkpoint_checksum
from hypvl.training.state import read_state

_SHOWN = 12  # digits of a checksum in a message


def read_resumed(start: Callable[[], Path | None]) -> dict[str, Any] | None:
    """The state to resume from, the same on all ranks; None to start at iteration 0 (a collective).

    Args:
        start: Called on rank 0 only, which decides for all: the path of the checkpoint, or None.

    Raises:
        CheckpointError: on every rank when one cannot read the checkpoint, or reads another one than rank 0. It names
            these ranks and what they found.
    """
    path = distributed.from_main(start)
    if path is None:
        return None
    state: dict[str, Any] | None = None
    try:
        state = read_state(path)
        found = f"iteration {int(state['iteration']):,}, checksum {checkpoint_checksum(path)[:_SHOWN]}"
    except CheckpointError as error:
        found = str(error).rstrip(".")
    except OSError as error:  # the network of the folder
        found = f"{path}: cannot be read ({error.strerror or error})"
    everywhere = distributed.gather_objects((found, state is not None))
    if len(set(everywhere)) > 1:
        raise CheckpointError(_differences(path, [text for text, _ in everywhere]))
    if state is None:
        raise CheckpointError(f"{found}.")
    return state


def _differences(path: Path, found: list[str]) -> str:
    """A sentence that names the ranks which found something else than rank 0, and what."""
    ranks: dict[str, list[int]] = {}
    for rank, text in enumerate(found):
        ranks.setdefault(text, []).append(rank)
    first, *others = ranks.items()
    listed = "; ".join(f"{_ranks(numbers)} found {text!r}" for text, numbers in others)
    return (
        f"--resume: the ranks do not find the same checkpoint at {path}: {_ranks(first[1])} found {first[0]!r}; "
        f"{listed}; nothing was trained; give all machines one shared --output-dir, or copy the file of rank 0 to the "
        "others, then start again."
    )


def _ranks(numbers: list[int]) -> str:
    """``rank 3``, ``ranks 0, 2-5``: rows of neighbours as ranges."""
    rows: list[list[int]] = []
    for number in numbers:
        if rows and number == rows[-1][-1] + 1:
            rows[-1].append(number)
        else:
            rows.append([number])
    texts = [str(row[0]) if len(row) == 1 else f"{row[0]}-{row[-1]}" for row in rows]
    return f"rank{'s' if len(numbers) > 1 else ''} {', '.join(texts)}"

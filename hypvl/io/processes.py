"""What the system says of another process."""

from pathlib import Path


def process_stat(pid: int) -> list[str] | None:
    """The fields of ``/proc/<pid>/stat`` after the name: state, parent, group, session, and more (proc(5)).

    A state of "Z" or "X" is that of a process which has ended. None where there is no such process, or no ``/proc``
    (another system than Linux).
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return text.rpartition(")")[2].split()  # the name before it may hold anything

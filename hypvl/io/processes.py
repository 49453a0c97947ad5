"""What the system says of processes."""

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


def bytes_moved() -> int:
    """Bytes that this process has read and written so far, also on no disk; 0 where the system does not count them."""
    try:
        lines = Path("/proc/self/io").read_text().splitlines()
    except OSError:
        return 0
    numbers = dict(line.split(": ") for line in lines)
    return int(numbers["rchar"]) + int(numbers["wchar"])

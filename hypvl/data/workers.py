"""Processes that read data: what is said when one of them has died."""

_MARK = "DataLoader worker (pid"  # in what torch raises then, in the process that waits or wherever it is


def dead_worker(error: BaseException, *, setting: str) -> str | None:
    """One sentence about a reading process that has died, or None when an error is about something else.

    Args:
        error: What torch's loader raised.
        setting: How many processes there are, as in ``train.num_workers=4``.
    """
    if not isinstance(error, RuntimeError) or _MARK not in str(error):
        return None
    return (
        f"a data worker has died ({str(error).splitlines()[0]}); most often memory or /dev/shm is full: use fewer "
        f"workers than {setting}, or smaller batches."
    )

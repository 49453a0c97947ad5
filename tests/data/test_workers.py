import sys
import threading
from multiprocessing import process, resource_sharer
from multiprocessing.connection import Client
from pathlib import Path

import pytest

from hypvl.data import workers as workers_module


@pytest.mark.parametrize("quiet", [True, False])
def test_a_transfer_given_up_by_a_stopped_process_is_no_traceback(
    quiet: bool, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    seen = threading.Event()
    hook = workers_module._without_transfers if quiet else sys.__excepthook__
    monkeypatch.setattr(sys, "excepthook", lambda *error: (hook(*error), seen.set()))
    with Path(__file__).open() as file:  # a descriptor to hand over
        address, _ = resource_sharer.DupFd(file.fileno())._id
        Client(address, authkey=process.current_process().authkey).close()  # what a stopped process does
        assert seen.wait(10)
    resource_sharer.stop()
    assert ("EOFError" in capfd.readouterr().err) is not quiet


def test_other_errors_of_a_worker_keep_their_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    error = EOFError("torn")
    workers_module._without_transfers(EOFError, error, None)  # in the main thread
    thread = threading.Thread(
        target=workers_module._without_transfers, args=(ValueError, ValueError("slip"), None)
    )
    thread.start()
    thread.join()
    output = capfd.readouterr().err
    assert "EOFError: torn" in output and "ValueError: slip" in output

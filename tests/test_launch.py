"""Processes that `launch` starts: what its own process is asked reaches them, and how they end is a sentence."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = """
import os, signal, sys, time
from hypvl.cli.common import run_main
from hypvl.distributed import barrier, launch, rank
from hypvl.errors import StoppedError
from hypvl.training.loop import Signals, exit_code

def work(what):
    with Signals() as signals:
        barrier()
        print("ready", flush=True)
        if what == "die" and rank() == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        if what == "die":
            barrier()
        while signals.stop is None:
            time.sleep(0.05)
            signals.agree()
    raise StoppedError("saved", exit_code(signals.stop))

def main(argv):
    launch(work, argv[0], num_gpus=0, num_machines=2, machine_rank=int(argv[1]), dist_url=argv[2])
    return 0

if __name__ == "__main__":
    sys.exit(run_main(main))
"""


def started(folder: Path, what: str) -> "list[subprocess.Popen[str]]":
    """Two launchers with one process each."""
    (folder / "script.py").write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    url = f"tcp://127.0.0.1:{20_000 + os.getpid() % 20_000}"
    return [
        subprocess.Popen(
            [sys.executable, str(folder / "script.py"), what, str(machine), url],
            env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for machine in range(2)
    ]  # fmt: skip


@pytest.mark.slow
def test_a_signal_to_one_launcher_stops_all_ranks(tmp_path: Path) -> None:
    processes = started(tmp_path, "wait")
    for process in processes:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    processes[0].send_signal(signal.SIGTERM)
    for process in processes:
        said = process.communicate(timeout=60)[1]
        assert process.returncode == 143 and said.splitlines()[-1] == "saved" and "Traceback" not in said


@pytest.mark.slow
def test_a_killed_rank_is_named_and_the_others_end_with_it(tmp_path: Path) -> None:
    first, second = started(tmp_path, "die")
    began = time.monotonic()
    said = second.communicate(timeout=120)[1]
    assert second.returncode == 1
    assert "error: rank 1 (process " in said and "was ended by SIGKILL" in said and "--resume" in said
    first.communicate(timeout=60)
    assert first.returncode != 0 and time.monotonic() - began < 100

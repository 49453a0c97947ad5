"""Processes that `launch` starts: what its own process is asked reaches them, and how they end is a sentence."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from hypvl.errors import ConfigError
from hypvl.launch import launch

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = """
import os, signal, sys, time
from hypvl.cli.common import run_main
from hypvl.distributed import barrier, rank
from hypvl.errors import StoppedError
from hypvl.launch import launch
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


def test_launch_runs_here_with_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setitem(os.environ, "HYPVL_DEVICE", "cpu")
    assert launch(lambda x: x + 1, 2, num_gpus=0) == 3


def test_launch_refuses_what_this_machine_has_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="--num-gpus: got 8, but this machine has 0 usable"):
        launch(print, num_gpus=8)
    with pytest.raises(ConfigError, match="--num-gpus: got -1; expected 0 or more"):
        launch(print, num_gpus=-1)
    with pytest.raises(ConfigError, match="--num-machines: got 0; expected 1 or more"):
        launch(print, num_gpus=0, num_machines=0)
    with pytest.raises(ConfigError, match="--machine-rank: got 2; expected 0 to 1"):
        launch(print, num_gpus=0, num_machines=2, machine_rank=2)
    with pytest.raises(ConfigError, match="--dist-url: missing"):
        launch(print, num_gpus=0, num_machines=2, machine_rank=0)

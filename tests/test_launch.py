"""Processes that `launch` starts: what its own process is asked reaches them, and how they end is a sentence."""

import os
import re
import signal
import socket
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
from datetime import timedelta
from hypvl import rank_notes
from hypvl.cli.common import run_main
from hypvl.distributed import barrier, from_main, rank
from hypvl.errors import ConfigError, StoppedError
from hypvl.launch import launch

def work(what):
    rank_notes.current().describe = lambda: "after iteration 7"
    if what in ("alone", "idle"):
        alone(what)
        return
    if what == "start" and rank() == 1:
        print("ready", flush=True)
        time.sleep(60)
    barrier()
    if what == "wait":
        wait()
    print("ready", flush=True)
    if rank() == 1:
        time.sleep(2.5)
        if what in ("SIGKILL", "SIGSTOP"):
            os.kill(os.getpid(), getattr(signal, what))
        if what == "raise":
            raise ValueError("no such thing")
        if what == "config":
            raise ConfigError("train.x: got 3")
        if what == "hang":
            time.sleep(600)
    barrier()

def wait():
    from hypvl.training.loop import Signals, exit_code

    with Signals() as signals:
        barrier()
        print("ready", flush=True)
        while signals.stop is None:
            time.sleep(0.05)
            signals.agree()
    raise StoppedError("saved", exit_code(signals.stop))

def alone(what):
    def task():
        print("ready", flush=True)
        until = time.monotonic() + 20
        while time.monotonic() < until:
            if what == "idle":
                time.sleep(1)
        return 5

    if rank() == 1:
        print("ready", flush=True)
    assert from_main(task) == 5

def main(argv):
    seconds = timedelta(seconds=float(argv[3]))
    launch(work, argv[0], num_gpus=0, num_machines=2, machine_rank=int(argv[1]), dist_url=argv[2], timeout=seconds)
    return 0

if __name__ == "__main__":
    sys.exit(run_main(main))
"""


def started(folder: Path, what: str, *, timeout: float = 60.0) -> "list[subprocess.Popen[str]]":
    """Two launchers with one process each, in sessions of their own, both of whose ranks are at work."""
    (folder / "script.py").write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    return [
        subprocess.Popen(
            [sys.executable, str(folder / "script.py"), what, str(machine), url, str(timeout)],
            env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        )
        for machine in range(2)
    ]  # fmt: skip


def ready(process: "subprocess.Popen[str]") -> None:
    assert process.stdout is not None and process.stdout.readline() == "ready\n"


def ended(processes: "list[subprocess.Popen[str]]") -> list[str]:
    """What each launcher said; nothing that it started is left."""
    said = [process.communicate(timeout=60)[1] for process in processes]
    sessions = {process.pid for process in processes}
    deadline = time.monotonic() + 10  # multiprocessing's own helpers end after their program
    while any(session_of(p) in sessions for p in Path("/proc").iterdir() if p.name.isdigit()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return said


def session_of(process: Path) -> int | None:
    try:
        return int((process / "stat").read_text().rpartition(")")[2].split()[3])
    except (FileNotFoundError, ProcessLookupError):
        return None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGUSR1, 138), (signal.SIGHUP, 129)]
)
def test_a_signal_to_one_launcher(tmp_path: Path, number: signal.Signals, code: int) -> None:
    processes = started(tmp_path, "wait")
    for process in processes:
        ready(process)
    processes[0].send_signal(number)
    for said in ended(processes):
        assert said.splitlines()[-1] == "saved" and "Traceback" not in said
    assert [process.returncode for process in processes] == [code, code]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGUSR1, 138)]
)
def test_a_signal_before_the_first_step_ends_all_ranks(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    first, second = started(tmp_path, "start")
    ready(second)
    second.send_signal(number)
    for said in ended([first, second]):
        assert re.search(
            rf"rank 1 \(.*\) (was ended by |left at once .*\()({number.name}).* --resume goes on", said
        )
    assert (first.returncode, second.returncode) == (code, code)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "cause"),
    [
        (
            "SIGKILL",
            r"was ended by SIGKILL \(last known of it: after iteration 7",
        ),
        ("raise", r"raised ValueError: no such thing \(last known of it: after iteration 7"),
        ("config", r"ended: train.x: got 3 \(last known of it: after iteration 7"),
    ],
)
def test_a_rank_that_ends_is_named(tmp_path: Path, what: str, cause: str) -> None:
    processes = started(tmp_path, what)
    for process in processes:
        ready(process)
    began = time.monotonic()
    first, second = ended(processes)
    named = rf"rank 1 \({re.escape(socket.gethostname())}, process \d+\) {cause}"
    assert re.search(named, first)
    assert re.search(named, second) if what != "config" else "error: train.x: got 3" in second
    assert ("Traceback" in second) == (what == "raise")
    assert processes[0].returncode == 1 and processes[1].returncode == {"config": 2}.get(what, 1)
    assert time.monotonic() - began < 30


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "cause"),
    [
        ("SIGSTOP", r"does not answer: stopped, dead or cut off; last known of it: after iteration 7"),
        ("hang", r"is late \(if it may take so long, raise train.timeout_s\); after iteration 7"),
        ("idle", r"is late \(if it may take so long, raise train.timeout_s\); after iteration 7"),
    ],
)
def test_a_rank_that_hangs_is_named(tmp_path: Path, what: str, cause: str) -> None:
    processes = started(tmp_path, what, timeout=8.0)
    for process in processes:
        ready(process)
    began = time.monotonic()
    first, second = ended(processes)
    late = 0 if what == "idle" else 1
    named = rf"waits for the others no longer: rank {late} \(.*, process \d+\) {cause}"
    assert re.search(named, first) and re.search(named, second)
    assert processes[0].returncode == processes[1].returncode == 1
    assert 8 < time.monotonic() - began < 40


@pytest.mark.slow
def test_rank_0_may_work_alone_longer_than_others_wait(tmp_path: Path) -> None:
    processes = started(tmp_path, "alone", timeout=5.0)
    for said in ended(processes):
        assert "error" not in said
    assert processes[0].returncode == processes[1].returncode == 0


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

"""Runs that are killed, stopped and asked to save: they go on as if nothing had happened."""

import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
import torch

from tests.cli.test_train import command, environment
from tests.data.helpers import redcaps, write_tar

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("shards")
    write_tar(folder / "0.tar", [m for i in range(16) for m in redcaps(f"s{i}", i)])
    return f"dataset.tarfiles=[{folder}/*.tar]"


LONGER = [
    "train.num_iterations=200",
    "train.checkpoint_period=20",
    "train.num_workers=1",
    "train.log_period=7",
]


def _started(folder: Path, shards: str, *more: str, records: int = 2) -> "subprocess.Popen[bytes]":
    """A run in a process group of its own, when it has written some records."""
    process = subprocess.Popen(
        command(folder, shards, *LONGER, *more),
        env=environment(),
        start_new_session=True,
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 240
    metrics = folder / "metrics.jsonl"
    while not metrics.is_file() or metrics.read_bytes().count(b"\n") < records:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    return process


def _workers(process: "subprocess.Popen[bytes]") -> list[int]:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(c) for c in children if b"train.py" in Path(f"/proc/{c}/cmdline").read_bytes()]


@pytest.fixture(scope="module")
def undisturbed(shards: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("longer") / "whole"
    subprocess.run(command(folder, shards, *LONGER), check=True, env=environment(), timeout=300)
    return folder


def _goes_on_as_if_nothing_had_happened(folder: Path, shards: str, undisturbed: Path) -> None:
    subprocess.run(command(folder, shards, *LONGER, "--resume"), check=True, env=environment(), timeout=300)
    one, two = (torch.load(f / "checkpoint_final.pth", weights_only=True) for f in (undisturbed, folder))
    assert all(torch.equal(value, two["model"][name]) for name, value in one["model"].items())
    timed = {"samples_per_second", "data_wait", "memory_gb", "peak_memory_gb", "eta_seconds"}
    records = [
        [
            {k: v for k, v in json.loads(line).items() if k not in timed}
            for line in (f / "metrics.jsonl").open()
        ]
        for f in (undisturbed, folder)
    ]
    assert records[0] == records[1]


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGUSR1, 138), (signal.SIGHUP, 129)],
)
def test_a_signal_to_the_process_group_saves_and_the_run_goes_on(
    shards: str, tmp_path: Path, undisturbed: Path, number: signal.Signals, code: int
) -> None:
    folder = tmp_path / "run"
    with _started(folder, shards) as process:
        os.killpg(process.pid, number)
        os.killpg(process.pid, number)  # as `timeout` does
        said = process.communicate(timeout=60)[1].decode()
    assert process.returncode == code
    assert f"stopped by {number.name} at iteration" in said and "Traceback" not in said
    last = torch.load(folder / (folder / "last_checkpoint.txt").read_text().strip(), weights_only=True)
    assert f"at iteration {last['iteration']} of 200" in said
    shutil.rmtree(folder / "tensorboard")
    _goes_on_as_if_nothing_had_happened(folder, shards, undisturbed)


@pytest.mark.parametrize("nohup", [True, False])
def test_a_terminal_that_is_closed(shards: str, tmp_path: Path, nohup: bool) -> None:
    """It asks the run to save and stop, or is no loss to one that goes on."""
    folder, (ours, terminal) = tmp_path / "run", os.openpty()

    def take_terminal() -> None:
        os.setsid()
        fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
        if nohup:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)

    steps = ["train.num_iterations=60", "train.log_period=1", "train.num_workers=1"]
    with subprocess.Popen(
        command(folder, shards, *steps),
        env=environment(),
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        preexec_fn=take_terminal,
    ) as process:
        os.close(terminal)
        metrics = folder / "metrics.jsonl"
        while not metrics.is_file() or metrics.read_bytes().count(b"\n") < 5:
            assert process.poll() is None
            while select.select([ours], [], [], 0.02)[0]:
                os.read(ours, 65536)
        os.close(ours)
        assert process.wait(timeout=120) == (0 if nohup else 129)
    state = json.loads((folder / "heartbeat.json").read_text())
    assert state["state"] == ("finished" if nohup else "stopped")
    last = torch.load(folder / (folder / "last_checkpoint.txt").read_text().strip(), weights_only=True)
    assert last["iteration"] == state["iteration"] and (state["iteration"] == 60) is nohup
    assert not (folder / "failure.json").exists()


def test_a_stopped_worker_is_in_nobodys_way(shards: str, tmp_path: Path, undisturbed: Path) -> None:
    folder = tmp_path / "run"
    with _started(folder, shards) as process:
        workers = _workers(process)
        for worker in workers:
            os.kill(worker, signal.SIGSTOP)
        time.sleep(2)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert len(workers) == 1 and process.returncode == 143
    assert not Path(f"/proc/{workers[0]}").exists()
    _goes_on_as_if_nothing_had_happened(folder, shards, undisturbed)


def test_a_request_for_a_checkpoint_while_it_starts_is_kept(shards: str, tmp_path: Path) -> None:
    process = subprocess.Popen(
        command(tmp_path / "run", shards, "train.num_iterations=3"),
        env=environment(),
        stderr=subprocess.PIPE,
    )
    status = Path(f"/proc/{process.pid}/status")
    while not int(_field(status, "SigBlk:"), 16) & 1 << signal.SIGUSR2 - 1:  # until its program has begun
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGUSR2)
    said = process.communicate(timeout=120)[1].decode()
    assert process.returncode == 0 and "iteration 1: asked for a checkpoint (SIGUSR2)" in said
    assert (tmp_path / "run/checkpoint_00000001.pth").is_file()


def _field(status: Path, name: str) -> str:
    return next(line.split()[1] for line in status.read_text().splitlines() if line.startswith(name))


def test_a_request_for_a_checkpoint_changes_nothing(shards: str, tmp_path: Path, undisturbed: Path) -> None:
    folder = tmp_path / "run"
    with _started(folder, shards, "train.keep_checkpoints=null") as process:
        process.send_signal(signal.SIGUSR2)
        process.communicate(timeout=120)
    assert process.returncode == 0
    assert len(list(folder.glob("checkpoint_0*.pth"))) in (9, 10)  # 9 of the period
    assert (folder / "log-rank0.txt").read_text().count("asked for a checkpoint (SIGUSR2)") == 1
    one, two = (torch.load(f / "checkpoint_final.pth", weights_only=True) for f in (undisturbed, folder))
    assert all(torch.equal(value, two["model"][name]) for name, value in one["model"].items())


def test_a_killed_run_goes_on_at_the_right_iteration(shards: str, tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    longer = ["train.num_iterations=200", "train.checkpoint_period=20"]
    with subprocess.Popen(command(folder, shards, *longer), env=environment(), cwd=tmp_path) as process:
        deadline = time.monotonic() + 240
        while not (folder / "last_checkpoint.txt").is_file():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    last = (folder / "last_checkpoint.txt").read_text().strip()
    at = torch.load(folder / last, weights_only=True)["iteration"]
    subprocess.run(command(folder, shards, *longer, "--resume"), check=True, env=environment(), timeout=300)
    records = [json.loads(line)["iteration"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert records == list(range(2, 201, 2))
    assert f"resumed at iteration {at}" in (folder / "log-rank0.txt").read_text()


SLOW_DISK = """
import os, sys, time
real = os.fsync
os.fsync = lambda handle: (time.sleep(0.3), real(handle))[1]
from hypvl.cli.common import run_main
from hypvl.cli.train import main
sys.exit(run_main(main, sys.argv[1:]))
"""


def test_killed_while_the_thread_writes_loses_only_that_checkpoint(
    shards: str, tmp_path: Path, undisturbed: Path
) -> None:
    folder = tmp_path / "run"
    arguments = command(folder, shards, *LONGER, "train.async_checkpoints=true")[2:]
    pointer = folder / "last_checkpoint.txt"
    with subprocess.Popen(
        [sys.executable, "-c", SLOW_DISK, *arguments], env=environment(), stderr=subprocess.DEVNULL
    ) as process:
        deadline = time.monotonic() + 240
        while not (pointer.is_file() and any(folder.glob(".checkpoint_*.part"))):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        process.kill()
    (half,) = folder.glob(".checkpoint_*.part")
    last = pointer.read_text().strip()
    assert half.name.split(".")[1] > Path(last).stem  # a later one than the pointer names
    _goes_on_as_if_nothing_had_happened(folder, shards, undisturbed)
    assert not half.exists()


def test_a_worker_that_stays_stopped_is_named(shards: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with _started(folder, shards, "train.timeout_s=9") as process:
        worker = _workers(process)[0]
        os.kill(worker, signal.SIGSTOP)
        asked = time.monotonic()
        said = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 75 and 5 < time.monotonic() - asked < 40
    assert (
        f"no batch has come for 6 s (two thirds of train.timeout_s): data worker {worker} is stopped" in said
    )
    assert f"(kill -CONT {worker} lets it go on), /dev/shm has " in said and "Traceback" not in said
    assert not Path(f"/proc/{worker}").exists()
    last = torch.load(folder / (folder / "last_checkpoint.txt").read_text().strip(), weights_only=True)
    assert f"iteration {last['iteration']} of 200" in said


def test_a_full_shared_memory_ends_the_run(shards: str, tmp_path: Path) -> None:
    """A mount of its own, of 64 kB: less than a batch."""
    mount = "mount -t tmpfs -o size=64k tmpfs /dev/shm"
    if subprocess.run(["unshare", "-m", "sh", "-c", mount], capture_output=True, check=False).returncode:
        pytest.skip("this machine gives no mount namespace")
    folder = tmp_path / "run"
    began = time.monotonic()
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", f'{mount} && exec "$@"', "sh", *command(folder, shards, *LONGER)],
        env=environment(), capture_output=True, text=True, check=False, timeout=200,
    )  # fmt: skip
    assert done.returncode == 1 and time.monotonic() - began < 150
    assert "a data worker cannot send a batch: " in done.stderr and "allocate shared memory" in done.stderr
    assert "a data worker has died" in done.stderr and "memory or /dev/shm is full" in done.stderr

"""Runs that torchrun starts: their ranks are killed, and started again by its agents."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from tests.cli.test_train import ROOT, command, environment
from tests.data.helpers import redcaps, write_tar

pytestmark = pytest.mark.slow
STEPS = [
    "train.num_iterations=120", "train.checkpoint_period=10", "train.keep_checkpoints=null", "train.log_period=5",
    "train.num_workers=1",
]  # fmt: skip


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("shards")
    write_tar(folder / "0.tar", [m for i in range(16) for m in redcaps(f"s{i}", i)])
    return f"dataset.tarfiles=[{folder}/*.tar]"


def agents(
    folder: Path, shards: str, *more: str, machines: int = 1, restarts: int = 0, program: Path | None = None
) -> "list[subprocess.Popen[bytes]]":
    """Agents of torchrun with two ranks together, each in a session of its own; they write to ``agent<i>.log``."""
    folder.parent.mkdir(exist_ok=True)
    port = 20_000 + (os.getpid() + random.randrange(20_000)) % 20_000
    torchrun = [
        sys.executable, "-m", "torch.distributed.run", "--nnodes", str(machines), "--max-restarts", str(restarts),
        "--nproc-per-node", str(2 // machines), "--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}",
        "--rdzv-id", folder.name, program if program is not None else ROOT / "scripts/train.py",
        *command(folder, shards, *STEPS, *more)[2:],
    ]  # fmt: skip
    return [
        subprocess.Popen(
            [*torchrun[:3], "--local-addr", "127.0.0.1", *torchrun[3:]],
            env=environment(),
            start_new_session=True,
            stderr=(folder.parent / f"agent{machine}.log").open("wb"),
        )
        for machine in range(machines)
    ]


def ranks(agents: "Sequence[subprocess.Popen[bytes]]") -> dict[int, int]:
    """The process of each rank: the children of the agents, without their data workers."""
    found = {}
    for agent in agents:
        for child in Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split():
            variables = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
            found |= {int(v[5:]): int(child) for v in variables if v.startswith(b"RANK=")}
    return found


def wait_for(folder: Path, iteration: int, agents: "Sequence[subprocess.Popen[bytes]]") -> None:
    """Until a checkpoint of this iteration or a later one is there."""
    deadline = time.monotonic() + 300
    while not any(int(p.stem[-8:]) >= iteration for p in folder.glob("checkpoint_0*.pth")):
        assert all(agent.poll() is None for agent in agents) and time.monotonic() < deadline
        time.sleep(0.05)


def finish(agents: "Sequence[subprocess.Popen[bytes]]", *, code: int = 0) -> None:
    for agent in agents:
        assert agent.wait(timeout=300) == code


@pytest.fixture(scope="module")
def undisturbed(shards: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed") / "whole"
    finish(agents(folder, shards))
    return folder


def equal(one: Path, two: Path) -> None:
    first, second = (
        torch.load(folder / "checkpoint_final.pth", weights_only=True)["model"] for folder in (one, two)
    )
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    losses = [
        [(r["iteration"], r["loss"]) for r in map(json.loads, (folder / "metrics.jsonl").open())]
        for folder in (one, two)
    ]
    assert losses[0] == losses[1] and len(losses[0]) == 24


@pytest.mark.parametrize("resume", ["--resume", None])
def test_killed_ranks_are_started_again(
    shards: str, tmp_path: Path, undisturbed: Path, resume: str | None
) -> None:
    folder = tmp_path / "run"
    agent = agents(folder, shards, *([] if resume is None else [resume]), restarts=3)
    for iteration, rank in ((10, 1), (40, 0), (70, 1)):
        wait_for(folder, iteration, agent)
        os.kill(ranks(agent)[rank], signal.SIGKILL)
    finish(agent)
    equal(undisturbed, folder)
    assert (folder / "log-rank0.txt").read_text().count("resumed at iteration") == 3


def test_killed_ranks_under_two_agents(shards: str, tmp_path: Path, undisturbed: Path) -> None:
    """The agents count restarts of their own ranks alone, and may disagree on how many there were."""
    folder = tmp_path / "run"
    two = agents(folder, shards, machines=2, restarts=3)
    for iteration, rank in ((10, 1), (50, 1), (80, 0)):
        wait_for(folder, iteration, two)
        os.kill(ranks(two)[rank], signal.SIGKILL)
    finish(two)
    equal(undisturbed, folder)


def test_a_first_start_in_a_used_folder(shards: str, undisturbed: Path) -> None:
    before = sorted(undisturbed.iterdir())
    finish(agents(undisturbed, shards, restarts=1), code=1)
    said = (undisturbed.parent / "agent0.log").read_text()
    assert said.count("already holds a run (checkpoint_final.pth); add --resume to continue it") == 4
    assert sorted(undisturbed.iterdir()) == before


SLOW = """
import sys, time
from hypvl.cli.common import run_main
from hypvl.cli.train import main
from hypvl.training.loop import Trainer

step = Trainer._step

def slow(self, parts):
    time.sleep(4.0)
    return step(self, parts)

Trainer._step = slow
sys.exit(run_main(main))
"""


def test_sigterm_loses_nothing_of_slow_steps(shards: str, tmp_path: Path) -> None:
    """The agent kills its ranks 30 seconds after it passed a signal on."""
    (tmp_path / "slow.py").write_text(SLOW)
    folder = tmp_path / "run"
    agent = agents(folder, shards, "train.log_period=1", program=tmp_path / "slow.py")
    metrics = folder / "metrics.jsonl"
    deadline = time.monotonic() + 200
    while not metrics.is_file() or metrics.read_bytes().count(b"\n") < 2:
        assert agent[0].poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    agent[0].send_signal(signal.SIGTERM)
    asked = time.monotonic()
    agent[0].wait(timeout=60)
    assert time.monotonic() - asked < 25
    records = [json.loads(line)["iteration"] for line in metrics.open()]
    last = torch.load(folder / (folder / "last_checkpoint.txt").read_text().strip(), weights_only=True)
    assert last["iteration"] == records[-1]
    said = (tmp_path / "agent0.log").read_text()
    assert f"stopped by SIGTERM at iteration {records[-1]} of 120, which is saved in" in said


SRUN = """#!/bin/bash
# A stand-in: the command once for each of two machines, which are this one.
while [[ $1 == --* ]]; do shift; done
"$@" & one=$!
"$@" & two=$!
trap 'kill -TERM $one $two' TERM
code=0
for process in $one $two; do
    wait $process || code=$?
    while kill -0 $process 2>/dev/null; do code=0; wait $process || code=$?; done
done
exit $code
"""
SCONTROL = """#!/bin/bash
case $1 in show) echo 127.0.0.1; echo 127.0.0.1;; *) echo "$@" >> "$REQUEUED";; esac
"""


def test_the_script_for_slurm(shards: str, tmp_path: Path, undisturbed: Path) -> None:
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    folder = tmp_path / "run"
    job = str(random.randrange(20_000))
    variables = environment() | {
        "PATH": f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}", "SLURM_JOB_ID": job,
        "SLURM_NNODES": "2", "SLURM_JOB_NODELIST": "local[0-1]", "RANKS_PER_NODE": "1",
        "REQUEUED": str(tmp_path / "requeued"),
    }  # fmt: skip
    start = [str(ROOT / "scripts/slurm_train.sh"), *command(folder, shards, *STEPS)[2:]]
    with subprocess.Popen(start, env=variables, start_new_session=True) as batch:
        wait_for(folder, 20, [batch])
        batch.send_signal(signal.SIGTERM)
        assert batch.wait(timeout=90) != 0
    assert (tmp_path / "requeued").read_text() == f"requeue {job}\n"
    last = torch.load(folder / (folder / "last_checkpoint.txt").read_text().strip(), weights_only=True)
    assert 20 <= last["iteration"] < 120
    variables["SLURM_JOB_ID"] = job + "1"
    subprocess.run(start, env=variables, check=True, start_new_session=True, timeout=200)
    assert (tmp_path / "requeued").read_text() == f"requeue {job}\n"
    equal(undisturbed, folder)
    said = (folder / "log-rank0.txt").read_text()
    assert "asked to stop (SIGTERM)" in said and f"resumed at iteration {last['iteration']}" in said

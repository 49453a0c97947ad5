"""Resident memory of a long run reaches a plateau: of the training process, and of its data workers."""

import json
import random
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from tests.cli.test_train import command, environment
from tests.data.helpers import jpeg, write_tar

STEPS, FIRST = 5000, 1000
# A table of 49,408 tokens: its gradients are blocks of 6.3 MB, a new one in each step.
TINY = [
    "model.visual.image_size=16", "model.visual.stem_convs=1", "model.visual.patch_size=8",
    "model.textual.arch=L1_W32_A2", f"train.num_iterations={STEPS}", "train.total_batch_size=2", "train.log_period=50",
    "train.checkpoint_period=1000", "train.keep_checkpoints=1",
]  # fmt: skip


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Captions of 1 to 40 words, so that blocks of every step have other sizes."""
    folder, draw = tmp_path_factory.mktemp("shards"), random.Random(0)
    members = []
    for i in range(64):
        caption = " ".join(str(draw.randrange(1000)) for _ in range(draw.randint(1, 40)))
        members += [(f"s{i}.jpg", jpeg(i, 24, 20)), (f"s{i}.json", json.dumps({"caption": caption}).encode())]
    write_tar(folder / "0.tar", members)
    return f"dataset.tarfiles=[{folder}/*.tar]"


def resident(pid: int) -> float:
    """MB of a process; 0 of one that has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / 1e6
    except (OSError, IndexError):
        return 0.0


def slope(points: "list[tuple[int, float]]") -> float:
    """MB per 1,000 steps of a line through (step, MB)."""
    steps, sizes = np.array([point for point in points if point[0] > FIRST]).T
    return 1000 * float(np.polyfit(steps, sizes, 1)[0])


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_memory_does_not_grow_over_5000_steps(tmp_path: Path, shards: str, workers: int) -> None:
    folder = tmp_path / "run"
    metrics = folder / "metrics.jsonl"
    of_workers: list[tuple[int, float]] = []
    arguments = command(folder, shards, *TINY, f"train.num_workers={workers}")
    with subprocess.Popen(
        arguments, env=environment() | {"OMP_NUM_THREADS": "2"}, stderr=subprocess.PIPE
    ) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        while process.poll() is None:
            time.sleep(0.5)
            lines = metrics.read_bytes().splitlines() if metrics.is_file() else []
            if lines and process.poll() is None:
                at = json.loads(lines[-1])["iteration"]
                sizes = [resident(int(child)) for child in children.read_text().split()]
                of_workers.append((at, sum(sizes)))
        assert process.returncode == 0, process.stderr
    records = [json.loads(line) for line in metrics.read_text().splitlines()]
    own = [(record["iteration"], 1000 * record["memory_gb"]) for record in records]
    assert len(own) == STEPS // 50
    last = max(at for at, size in of_workers)
    figures = {
        "process": slope(own),
        "workers": slope([p for p in of_workers if p[0] < last]) if workers else 0.0,
    }
    print(f"MB per 1,000 steps, with {workers} workers: {figures}; MB at the end: {own[-1][1]:.0f}")
    assert figures["process"] < 1 and figures["workers"] < 1, own

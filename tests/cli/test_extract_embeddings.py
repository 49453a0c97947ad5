"""The command that writes embeddings of shards."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hypvl.cli.common import run_main
from hypvl.cli.extract_embeddings import main
from hypvl.embedding.store import EmbeddingStore
from tests.cli.test_image_traversals import checkpoint
from tests.datasets.test_user_inputs import tar
from tests.embedding.test_store import thumbnails
from tests.evaluation.fakes import BLUE, GREEN, RED, broken, image
from tests.units.clusters import ray_of_two

ROOT = Path(__file__).resolve().parents[2]


def arguments(tmp_path: Path, *more: str) -> list[str]:
    weights = tmp_path / "meru.pth"
    if not weights.is_file():
        checkpoint(tmp_path, "meru")
    return ["--checkpoint-path", str(weights), "--device", "cpu", "--output-dir", str(tmp_path / "out"),
            "--num-workers", "0", *more]  # fmt: skip


def run(tmp_path: Path, *more: str) -> int:
    return run_main(main, arguments(tmp_path, *more))


def test_a_second_run_finds_all_shards_encoded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tar(tmp_path / "00.tar", a=RED, b=GREEN)
    tar(tmp_path / "01.tar", a=BLUE)
    given = ("--shards", f"{tmp_path}/{{00..01}}.tar")
    assert run(tmp_path, *given, "--thumbnails", "16") == 0
    assert "3 embeddings in 2 of 2 shards" in capsys.readouterr().out
    (group,) = EmbeddingStore(tmp_path / "out").groups()
    ids, rows = group.all_rows()
    assert ids == [f"{tmp_path}/00.tar::a", f"{tmp_path}/00.tar::b", f"{tmp_path}/01.tar::a"]
    assert tuple(rows.shape) == (3, 8) and len(thumbnails(tmp_path / "out")) == 3
    assert group.meta["transform"] == "ResizeCenterCrop(size=32)"
    assert run(tmp_path, *given, "--thumbnails", "16") == 0
    again = capsys.readouterr()
    assert again.err.count("exists already") == 2 and "3 embeddings in 2 of 2 shards" in again.out
    assert run(tmp_path, *given) == 1
    assert "made with other settings (thumbnails was 16, now it is 0)" in capsys.readouterr().err
    assert run(tmp_path, *given, "--text-key", "json.caption", "--stage", "features") == 0
    assert len(EmbeddingStore(tmp_path / "out").groups()) == 2


def test_folders_and_texts_are_cut(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i, color in enumerate((RED, GREEN, BLUE)):
        image(tmp_path / "photos" / f"{i}.png", color)
    assert (
        run(tmp_path, "--image-dir", str(tmp_path / "photos"), "--shard-size", "2", "--preprocess", "squeeze")
        == 0
    )
    (tmp_path / "c.txt").write_text("a dog\na cat\na bird\n")
    (tmp_path / "d.jsonl").write_text(json.dumps({"title": "a tree", "id": 4}))
    assert run(tmp_path, "--texts", str(tmp_path / "c.txt"), "--shard-size", "2", "--amp", "bf16") == 0
    keys = ("--text-key", "title", "--id-key", "id")
    assert run(tmp_path, "--texts", str(tmp_path / "d.jsonl"), *keys) == 0
    names = {
        group.folder.name.rpartition("-")[0] + group.meta["amp"]: sorted(
            p.stem for p in group.folder.glob("*.safetensors")
        )
        for group in EmbeddingStore(tmp_path / "out").groups()
    }
    assert names == {
        "image-embeddings": ["00000", "00001"],
        "text-embeddingsbf16": ["c-00000", "c-00001"],
        "text-embeddings": ["d"],
    }
    assert "3 texts" not in capsys.readouterr().err


def test_a_failed_shard_is_reported_and_the_others_are_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken(tmp_path / "photos" / "0.png")
    image(tmp_path / "photos" / "1.png", RED)
    given = ("--image-dir", str(tmp_path / "photos"), "--shard-size", "1")
    assert run(tmp_path, *given) == 1
    said = capsys.readouterr()
    assert "1 of 1 images cannot be read" in said.err and "1 of 2 shards failed" in said.err
    assert "1 embedding in 1 of 2 shards" in said.out
    assert run(tmp_path, "--image-dir", str(tmp_path / "none")) == 1
    assert "is not a folder" in capsys.readouterr().err
    assert run(tmp_path, *given, "--shard-size", "0") == 2
    assert run(tmp_path, *given, "--batch-size", "0") == 2
    assert "--shard-size: got 0" in capsys.readouterr().err


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def three_shards(folder: Path) -> list[str]:
    for i, color in enumerate((RED, GREEN, BLUE)):
        tar(folder / f"{i}.tar", a=color)
    return ["--shards", f"{folder}/*.tar"]


def made_here(folder: Path, given: list[str]) -> dict[str, bytes]:
    """What one process makes; the folder is removed again."""
    assert run(folder, *given) == 0
    result = files(folder / "out")
    shutil.rmtree(folder / "out")
    return result


def test_shares_of_an_array_and_processes_give_the_same_bytes(tmp_path: Path) -> None:
    given = three_shards(tmp_path)
    expected = made_here(tmp_path, given)
    for index in ("0", "1"):
        assert run(tmp_path, *given, "--engine", "slurm-array", "--index", index, "--count", "2") == 0
    assert files(tmp_path / "out") == expected
    assert run(tmp_path, *given, "--engine", "slurm-array", "--index", "2", "--count", "2") == 2


@pytest.mark.slow
def test_worker_processes_give_the_same_bytes(tmp_path: Path) -> None:
    given = three_shards(tmp_path)
    expected = made_here(tmp_path, given)
    assert run(tmp_path, *given, "--workers", "2") == 0
    assert files(tmp_path / "out") == expected


@pytest.mark.slow
def test_ray_gives_the_same_bytes(tmp_path: Path) -> None:
    given = three_shards(tmp_path)
    expected = made_here(tmp_path, given)
    with ray_of_two():
        assert run(tmp_path, *given, "--engine", "ray") == 0
    assert files(tmp_path / "out") == expected


@pytest.mark.slow
def test_killed_twice_it_continues_and_the_folder_is_the_same(tmp_path: Path) -> None:
    """The whole process group dies by SIGKILL as soon as a shard is there; then as soon as there is another."""
    for i in range(6):
        tar(tmp_path / f"{i}.tar", **{f"image{j}": RED if j % 2 else GREEN for j in range(40)})
    given = ["--shards", f"{tmp_path}/?.tar", "--batch-size", "4"]
    expected = made_here(tmp_path, given)
    command = [sys.executable, "-m", "hypvl", "extract", *arguments(tmp_path, *given)]
    for enough in (1, 2):
        process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, start_new_session=True)
        deadline = time.monotonic() + 120
        while len(list(tmp_path.glob("out/*/*.json"))) <= enough and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.001)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    made = {path: path.stat().st_mtime_ns for path in tmp_path.glob("out/*/units/manifests/*.json")}
    assert 1 <= len(made) < 6
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == 0
    assert files(tmp_path / "out") == expected
    assert {path: path.stat().st_mtime_ns for path in made} == made


@pytest.mark.slow
def test_torchrun_shares_the_shards(tmp_path: Path) -> None:
    for i, color in enumerate((RED, GREEN, BLUE)):
        tar(tmp_path / f"{i}.tar", a=color)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    script = str(ROOT / "scripts" / "extract_embeddings.py")
    done = subprocess.run(
        [*torchrun, script, *arguments(tmp_path, "--shards", f"{tmp_path}/*.tar")],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "2 of 2 shards" in done.stdout and "1 of 1 shards" in done.stdout
    (group,) = EmbeddingStore(tmp_path / "out").groups()
    assert len(group.all_rows()[0]) == 3


@pytest.mark.parametrize("kind", ["safetensors", "parquet"])
def test_names_that_are_not_utf8(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    folder = tmp_path / os.fsdecode(b"\xff[/b]\x1b[2J")
    image(folder / os.fsdecode(b"\xe9.png"), RED)
    broken(folder / "broken.png")
    more = ["--image-dir", str(folder), "--format", kind, "--max-bad-fraction", "0.5"]
    assert run(tmp_path, *more) == 0
    shown = capsys.readouterr()
    assert "1 embedding in 1 of 1 shards" in shown.out and "\x1b" not in shown.out + shown.err
    if kind == "safetensors":
        (group,) = EmbeddingStore(tmp_path / "out").groups()
        assert group.all_rows()[0] == [str(folder / os.fsdecode(b"\xe9.png"))]

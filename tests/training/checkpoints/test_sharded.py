"""Sharded checkpoints: what is written, read by any number of ranks, found damaged, and never executed."""

import os
import pickle
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from loguru import logger

from hypvl import distributed
from hypvl.errors import CheckpointError, UserError
from hypvl.io import sharded as format_file
from hypvl.io.sharded import INDEX_NAME, Stored, read_table, sharded_damage
from hypvl.models.checkpoint_io import checkpoints, last_checkpoint, load_checkpoint, open_checkpoint
from hypvl.training.checkpoints import sharded as writer_file
from hypvl.training.checkpoints.files import newest_good, point_at, remove_checkpoint
from hypvl.training.checkpoints.sharded import write_sharded
from hypvl.training.parallel import as_sharded_like, holds_shards, local, shard_
from hypvl.training.run_folder import RunFolder
from tests.ranks import run_ranks
from tests.training.tiny import tiny_learner

FIRST, SECOND = "checkpoint_00000001", "checkpoint_00000002"


def state_of(step: int) -> dict[str, Any]:
    """A state whose numbers are those of the parameters plus ``step``; the whole one without several ranks."""
    ours = tiny_learner("meru")
    whole = {name: tensor + step for name, tensor in ours.model.state_dict().items()}
    if distributed.world_size() > 1:
        shard_(ours, dtype=None, wire=None)
        parameters = dict(ours.model.named_parameters())
        whole = {n: as_sharded_like(t, parameters[n]) if n in parameters else t for n, t in whole.items()}
    named = whole["textual.token_embed.weight"]
    return {
        "model": whole,
        "optimizer": {"state": {0: {"exp_avg": 2 * named, "step": torch.tensor(3.0)}}},
        "iteration": step,
    }


def write_two(folder: str) -> dict[str, Any]:
    """Two checkpoints, failures while a third is written, and the first read by these ranks."""
    place, result = Path(folder), {}
    for step, name in ((1, FIRST), (2, SECOND)):
        write_sharded(place / name, state_of(step))
        if distributed.is_main():
            point_at(place / name, keep=None)
    state = state_of(2)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    if distributed.rank() == 1:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limit[1]))  # the disk of this rank is full
    result["full"] = failure(place, state)
    resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    real = writer_file._own_files

    def lost(part: Path, path: Path) -> dict[str, tuple[int, str]]:
        written = real(part, path)
        (part / "__1_0.distcp").unlink(missing_ok=True)
        return written

    writer_file._own_files = lost
    result["not shared"] = failure(place, state)
    writer_file._own_files = real
    write_sharded(place / SECOND, state)  # again, over the one that is there
    distributed.barrier()
    stored = open_checkpoint(place / FIRST)["optimizer"]["state"][0]["exp_avg"]
    like = state_of(1)["optimizer"]["state"][0]["exp_avg"]
    result["read"] = isinstance(stored, Stored) and torch.equal(local(stored.like(like)), local(like))
    result["holds"] = holds_shards(like)
    return result


def failure(place: Path, state: dict[str, Any]) -> str:
    try:
        write_sharded(place / "checkpoint_00000003", state)
    except UserError as error:
        return str(error)
    return ""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("run")
    return folder, run_ranks(2, write_two, str(folder))


@pytest.fixture
def run(written: tuple[Path, Any], tmp_path: Path) -> Path:
    """A copy of the folder."""
    return Path(shutil.copytree(written[0], tmp_path / "run"))


def test_every_tensor_and_entry_comes_back(run: Path) -> None:
    content, expected = load_checkpoint(run), state_of(2)
    assert content["iteration"] == 2 and list(content["model"]) == list(expected["model"])
    for name, tensor in expected["model"].items():
        assert torch.equal(content["model"][name], tensor) and content["model"][name].dtype == tensor.dtype
    moments = content["optimizer"]["state"][0]
    assert moments["step"] == 3 and torch.equal(
        moments["exp_avg"], expected["optimizer"]["state"][0]["exp_avg"]
    )
    index = read_table(run / FIRST)
    chunks = index.tensors["model/textual.token_embed.weight"].chunks
    assert [(chunk.start, chunk.rows, chunk.file) for chunk in chunks] == [
        (0, 25, "__0_0.distcp"), (25, 25, "__1_0.distcp"),
    ]  # fmt: skip
    positions = index.tensors["model/visual.pos_embed"].chunks  # (1, N, W): the second rank has none of it
    assert [(chunk.start, chunk.rows) for chunk in positions] == [(0, 1)]


def test_weights_are_read_without_moments_and_ranks_read_their_part(
    run: Path, written: tuple[Path, Any]
) -> None:
    content = open_checkpoint(run / FIRST)
    assert isinstance(content["optimizer"]["state"][0]["exp_avg"], Stored)
    assert all(isinstance(tensor, torch.Tensor) for tensor in content["model"].values())
    assert [result["read"] and result["holds"] for result in written[1]] == [True, True]
    with pytest.raises(
        CheckpointError, match=r"optimizer/state/0/exp_avg has the shape \(50, 16\); expected \(3,\)"
    ):
        content["optimizer"]["state"][0]["exp_avg"].like(torch.zeros(3))


def test_a_rank_that_cannot_write_is_named(written: tuple[Path, Any]) -> None:
    folder, results = written
    for result in results:
        assert result["full"].startswith(
            f"{folder}/checkpoint_00000003: cannot be written (rank 1: File too large); "
        )
        assert "rank 0 does not see __1_0.distcp" in result["not shared"]
    assert {path.name for path in folder.iterdir()} == {FIRST, SECOND, "last_checkpoint.txt"}


def truncate(folder: Path) -> None:
    os.truncate(folder / "__1_0.distcp", 100)


def flip(folder: Path) -> None:
    content = bytearray((folder / "__0_0.distcp").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "__0_0.distcp").write_bytes(content)


def other_place(folder: Path) -> None:
    index = folder / INDEX_NAME
    index.write_text(index.read_text().replace("__1_0.distcp", "/etc/passwd"))


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "a part is missing": (lambda folder: (folder / "__1_0.distcp").unlink(), "__1_0.distcp is missing"),
    "a part is shorter": (truncate, "__1_0.distcp has 100 bytes, of "),
    "a bit flipped": (flip, "__0_0.distcp was changed after it was written"),
    "no table": (lambda folder: (folder / INDEX_NAME).unlink(), "cannot be read (No such file"),
    "half a table": (lambda folder: os.truncate(folder / INDEX_NAME, 300), "no JSON"),
    "a table of other places": (other_place, "it was changed after it was written"),
    "no rest": (lambda folder: (folder / "state.pth").unlink(), "state.pth is missing"),
}  # fmt: skip


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_found_and_the_one_before_is_used_loudly(run: Path, case: str) -> None:
    damage, said = DAMAGE[case]
    damage(run / SECOND)
    assert said in str(sharded_damage(run / SECOND))
    lines: list[str] = []
    sink = logger.add(lines.append, format="{level} {message}")
    assert newest_good(run) == run / FIRST
    logger.remove(sink)
    assert any(line.startswith("WARNING") and f"{SECOND}: damaged" in line and said in line for line in lines)
    with pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint(run)


class Proof:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (os.system, (f"touch {self.path}",))


def trusted(folder: Path) -> None:
    """Write the table of contents anew, as an attacker would: sizes and checksums fit."""
    index = read_table(folder)
    files = {
        name: ((folder / name).stat().st_size, format_file.file_digest(folder / name, "sha256"))
        for name in index.files
    }
    format_file.write_table(folder, format_file.Index(files, index.tensors))


def test_no_pickle_in_the_folder_is_executed(run: Path, tmp_path: Path) -> None:
    """Not DCP's table of contents, which is not read at all, nor in the parts, nor in the rest."""
    proof = tmp_path / "executed"
    pickle.loads(pickle.dumps(Proof(proof)))
    assert proof.exists()  # it would be seen
    proof.unlink()
    (run / SECOND / ".metadata").write_bytes(pickle.dumps(Proof(proof)))
    assert load_checkpoint(run)["iteration"] == 2
    payload = run / "payload"
    torch.save(Proof(proof), payload)
    for name in ("__0_0.distcp", "__1_0.distcp"):
        part = run / SECOND / name
        part.write_bytes(payload.read_bytes().ljust(part.stat().st_size, b"\0"))
    trusted(run / SECOND)
    assert sharded_damage(run / SECOND) is None
    with pytest.raises(CheckpointError, match=r"cannot be read|damaged"):
        load_checkpoint(run)
    shutil.copy(payload, run / FIRST / "state.pth")
    trusted(run / FIRST)
    with pytest.raises(CheckpointError, match="refused and not executed"):
        load_checkpoint(run / FIRST)
    assert not proof.exists()


def test_each_part_with_a_pickle_is_refused(run: Path, tmp_path: Path) -> None:
    """A part whose every tensor is a pickle with code, at the places that the table names."""
    proof, place = tmp_path / "executed", run / SECOND
    content = bytearray((place / "__0_0.distcp").read_bytes())
    stream = pickle.dumps(Proof(proof), protocol=2)
    for tensor in read_table(place).tensors.values():
        chunk = tensor.chunks[0]
        assert chunk.file == "__0_0.distcp" and len(stream) < chunk.length
        content[chunk.offset : chunk.offset + chunk.length] = stream.ljust(chunk.length, b"\0")
    (place / "__0_0.distcp").write_bytes(content)
    trusted(place)
    with pytest.raises(
        CheckpointError, match=r"cannot be read \(no tensor, or a pickle with code, which was refused"
    ):
        load_checkpoint(place)
    assert not proof.exists()


def test_folders_are_found_kept_and_removed_as_files_are(run: Path) -> None:
    assert [path.name for path in checkpoints(run)] == [SECOND, FIRST]
    (run / "last_checkpoint.txt").write_text(f"{FIRST}\n")
    assert last_checkpoint(run) == run / FIRST
    (run / "last_checkpoint.txt").unlink()
    assert last_checkpoint(run) == run / SECOND
    half_written = run / ".checkpoint_00000003.77.part"
    half_written.mkdir()
    (half_written / "__0_0.distcp").write_bytes(b"half")
    with RunFolder(run, resume=True) as place:
        assert place.start() == run / SECOND
    assert not half_written.exists()
    point_at(run / SECOND, keep=1)
    assert [path.name for path in checkpoints(run)] == [SECOND]
    assert newest_good(run) == run / SECOND
    remove_checkpoint(run / SECOND)
    assert {path.name for path in run.iterdir()} == {"last_checkpoint.txt", ".lock"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda body: body.update(format_version=2), "install a later hypvl"),
        (lambda body: body.update(format="other"), "format 'other'"),
        (lambda body: body["files"].update({"../../x": [1, "a"]}), r"a file '\.\./\.\./x'"),
        (lambda body: next(iter(body["tensors"].values())).update(dtype="object"), "a tensor of 'object'"),
        (lambda body: next(iter(body["tensors"].values()))["shape"].__setitem__(0, 1 << 40), "rows"),
        (
            lambda body: next(iter(body["tensors"].values()))["shape"].append(1 << 40),
            "more numbers than bytes",
        ),
        (lambda body: next(iter(body["tensors"].values()))["chunks"].pop(), "rows"),
        (lambda body: next(iter(body["tensors"].values()))["chunks"][0].__setitem__(4, 1 << 40), "not there"),
        (lambda body: next(iter(body["tensors"].values()))["chunks"][0].__setitem__(3, -1), "no size"),
        (lambda body: body.pop("files"), "files"),
    ],
)
def test_a_table_of_contents_is_checked(run: Path, change: Callable[[Any], object], said: str) -> None:
    import json

    body = read_table(run / FIRST).body()
    change(body)
    (run / FIRST / INDEX_NAME).write_text(json.dumps({"checksum": format_file._digest(body), **body}))
    with pytest.raises(CheckpointError, match=said):
        read_table(run / FIRST)

"""Findings about TAR shards: whole ones, cut ones, and samples that lack something."""

import io
import json
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from hypvl.data.shard_check import check_shards
from hypvl.errors import DataError


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (9, 7), (255, 0, 0)).save(buffer, format="PNG")
    return buffer.getvalue()


def tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as out:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            out.addfile(entry, io.BytesIO(content))
    return path


def samples(count: int) -> dict[str, bytes]:
    text = json.dumps({"caption": "a red thing"}).encode()
    return {f"{i}.{kind}": png() if kind == "png" else text for i in range(count) for kind in ("png", "json")}


def test_whole_shards(tmp_path: Path) -> None:
    tar(tmp_path / "0.tar", samples(6))
    tar(tmp_path / "1.tar", {"a.png": png(), "a.txt": b"red"})
    first, second = check_shards(f"{tmp_path}/*.tar")
    assert (first.samples, first.looked_at, first.problems) == (6, 4, [])
    assert first.extensions == {"png": 6, "json": 6} and first.place == f"{tmp_path}/0.tar"
    assert (second.samples, second.looked_at, second.extensions) == (1, 1, {"png": 1, "txt": 1})
    assert [report.looked_at for report in check_shards(f"{tmp_path}/{{0,1}}.tar", look_at=None)] == [6, 1]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"0.png": b"none", "0.json": b"{}"}, "sample 0: cannot decode"),
        ({"0.png": png(), "0.json": b"{"}, r"sample 0: its \.json cannot be read"),
        ({"0.png": png(), "0.txt": b"\xff"}, r"sample 0: its \.txt cannot be read"),
        ({"0.json": b"{}"}, "sample 0: has no image; found json"),
        ({"0.png": png()}, "sample 0: has no text; found png"),
        ({}, "holds no samples"),
    ],
)
def test_what_is_wrong_with_samples(members: dict[str, bytes], message: str, tmp_path: Path) -> None:
    (report,) = check_shards(str(tar(tmp_path / "a.tar", members)))
    assert len(report.problems) == 1
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(report.problems[0])


def test_shards_that_are_cut_off_or_none(tmp_path: Path) -> None:
    whole = tar(tmp_path / "a.tar", samples(4)).read_bytes()
    (tmp_path / "a.tar").write_bytes(whole[:3000])
    (report,) = check_shards(str(tmp_path / "a.tar"))
    assert report.samples >= 1 and "cut off" in report.problems[0]
    (tmp_path / "b.tar").write_bytes(b"not a tar" * 200)
    (report,) = check_shards(str(tmp_path / "b.tar"))
    assert report.samples == 0 and len(report.problems) == 1
    with pytest.raises(DataError, match=r"none\*\.tar"):
        check_shards(f"{tmp_path}/none*.tar")

"""Embeddings that outlive a run of scripts/evaluate.py."""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from hypvl.cli.common import CommandParser
from hypvl.cli.loading import open_store, roots_of
from hypvl.config import LazyConfig
from hypvl.embedding.store import EmbeddingStore
from hypvl.errors import CheckpointError
from tests.cli.test_evaluate import ROOT, captions, checkpoint, colors, config, run
from tests.embedding.test_store import thumbnails
from tests.evaluation.modules import FakeModule

__all__ = ["checkpoint"]  # a fixture


def test_a_second_run_needs_no_images(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sets = {"colors": colors(tmp_path / "colors"), "pairs": captions(tmp_path / "pairs")}
    path = config(tmp_path, colors=sets["colors"], pairs=sets["pairs"])
    kept = str(tmp_path / "kept")
    code, plain = run(path, checkpoint, tmp_path / "plain")
    assert code == 0
    code, first = run(path, checkpoint, tmp_path / "first", "--save-embeddings", kept)
    assert code == 0
    for file in (tmp_path / "colors").glob("*/*.png"):
        file.write_bytes(b"x")
        file.unlink()
        file.symlink_to(tmp_path / "gone")  # listed, and not to be read
    for file in (tmp_path / "pairs").glob("b.png"):
        file.unlink()
    code, second = run(path, checkpoint, tmp_path / "second", "--embeddings", kept)
    assert code == 0, capsys.readouterr().err
    for name in sets:
        results = [report["results"][name] for report in (plain, first, second)]
        assert results[0]["metrics"] == results[1]["metrics"] == results[2]["metrics"]
        assert results[0]["items"] == results[1]["items"] == results[2]["items"]
    groups = {group.folder.name.rpartition("-")[0]: group for group in EmbeddingStore(kept).groups()}
    assert set(groups) == {"image-embeddings", "text-embeddings", "text-features"}
    ids, rows = groups["image-embeddings"].all_rows()
    assert len(ids) == len(rows) and all(thumbnails(tmp_path / "kept"))
    assert second["provenance"]["config"] == first["provenance"]["config"]
    # The results of a run are as good with a store as without: nothing is measured again.
    run(path, checkpoint, tmp_path / "plain", "--embeddings", kept)
    assert "kept from an earlier run" in capsys.readouterr().err


def arguments(*argv: str) -> argparse.Namespace:
    parser = CommandParser("")
    parser.add_embeddings_arguments()
    return parser.parse_args(argv)


def test_the_flags_open_a_store_to_write_or_to_read(tmp_path: Path) -> None:
    roots = {"eval": str(tmp_path / "data"), "count": 3, "far": "https://host/x"}
    named = roots_of(LazyConfig.from_dict({"roots": roots}))
    assert (
        named == {"eval": str(tmp_path / "data")} and roots_of(LazyConfig.from_dict({"evaluate": {}})) == {}
    )
    folder, model = str(tmp_path / "stored"), FakeModule()
    assert open_store(arguments(), model) is None
    store = open_store(arguments("--save-embeddings", folder), model, roots=named)
    assert store is not None and store.writes and store.thumbnails == 96
    assert store.portable(str(tmp_path / "data/x.png")) == "{eval}/x.png"
    store = open_store(arguments("--embeddings", folder), model, roots=named)
    assert store is not None and not store.writes and store.thumbnails == 0
    with pytest.raises(CheckpointError, match="holds embeddings of another model"):
        open_store(arguments("--embeddings", folder), FakeModule(gain=2.0))


@pytest.mark.parametrize("moved", [("--shift", "1"), ("--standardize", "transductive")])
def test_stored_embeddings_are_never_moved_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], moved: tuple[str, str]
) -> None:
    path = config(tmp_path, colors=colors(tmp_path / "colors"))
    code, _ = run(
        path, tmp_path / "none.pth", tmp_path, "--save-embeddings", str(tmp_path / "stored"), *moved
    )
    assert code == 2
    assert "--save-embeddings: embeddings are stored as the model gives them" in capsys.readouterr().err
    assert not (tmp_path / "stored").exists()


@pytest.mark.slow
def test_torchrun_measures_the_same(checkpoint: Path, tmp_path: Path) -> None:
    path = config(tmp_path, colors=colors(tmp_path / "colors"), pairs=captions(tmp_path / "pairs"))
    _, plain = run(path, checkpoint, tmp_path / "plain")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    script = [str(ROOT / "scripts" / "evaluate.py"), "--config", path, "--checkpoint-path", str(checkpoint)]
    more = [
        "--output-dir",
        str(tmp_path / "out"),
        "--device",
        "cpu",
        "--save-embeddings",
        str(tmp_path / "kept"),
    ]
    done = subprocess.run(
        [*torchrun, *script, *more, "--batch-size", "1"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("results.json") == 1  # rank 0 alone speaks
    shared = json.loads((tmp_path / "out" / "results.json").read_text())
    for name, entry in plain["results"].items():
        assert shared["results"][name]["metrics"] == pytest.approx(entry["metrics"])
    assert yaml.safe_load(shared["provenance"]["config"])["encoding"]["batch_size"] == 1
    _, rows = (
        EmbeddingStore(tmp_path / "kept")
        .group("image", "embeddings", transform="Squeeze(size=32)")
        .all_rows()
    )
    assert len(rows) == 2 and bool(torch.isfinite(rows).all())

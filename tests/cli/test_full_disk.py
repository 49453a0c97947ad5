"""What is written goes to disk whole; where there is no room the message names the place, and nothing stays behind."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from hypvl.cli.common import run_main
from hypvl.cli.summarize_results import main as summarize
from hypvl.config import LazyConfig
from hypvl.embedding.search_index import SearchIndex, save_index
from hypvl.embedding.store_files import write_json
from hypvl.errors import DataError
from hypvl.evaluation.mean_removal import ModalityMeans, save
from hypvl.evaluation.results import ResultsFile
from hypvl.io.files import write_output
from hypvl.io.json_text import json_bytes
from hypvl.report.tables import results_csv
from hypvl.report.traversal import draw_traversal
from tests.io.limits import largest_file

LONG = {"text": "x" * 5000}


def _results(folder: Path) -> None:
    file = ResultsFile(folder / "results.json", subject={}, provenance={}, as_csv=results_csv)
    file.put("a", {"status": "ok", "metrics": {}, **LONG}, digest="1")


def _means(folder: Path, suffix: str) -> None:
    mean, other = torch.zeros(2000), torch.ones(2000)
    save(ModalityMeans(mean, other, images=1, texts=1, set_name="x", model="x"), folder / f"means{suffix}")


def _traversal(folder: Path) -> None:
    Image.new("RGB", (8, 8)).save(folder / "in.png")
    steps = [{"text": "a", "radius": 1.0}]
    result = {"steps": steps, "root": "geometry", "image": str(folder / "in.png")}
    (folder / "in.json").write_text(json.dumps(result))
    draw_traversal(folder / "in.json", folder / "a.png")


WRITERS: dict[str, Callable[[Path], object]] = {
    "results": _results,
    "means": lambda folder: _means(folder, ".safetensors"),
    "means as torch": lambda folder: _means(folder, ".pt"),
    "index": lambda folder: save_index(SearchIndex(torch.zeros(99, 99), ["a"] * 99, {}), folder),
    "store": lambda folder: write_json(folder / "a.json", LONG),
    "placing": lambda folder: write_output(folder / "a.json", json_bytes(LONG), flag="--output-dir"),
    "config": lambda folder: LazyConfig.save(OmegaConf.create(LONG), folder / "a.yaml"),
    "image": _traversal,
}


@pytest.mark.parametrize("name", WRITERS)
def test_no_room_is_named(name: str, tmp_path: Path) -> None:
    with largest_file(1000), pytest.raises((DataError, OSError)) as caught:
        WRITERS[name](tmp_path)
    assert str(tmp_path) in str(caught.value) and "File too large" in str(caught.value)
    left = {path.name for path in tmp_path.iterdir()} - {
        ".results.json.lock",
        "results.json",
        "results.csv",
        "in.png",
        "in.json",
    }
    assert not left


def test_a_full_disk_is_one_line_on_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(30):
        entry = {"status": "ok", "metrics": {"top1_accuracy": 50.0}}
        origin = {"checkpoint": f"{number}.pth", "checkpoint_sha256": str(number)}
        content = {"provenance": origin, "results": {"a": entry}}
        (tmp_path / f"results_{number}.json").write_text(json.dumps(content))
    with largest_file(100):
        assert run_main(summarize, [str(tmp_path)]) == 1
    err = capsys.readouterr().err
    assert (
        err.startswith(f"error: --output: {tmp_path / 'summary.csv'} cannot be written (File too large)")
        and err.count("\n") == 1
    )
    assert not (tmp_path / "summary.csv").exists()

from pathlib import Path

import pytest

from benchmarks import async_checkpoints
from benchmarks.step import Ours, batch_of
from tests.benchmarks.test_step import CPU, TINY


def test_figures_of_a_tiny_run(tmp_path: Path) -> None:
    flags = ["--batch", "2", "--steps", "4", "--period", "2", "--repeats", "1", "--folder", str(tmp_path)]
    result = async_checkpoints.measure(async_checkpoints.parser().parse_args([*flags, "--ours", *TINY]))
    assert result["mb"] > 9  # the table of tokens is 49,408 x 16 x 4 bytes, and its moments
    assert result["held_ratio"] > 0 and result["held_seconds_at_once"] > 0
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("way", "stops"), [("none", 0), ("at_once", 2), ("thread", 2)])
def test_each_way_saves_as_often_as_it_says(tmp_path: Path, way: str, stops: int) -> None:
    ours = Ours(TINY, CPU)
    batch = batch_of(2, 12.0, size=ours.image_size)
    _, held, size = async_checkpoints.run(ours, batch, tmp_path, way, steps=4, period=2)
    assert len(held) == stops and (size > 0) == (stops > 0) and ours.trainer.iteration == 4


def test_a_run_that_would_not_end_with_a_checkpoint_is_refused() -> None:
    with pytest.raises(SystemExit, match="a multiple of --period"):
        async_checkpoints.measure(async_checkpoints.parser().parse_args(["--steps", "5", "--period", "2"]))

"""Killed runs on mixtures and streams go on as docs/data.md promises; so do evaluations and the best checkpoint."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig

from hypvl.config import LazyCall as L
from hypvl.data.mix import MixedSources
from hypvl.data.stream import WebDatasetStream
from hypvl.models.checkpoint_io import load_checkpoint
from hypvl.models.dual_encoder import DualEncoder
from hypvl.training.checkpoints.same_state import state_differences
from hypvl.training.config import EvaluateConfig
from tests.data.helpers import write_tar
from tests.test_demo_recipes import read_tar, shard
from tests.training.killed import differences, records, samples, train
from tests.training.test_exact_resume import SAVED, STEPS, killed_and_resumed, recipe

__all__ = ["shard"]  # a fixture
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_mixture_goes_on_exactly(ranks: int, shard: Path, tmp_path: Path) -> None:
    cfg = recipe("meru", shard, tmp_path)
    cfg.dataset = L(MixedSources)(sources={"a": cfg.dataset, "b": cfg.dataset}, mix={"a": 3, "b": 1})
    train(cfg, tmp_path / "whole", ranks=ranks)
    again = killed_and_resumed(cfg, tmp_path / "again", ranks=ranks, workers=(2, 0))
    assert differences(tmp_path / "whole", again) == []
    assert records(again)[-1]["share/b"] == records(tmp_path / "whole")[-1]["share/b"] > 0


def test_a_stream_goes_on_with_the_next_shards_the_same_way_every_time(shard: Path, tmp_path: Path) -> None:
    members = read_tar(shard)
    for i in range(24):  # more samples than are trained on: none comes twice in an epoch
        some = members[2 * (i % 8) : 2 * (i % 8) + 8]
        write_tar(tmp_path / f"s{i:02d}.tar", [(f"{i:02d}-{name}", data) for name, data in some])
    cfg = recipe("meru", shard, tmp_path)
    cfg.dataset = L(WebDatasetStream)(
        tarfiles=f"pipe:cat {tmp_path}/s{{00..23}}.tar", allow_pipe=True, samples_per_epoch=96, shuffle_window=3,
        **{key: cfg.dataset[key] for key in ("mapper", "image_transform", "tokenizer")},
    )  # fmt: skip
    one, two = (killed_and_resumed(cfg, tmp_path / name, workers=(1, 1)) for name in ("one", "two"))
    assert differences(one, two) == []
    seen, after = samples(one, resumed=False), samples(one, resumed=True)
    assert list(after) == list(range(SAVED, STEPS)) and all(len(rows) == 8 for rows in after.values())
    before, behind = (
        [key for rows in batches for key in rows]
        for batches in ([seen[i] for i in range(SAVED)], after.values())
    )
    assert len({*before, *behind}) == len([*before, *behind]) == 8 * STEPS  # each sample once at most
    shards = [{key.rpartition("/")[2].partition("-")[0] for key in keys} for keys in (before, behind)]
    assert not shards[0] & shards[1]  # the rest of a shard that was being read is left out


@dataclass
class Sizes:
    """An evaluation that is a number of the weights, so that it rises and falls."""

    settings: EvaluateConfig
    names = ("size",)

    def measure(self, name: str, model: DualEncoder) -> Mapping[str, Any]:
        value = sum(float(parameter.detach().sin().sum()) for parameter in model.parameters())
        return {"status": "ok", "metrics": {"sum": value}, "meta": {"main_metric": "sum"}}


@pytest.mark.parametrize("mode", ["max", "min"])
def test_evaluations_and_the_best_checkpoint_go_on(mode: str, shard: Path, tmp_path: Path) -> None:
    cfg: DictConfig = recipe(
        "meru", shard, tmp_path, audit={"every": 2, "samples": 8, "aperture_factor": 1.0}
    )
    cfg.train.evaluate.update(every=1, config="eval_demo")
    cfg.train.keep_best.update(metric="size/sum", mode=mode)
    train(cfg, tmp_path / "whole", make_suite=Sizes)
    again = killed_and_resumed(cfg, tmp_path / "again", make_suite=Sizes)
    assert differences(tmp_path / "whole", again) == []
    best = [load_checkpoint(folder / "checkpoint_best.pth") for folder in (tmp_path / "whole", again)]
    assert state_differences(*best) == [] and best[0]["best"]["metric"] == "size/sum"
    audits = [(folder / "audit.jsonl").read_text() for folder in (tmp_path / "whole", again)]
    assert audits[0] == audits[1] and len(audits[0].splitlines()) == STEPS // 2

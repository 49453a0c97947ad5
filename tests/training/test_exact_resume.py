"""Training N steps equals training k, dying by SIGKILL, and training on: weights, moments, generators and records.

Processes really die, in the middle of a step, with records behind the checkpoint that the run goes on from. The default
suite does it for MERU; the slow tests for every kind of objective, 0 and 2 data workers, 1 and 2 ranks.
"""

from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig

from tests.test_demo_recipes import CONFIGS, shard, start, tiny
from tests.training.killed import differences, largest_difference, records, samples, train

__all__ = ["shard"]  # a fixture

STEPS, SAVED, KILLED = 8, 4, 6
RECIPES = (
    "clip", "meru", "atmg", "hycoclip", "ceclip", "i0t_async", "uncha", "distill_seed", "dino", "protoclip"
)  # fmt: skip


def recipe(name: str, shard: Path, folder: Path, **settings: Any) -> DictConfig:
    """A demo recipe of tiny encoders, whose loss terms are all at work; a checkpoint every SAVED steps."""
    cfg = tiny(CONFIGS / f"train_{name}_demo.py", shard)
    folder.mkdir(parents=True, exist_ok=True)
    start(cfg, shard, folder)  # weights to begin with, where it needs them
    for term in cfg.train.objective.get("warmup") or {}:
        cfg.train.objective.warmup[term] = [1, 3]
    cfg.train.update(
        num_iterations=STEPS, total_batch_size=8, checkpoint_period=SAVED, log_period=3, root_samples=8,
        **settings,
    )  # fmt: skip
    return cfg


def killed_and_resumed(
    cfg: DictConfig, folder: Path, *, ranks: int = 1, workers: tuple[int, int] = (0, 0), **how: Any
) -> Path:
    """A run of STEPS steps that died behind its checkpoint, with other numbers of workers before and after."""
    cfg = cfg.copy()
    cfg.train.num_workers = workers[0]
    train(cfg, folder, ranks=ranks, killed_after=KILLED, **how)
    assert (folder / "last_checkpoint.txt").read_text().strip() == f"checkpoint_{SAVED:08d}.pth"
    assert records(folder)[-1]["iteration"] == KILLED
    cfg.train.num_workers = workers[1]
    how.pop("who", None)
    train(cfg, folder, ranks=ranks, resume=True, **how)
    return folder


def test_a_killed_run_goes_on_exactly(shard: Path, tmp_path: Path) -> None:
    cfg = recipe("meru", shard, tmp_path)
    train(cfg, tmp_path / "whole")
    again = killed_and_resumed(cfg, tmp_path / "again", workers=(0, 2))
    assert differences(tmp_path / "whole", again) == []
    assert [record["iteration"] for record in records(again)] == [3, 6, 8]


@pytest.mark.slow
@pytest.mark.parametrize(("ranks", "workers"), [(1, (0, 2)), (2, (2, 2))], ids=str)
@pytest.mark.parametrize("name", RECIPES)
def test_every_objective_goes_on_exactly(
    name: str, ranks: int, workers: tuple[int, int], shard: Path, tmp_path: Path
) -> None:
    cfg = recipe(name, shard, tmp_path)
    train(cfg, tmp_path / "whole", ranks=ranks)
    again = killed_and_resumed(cfg, tmp_path / "again", ranks=ranks, workers=workers)
    assert differences(tmp_path / "whole", again) == []


@pytest.mark.slow
@pytest.mark.parametrize(("name", "ranks"), [*((name, 2) for name in RECIPES), ("meru", 1), ("ceclip", 1)])
def test_with_gradient_caching(name: str, ranks: int, shard: Path, tmp_path: Path) -> None:
    cfg = recipe(name, shard, tmp_path, grad_cache={"micro_batch": 3})
    train(cfg, tmp_path / "whole", ranks=ranks)
    again = killed_and_resumed(cfg, tmp_path / "again", ranks=ranks)
    assert differences(tmp_path / "whole", again) == []


@pytest.mark.slow
@pytest.mark.parametrize("dead", [0, 1])
def test_one_rank_of_two_dies(dead: int, shard: Path, tmp_path: Path) -> None:
    cfg = recipe("meru", shard, tmp_path)
    train(cfg, tmp_path / "whole", ranks=2)
    again = killed_and_resumed(cfg, tmp_path / "again", ranks=2, who={dead})
    assert differences(tmp_path / "whole", again) == []


@pytest.mark.slow
def test_a_run_that_dies_before_its_first_checkpoint_begins_anew(shard: Path, tmp_path: Path) -> None:
    cfg = recipe("meru", shard, tmp_path)
    train(cfg, tmp_path / "whole")
    for killed_after in (0, SAVED - 1):  # in its first step, and with a record already written
        again = tmp_path / f"again_{killed_after}"
        train(cfg, again, killed_after=killed_after)
        train(cfg, again, resume=True)
        assert differences(tmp_path / "whole", again) == []


@pytest.mark.slow
@pytest.mark.parametrize("before", [1, 2])
@pytest.mark.parametrize("name", ["clip", "meru", "hycoclip"])
def test_another_number_of_ranks_sees_the_same_samples(
    name: str, before: int, shard: Path, tmp_path: Path
) -> None:
    """At the same global batch; sums of floats in another order are other floats, a little."""
    cfg = recipe(name, shard, tmp_path)
    whole, again = tmp_path / "whole", tmp_path / "again"
    train(cfg, whole, ranks=before)
    train(cfg, again, ranks=before, killed_after=KILLED)
    train(cfg, again, ranks=3 - before, resume=True)
    expected = samples(whole, resumed=False)
    assert samples(again, resumed=True) == {i: expected[i] for i in range(SAVED, STEPS)}
    assert samples(again, resumed=False) == {i: expected[i] for i in range(KILLED)}
    assert largest_difference(whole, again) < 1e-5

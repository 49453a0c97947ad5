"""What `train` of a config may say."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from hypvl.config import LazyConfig
from hypvl.errors import ConfigError
from hypvl.training.config import TrainConfig

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
INF, NAN = float("inf"), float("nan")
WRONG = {
    "seed": [-1, 0.5, 2**70, NAN, "many", None],
    "num_iterations": [0, -1, 1.5, INF, True, None],
    "total_batch_size": [0, -1, "4k", None],
    "accumulate": [0, None],
    "naive_accumulate": [0, 1.5],
    "grad_cache.micro_batch": [0, -1, "x"],
    "num_workers": [-1, NAN],
    "amp": ["half", True, None, 16],
    "grad_clip_norm": [0, -1, NAN, INF, "x", True],
    "compile": ["yes", 1, None],
    "init_checkpoint": ["", 3],
    "init_missing": ["name", 3, [1]],
    "init_positions": ["long", None],
    "checkpoint_period": [0, -1],
    "keep_checkpoints": [0, -1, 1.5],
    "log_period": [0, -1, None],
    "root_samples": [0, -1, NAN],
    "audit.every": [-1],
    "audit.samples": [1],
    "audit.aperture_factor": [0, -1, NAN, INF],
    "evaluate.every": [-1, 0.5, None],
    "evaluate.config": ["", 3],
    "evaluate.only": ["name", [], [3]],
    "evaluate.overrides": ["a.b=1", [3]],
    "keep_best.metric": ["", 3, "top1_accuracy", "top1_accuracy/"],
    "keep_best.mode": ["best", None],
    "ddp.static_graph": ["yes", 0],
    "ddp.fp16_compression": [None],
    "wandb.mode": ["on", True, None],
    "max_skipped_steps": [0, -1, 2.5, None],
    "timeout_s": [0, -1, NAN, INF, None],
    "wandb.project": ["", None],
    "wandb.name": [3],
    "grad_cache": [3, [1]],
}
RIGHT = {
    "seed": [0, 7], "num_workers": [0], "num_iterations": [1, 1e3], "grad_clip_norm": [None, 1, 0.5],
    "keep_checkpoints": [None, 1], "amp": [False, "fp16"], "audit.every": [0], "grad_cache": [None, {}],
    "evaluate.every": [0], "evaluate.only": [None, ["imagenet"]], "evaluate.overrides": [["roots.eval=/data"]],
    "keep_best.metric": [None], "keep_best.mode": ["min"], "keep_best": [None], "wandb": [None],
    "wandb.mode": ["online"], "init_missing": [None, [], ["*.log_scale"]],
}  # fmt: skip


def settings(key: str, value: Any) -> dict[str, Any]:
    node = OmegaConf.create({"objective": {"_target_": "x"}})
    OmegaConf.update(node, key, value)
    return node  # type: ignore[return-value]  # a mapping


@pytest.mark.parametrize(("key", "value"), [(k, v) for k, values in WRONG.items() for v in values])
def test_a_value_that_makes_no_sense_is_named(key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"^train\.{key}(\.0)?: got .*; expected .*\.$"):
        TrainConfig.read(settings(key, value))


@pytest.mark.parametrize(("key", "value"), [(k, v) for k, values in RIGHT.items() for v in values])
def test_edges_that_make_sense(key: str, value: Any) -> None:
    result: Any = TrainConfig.read(settings(key, value))
    for name in key.split("."):
        result = getattr(result, name)
    if dataclasses.is_dataclass(result):
        assert result == type(result)()
    else:
        assert result == (tuple(value) if isinstance(value, list) else value)


@pytest.mark.parametrize("value", ["off", False])  # YAML reads off as false
def test_wandb_that_is_off_is_disabled(value: Any) -> None:
    assert TrainConfig.read(settings("wandb.mode", value)).wandb.mode == "disabled"


def test_defaults_are_those_of_the_building_block() -> None:
    """So that deleting a key gives what the file says."""
    written = OmegaConf.to_container(LazyConfig.load(CONFIGS / "common" / "train.py").train)
    defaults = dataclasses.asdict(TrainConfig.read({"objective": {}}))
    del defaults["objective"]
    assert written == defaults


@pytest.mark.parametrize("key", [k for k in WRONG if k != "objective"])
def test_a_deleted_key_is_its_default(key: str) -> None:
    cfg = LazyConfig.load(CONFIGS / "train_clip_vit_b.py")
    without = TrainConfig.read(LazyConfig.apply_overrides(cfg, [f"~train.{key}"]).train)
    assert without == TrainConfig.read(cfg.train)


def test_evaluation_needs_a_suite_and_a_best_checkpoint_needs_evaluation() -> None:
    given = {"objective": {}, "evaluate": {"every": 5}}
    with pytest.raises(
        ConfigError, match=r"^train\.evaluate\.config: got None with every=5; expected a suite"
    ):
        TrainConfig.read(given)
    best = {"keep_best": {"metric": "imagenet/top1_accuracy"}}
    with pytest.raises(
        ConfigError, match=r"^train\.keep_best\.metric: got 'imagenet/top1_accuracy', but nothing is"
    ):
        TrainConfig.read({"objective": {}} | best)
    given["evaluate"] = {"every": 5, "config": "eval_demo"}
    assert TrainConfig.read(given | best).keep_best.mode == "max"


def test_keys_that_do_not_exist_tell_the_closest() -> None:
    with pytest.raises(
        ConfigError, match=r"^unknown key 'train\.num_iters': the closest .* 'train\.num_iterations'\.$"
    ):
        TrainConfig.read({"objective": {}, "num_iters": 3})
    with pytest.raises(
        ConfigError, match=r"^unknown key 'train\.wandb\.projects': .* 'train\.wandb\.project'\.$"
    ):
        TrainConfig.read({"objective": {}, "wandb": {"projects": "x"}})
    with pytest.raises(ConfigError, match=r"^train\.objective: missing"):
        TrainConfig.read({})
    with pytest.raises(ConfigError, match=r"^train: got 3; expected a mapping"):
        TrainConfig.read(3)  # type: ignore[arg-type]  # refused


def test_references_are_followed_and_broken_ones_are_named() -> None:
    cfg = OmegaConf.create(
        {"train": {"objective": {}, "num_iterations": 50, "log_period": "${train.num_iterations}"}}
    )
    assert TrainConfig.read(cfg.train).log_period == 50
    cfg.train.log_period = "${train.nothing}"
    with pytest.raises(ConfigError, match=r"^train\.log_period: cannot be resolved: .*nothing"):
        TrainConfig.read(cfg.train)

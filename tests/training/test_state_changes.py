"""What may be another in a config when a run goes on."""

import json
from pathlib import Path

import pytest
from loguru import logger
from omegaconf import DictConfig, OmegaConf

from hypvl.config import LazyConfig, reader
from hypvl.errors import ConfigError
from hypvl.training.state import check_compatible, log_changes, saved_config

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def changed(*overrides: str, saved: tuple[str, ...] = ()) -> list[str]:
    cfg = LazyConfig.load(CONFIGS / "train_meru_demo.py")
    before = saved_config({"config": LazyConfig.to_yaml(LazyConfig.apply_overrides(cfg, saved))})
    assert before is not None
    return [str(c) for c in check_compatible(before, LazyConfig.apply_overrides(cfg, overrides))]


def test_the_same_config_has_no_difference() -> None:
    assert changed() == []


ALLOWED = {
    "optim.optimizer.lr=1e-9": "optim.optimizer.lr was 0.0005 and is 1e-09",
    "optim.parameters.weight_decay=0": "optim.parameters.weight_decay was 0.2 and is 0",
    "optim.optimizer.betas=[0.9,0.95]": "optim.optimizer.betas was [0.9, 0.98] and is [0.9, 0.95]",
    "optim.lr_scheduler.warmup_steps=7": "optim.lr_scheduler.warmup_steps was 100 and is 7",
    "train.log_period=3": "train.log_period was 50 and is 3",
    "train.checkpoint_period=3": "train.checkpoint_period was 500 and is 3",
    "train.amp=bf16": "train.amp was 'fp32' and is 'bf16'",
    "train.objective.weights.entailment=0.1": "train.objective.weights.entailment was 0.6 and is 0.1",
    "train.objective.warmup.entailment=[1,2]": "train.objective.warmup.entailment was [300, 600] and is [1, 2]",
    "train.objective.terms.entailment.aperture_factor=0.5":
        "train.objective.terms.entailment.aperture_factor was 1.0 and is 0.5",
    "dataset.max_bad_fraction=0.5": "dataset.max_bad_fraction was 0.1 and is 0.5",
    "+model.visual.grad_checkpointing=true": "model.visual.grad_checkpointing was False and is True",
}  # fmt: skip


@pytest.mark.parametrize("override", ALLOWED)
def test_what_takes_effect_is_listed_once(override: str) -> None:
    assert changed(override) == [ALLOWED[override]]
    assert changed(saved=(override,)) != []


def test_the_length_moves_the_schedule_that_refers_to_it() -> None:
    assert changed("train.num_iterations=1000") == [
        "optim.lr_scheduler.total_steps was 900 and is 1000",
        "train.num_iterations was 900 and is 1000",
    ]


def test_defaults_and_references_are_no_difference() -> None:
    """A recipe may say what was a default, or refer to what it said."""
    assert changed("+model.visual.drop_path_rate=0.0", "+optim.optimizer.weight_decay=0.01") == []
    assert changed("~train.root_samples", saved=("train.root_samples=65536",)) == []
    assert changed("train.wandb=null", "~train.audit") == []
    assert changed("train.log_period='${train.checkpoint_period}'", saved=("train.log_period=500",)) == []


REFUSED = {
    "train.seed=1": "train.seed was 0 and is 1",
    "train.total_batch_size=64": "train.total_batch_size was 128 and is 64",
    "train.naive_accumulate=2": "train.naive_accumulate was 1 and is 2",
    "model.visual.width=64": "model.visual.width was 128 and is 64",
    "model.geometry.learn_curv=false": "model.geometry.learn_curv was True and is False",
    "model.geometry={_target_: hypvl.geometry.sphere.Sphere}": "model.geometry._target_",
    "dataset.tokenizer.context_length=16": "dataset.tokenizer.context_length was 77 and is 16",
    "optim.optimizer._target_=torch.optim.SGD": "optim.optimizer._target_",
    "~train.objective.terms.entailment": "train.objective.terms.entailment was .* and is null",
    "'+train.objective.terms.align={_target_: hypvl.losses.uniformity.Align}'": "terms.align was null and is",
    "~train.objective.warmup": "train.objective.warmup was .* and is null",
    "+train.objective.warmup.contrastive=[1,2]": "warmup.contrastive was null and is",
    "train.objective.terms.entailment.general=image": "terms.entailment.general was 'text' and is 'image'",
}


@pytest.mark.parametrize("size", ["queue_size=512", "dim=64"])
def test_another_size_of_what_a_term_remembers_is_refused(size: str) -> None:
    seed = "'+train.objective.terms.seed={_target_: hypvl.losses.seed.SEED, student: image, teacher: text, dim: 32, "
    saved = (f"{seed}queue_size: 256, student_temperature: 0.2}}'".strip("'"),)
    name = size.partition("=")[0]
    with pytest.raises(
        ConfigError, match=rf"^--resume: train\.objective\.terms\.seed\.{name} was \d+ and is \d+"
    ):
        changed(*saved, f"train.objective.terms.seed.{size}", saved=saved)
    assert changed(*saved, "train.objective.terms.seed.student_temperature=0.1", saved=saved) == [
        "train.objective.terms.seed.student_temperature was 0.2 and is 0.1"
    ]


@pytest.mark.parametrize("override", REFUSED)
def test_what_would_be_another_run_is_refused_in_one_sentence(override: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"^--resume: .*{REFUSED[override]}.*: the result would be another run; "
    ):
        changed(override.strip("'"))


def test_all_that_is_refused_is_named_at_once() -> None:
    with pytest.raises(
        ConfigError, match=r"train\.seed was 0 and is 1; train\.total_batch_size was 128 and is 64"
    ):
        changed("train.seed=1", "optim.optimizer.lr=1", "train.total_batch_size=64")


def test_a_config_that_calls_something_is_not_read() -> None:
    assert saved_config({"config": "train: {seed: '${oc.env:HOME}'}"}) is None
    assert saved_config({"config": "train: ["}) is None
    assert saved_config({}) is None
    assert saved_config({"config": "a: 1\nb: ${a}\n"}) == {"a": 1, "b": 1}


def test_each_difference_is_one_line() -> None:
    lines: list[str] = []
    sink = logger.add(lines.append, format="{message}")
    log_changes(
        check_compatible({"optim": {"lr": 1}, "train": {}}, config({"optim": {"lr": 2}, "train": {}}))
    )
    log_changes(check_compatible({"train": {}}, config({"train": {"init_checkpoint": "x.pth"}})))
    logger.remove(sink)
    assert lines == [
        "config: optim.lr was 1 and is 2; takes effect\n",
        "config: train.init_checkpoint was null and is 'x.pth'; not used when resuming\n",
    ]


def config(data: dict[str, object]) -> DictConfig:
    made = OmegaConf.create(data)
    assert isinstance(made, DictConfig)
    return made


def test_a_renamed_target_or_argument_is_no_difference(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    part = "tests.config.parts.Part"
    (tmp_path / "renames.json").write_text(
        json.dumps({"targets": {"old.Part": part}, "arguments": {part: {"width": "features"}}, "values": {}})
    )
    monkeypatch.setattr(reader, "RENAMES", tmp_path / "renames.json")
    reader._rename_table.cache_clear()
    try:
        saved = saved_config({"config": "model: {_target_: old.Part, width: 3}\nx: '${model.width}'"})
    finally:
        reader._rename_table.cache_clear()
    assert saved is not None
    assert check_compatible(saved, config({"model": {"_target_": part, "features": 3}, "x": 3})) == []

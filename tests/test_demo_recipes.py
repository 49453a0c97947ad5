"""Every demo recipe takes 20 real steps on a little demo data: a run as `scripts/train.py` does it, with tiny encoders.

A recipe is found by its name, `configs/train_*_demo.py`; nothing else has to be listed here. The default suite runs one
recipe of each kind, the others are slow tests; two steps of every recipe are in tests/test_configs.py.
"""

import fnmatch
import json
import math
import tarfile
from pathlib import Path
from typing import Any

import pytest
import torch
from loguru import logger
from omegaconf import DictConfig
from torch import Tensor

from hypvl.config import LazyConfig, instantiate
from hypvl.data.demo.build import DemoArguments, make_demo_data
from hypvl.models.checkpoint_io import load_checkpoint
from hypvl.models.dual_encoder import DualEncoder
from hypvl.models.weights import load_weights
from hypvl.training.run import RunOptions, run_training
from tests.data.helpers import write_tar
from tests.test_configs import learner_of, teachers_of

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
DEMOS = sorted(CONFIGS.glob("train_*_demo.py"))
# One of each kind of data, model and state: the rest differs in its loss, which has tests of its own.
ONE_OF_EACH = {
    "train_meru_demo", "train_hycoclip_demo", "train_ceclip_demo", "train_i0t_stage1_demo", "train_distill_seed_demo",
    "train_protoclip_demo", "train_simcse_demo", "train_meru_from_clip_lora_demo",
}  # fmt: skip
RECIPES = [
    pytest.param(path, id=path.stem, marks=() if path.stem in ONE_OF_EACH else pytest.mark.slow)
    for path in DEMOS
]
STEPS, ROWS = 20, 32
WARMUP = [1, 5]
# Their target is an average of the student, centred: the first losses, before the centre is there, are the lowest.
MOVING_TARGET = {"train_dino_demo"}
SMALL = {"width": 32, "depth": 1, "heads": 2, "image_size": 32, "patch_size": 16, "stem_convs": 1}


@pytest.fixture(scope="session")
def shard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 scenes and 8 digits: one global batch, so that an epoch is a step and steps can be compared."""
    folder = tmp_path_factory.mktemp("demo")
    make_demo_data(folder / "all", DemoArguments(num_train=24, num_test=4, num_digits=100))
    members: list[tuple[str, bytes]] = []
    for name, samples in (("scenes", 24), ("digits", 8)):
        paths = sorted((folder / "all" / "train").glob(f"{name}-*.tar"))
        members += [m for path in paths for m in read_tar(path)][: 2 * samples]
    assert len(members) == 2 * ROWS
    return write_tar(folder / "few.tar", members)


def read_tar(path: Path) -> list[tuple[str, bytes]]:
    with tarfile.open(path) as archive:
        return [(member.name, archive.extractfile(member).read()) for member in archive]  # type: ignore[union-attr]


def tiny(path: Path, shard: Path) -> DictConfig:
    """The recipe with small encoders, on few samples, at a rate that shows within 20 steps."""
    cfg = LazyConfig.load(path)
    for model in [cfg.model, *(teacher.model for teacher in teachers_of(cfg) if "model" in teacher)]:
        for key in SMALL.keys() & (model.visual or {}).keys():
            model.visual[key] = SMALL[key]
        if model.textual is not None:
            model.textual.arch = "L1_W32_A2"
    for term in cfg.train.objective.terms.values():
        if "episode" in term:
            term.update(episode=2 * ROWS, clusters=8)
        if "external_clusters" in term:
            term.external_clusters = 8
    cfg.dataset.tarfiles = [str(shard)]
    cfg.dataset.image_transform.size = SMALL["image_size"]
    cfg.optim.optimizer.lr = 3e-3
    cfg.optim.lr_scheduler.warmup_steps = 2
    for name in cfg.train.objective.get("warmup") or {}:
        cfg.train.objective.warmup[name] = WARMUP  # of the terms' weights
    cfg.train.update(
        num_iterations=STEPS, total_batch_size=ROWS, num_workers=0, root_samples=ROWS, checkpoint_period=10**6,
        log_period=1, compile=False,
    )  # fmt: skip
    return cfg


def start(cfg: DictConfig, shard: Path, folder: Path) -> dict[str, Tensor]:
    """The weights a run begins with. A second stage begins with those of a first one, here of the CLIP demo's."""
    torch.manual_seed(int(cfg.train.seed))
    model: DualEncoder = instantiate(cfg.model)
    if cfg.train.init_checkpoint is not None:
        cfg.train.init_checkpoint = str(folder / "first_stage.pth")
        first = instantiate(tiny(CONFIGS / "train_clip_demo.py", shard).model)
        torch.save({"model": first.state_dict()}, cfg.train.init_checkpoint)
        missing = [pattern.removeprefix("model.") for pattern in cfg.train.init_missing or ()]
        load_weights(
            model,
            cfg.train.init_checkpoint,
            strict=False,
            allow_missing=missing,
            positions=cfg.train.get("init_positions", "exact"),
        )
    return {name: value.clone() for name, value in model.state_dict().items()}


def trained_and_frozen(cfg: DictConfig) -> tuple[set[str], set[str]]:
    """Names of the model's parameters that the recipe trains, and of those that it leaves alone."""
    learner = learner_of(cfg)
    names = {name for name, parameter in learner.named_parameters() if parameter.requires_grad}
    patterns = cfg.optim.parameters.get("trainable")
    if patterns is not None:
        names = {name for name in names if any(fnmatch.fnmatch(name, p) for p in patterns)}
        assert names, f"{list(patterns)} trains nothing"
    for pattern in cfg.optim.parameters.get("frozen") or ():
        names -= set(fnmatch.filter(names, pattern))
    names = {name.removeprefix("model.") for name in names if name.startswith("model.")}
    return names, {name for name, _ in learner.model.named_parameters()} - names


@pytest.mark.parametrize("path", RECIPES)
def test_twenty_steps(path: Path, shard: Path, tmp_path: Path) -> None:
    cfg = tiny(path, shard)
    before = start(cfg, shard, tmp_path)
    run_training(cfg, RunOptions(output_dir=tmp_path / "run"))
    logger.remove()
    records: list[dict[str, Any]] = [
        json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    ]
    assert [record["iteration"] for record in records] == list(range(1, STEPS + 1))
    assert records[-1]["bad_samples"] == records[-1]["skipped_steps"] == 0
    for name in cfg.train.objective.terms:
        values = [record[name] for record in records]
        assert all(math.isfinite(value) for value in values), f"{name}: {values}"
        assert all(value != 0 for value in values[:5]), f"{name}: {values}"
    weights = instantiate(cfg.train.objective).weights
    losses = [sum(weight * record[name] for name, weight in weights.items()) for record in records]
    assert records[-1]["loss"] == pytest.approx(losses[-1], rel=1e-4)  # float32; after the warm-up of terms
    if path.stem not in MOVING_TARGET:
        assert sum(losses[-5:]) < sum(losses[:5]), losses
    after = load_checkpoint(tmp_path / "run" / "checkpoint_final.pth")["model"]
    trained, frozen = trained_and_frozen(cfg)
    assert {name for name in trained if torch.equal(after[name], before[name])} == set()
    assert {name for name in frozen if not torch.equal(after[name], before[name])} == set()
    assert all(torch.isfinite(value).all() for value in after.values() if value.is_floating_point())

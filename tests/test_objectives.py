"""Every objective of configs/common/objective/: also what no recipe uses yet can be named in a config."""

import math
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from hypvl.config import LazyConfig, instantiate
from hypvl.geometry.scorers import Cosine
from hypvl.geometry.sphere import Sphere
from hypvl.losses.base import IMAGE, TEXT, Objective
from tests.losses.toy import GeometryOnly, context

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
OBJECTIVES = sorted((CONFIGS / "common" / "objective").glob("*.py"))


@pytest.mark.parametrize("path", OBJECTIVES, ids=lambda p: p.stem)
def test_builds_from_what_a_run_saves(path: Path, tmp_path: Path) -> None:
    cfg = LazyConfig.load(path)
    LazyConfig.save(cfg, tmp_path / "saved.yaml")
    again = LazyConfig.load(tmp_path / "saved.yaml")  # only what is on the allow-list
    assert OmegaConf.to_container(again) == OmegaConf.to_container(cfg)
    objective = instantiate(again.objective)
    assert isinstance(objective, Objective)
    assert set(cfg.objective.weights) == set(cfg.objective.terms), "say the weight of every term"
    assert all(weight > 0 for weight in objective.weights.values())


def _objective(name: str) -> Objective:
    return instantiate(LazyConfig.load(CONFIGS / "common" / "objective" / f"{name}.py").objective)


@pytest.mark.parametrize(
    ("name", "spread"), [("align_uniform", -8.0), ("cross_uniform", -12.0), ("modgap", -4.0)]
)
def test_gap_closing_objectives_by_hand(name: str, spread: float) -> None:
    """Orthonormal pairs, text = image, scale 1: the contrastive term is log(e + 2) - 1, nothing is left to align,
    and all pairs of rows (of both, across, of centres) are at squared distance 2, each term -4."""
    model = GeometryOnly(Sphere(), Cosine())
    model.scorer.log_scale.data.fill_(0.0)
    eye = torch.eye(3, dtype=torch.float64)
    total = _objective(name)(context(model, {IMAGE: eye, TEXT: 2 * eye})).total.item()
    assert total == pytest.approx(math.log(math.e + 2) - 1 + spread, rel=1e-9)


def test_published_weights() -> None:
    cyclip = LazyConfig.load(CONFIGS / "train_cyclip_vit_b_32.py")
    assert dict(cyclip.train.objective.weights) == {"contrastive": 1.0, "in_modal": 0.25, "cross_modal": 0.25}
    assert (cyclip.train.total_batch_size, cyclip.optim.optimizer.lr) == (128, 5e-4)
    assert (cyclip.optim.parameters.weight_decay, cyclip.optim.lr_scheduler.warmup_steps) == (0.1, 10_000)
    cloob = LazyConfig.load(CONFIGS / "train_cloob_vit_b_32.py").train.objective.terms.cloob
    assert (cloob.beta, cloob.inv_tau, cloob.learn_inv_tau) == (8.0, 30.0, False)
    long_clip = LazyConfig.load(CONFIGS / "train_longclip_vit_b_32.py")
    assert (long_clip.optim.optimizer.lr, long_clip.optim.parameters.weight_decay) == (1e-6, 1e-2)
    assert (long_clip.optim.lr_scheduler.warmup_steps, long_clip.model.scorer.log_scale_init) == (200, 4.6052)
    terms = long_clip.train.objective.terms
    assert (terms.short.components, terms.short.label_smoothing, terms.long.label_smoothing) == (32, 0.1, 0.1)
    assert long_clip.model.textual.context_length == long_clip.dataset.tokenizer.context_length == 248
    stage_1 = LazyConfig.load(CONFIGS / "train_i0t_stage1_vit_b_32.py")
    assert stage_1.train.objective == cyclip.train.objective
    assert (stage_1.optim.optimizer.lr, stage_1.train.total_batch_size, stage_1.dataset.subset) == (
        1e-4,
        32,
        "coco",
    )
    siglip = LazyConfig.load(CONFIGS / "train_siglip_vit_b.py").model.scorer
    assert (siglip.bias_init, siglip.log_scale_init) == (-10.0, pytest.approx(math.log(10)))

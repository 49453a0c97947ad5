"""Every config in configs/ loads, saves, reloads, builds a tiny version and takes a step on the CPU."""

import copy
import functools
import re
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from hypvl.config import LazyConfig, instantiate
from hypvl.training.hooks.episodes import episodic_terms, kmeans_labels
from hypvl.training.step import Learner

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
TRAIN = sorted(CONFIGS.glob("train_*.py"))
EVAL = sorted(CONFIGS.glob("eval_*.py"))
ROWS = 4
PROTOTYPES = 16
TINY_BERT = {
    "model_type": "bert", "vocab_size": 49_408, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
    "intermediate_size": 64, "max_position_embeddings": 80,
}  # fmt: skip


@functools.cache
def config(path: Path) -> DictConfig:
    """The config of a file, to be read only."""
    return LazyConfig.load(path)


def shrink(cfg: DictConfig) -> DictConfig:
    """The same recipe with small encoders and short episodes, at a rate that shows after one step in fp32."""
    for model in [cfg.model, *(teacher.model for teacher in teachers_of(cfg) if "model" in teacher)]:
        shrink_model(model)
    for term in cfg.train.objective.terms.values():
        if "episode" in term:
            term.update(episode=ROWS, clusters=3, hidden=16)
        if "count" in term:
            term.count = PROTOTYPES
        if "queue_size" in term:
            term.queue_size = 8 * ROWS
    cfg.optim.optimizer.lr, cfg.optim.lr_scheduler.warmup_steps = 1e-3, 2
    return cfg


def teachers_of(cfg: DictConfig) -> list[DictConfig]:
    """The teachers of a recipe, which start from no file here."""
    teachers = list((cfg.train.get("teachers") or {}).values())
    for teacher in teachers:
        if "checkpoint" in teacher:
            teacher.checkpoint = None
    return teachers


def shrink_model(model: DictConfig) -> None:
    """Small encoders in place of those of a model."""
    visual = model.visual
    if visual is not None and visual["_target_"].endswith("TimmImageEncoder"):
        visual.arch = "vit_tiny_patch16_224"
        visual.image_size = 32
        visual.timm_args = {"depth": 1, "embed_dim": 32, "num_heads": 2}
    if model.textual is not None and "name" in model.textual:
        model.textual.update(name=None, config=TINY_BERT)
    elif model.textual is not None:
        model.textual.arch = "L1_W32_A2"
    for head in (model.visual_head, model.textual_head):
        if head is not None and head.get("prototypes") is not None:
            head.prototypes = PROTOTYPES


def learner_of(cfg: DictConfig) -> Learner:
    """What a run would train."""
    return Learner(
        instantiate(cfg.model), instantiate(cfg.train.objective), instantiate(cfg.train.get("teachers") or {})
    )


def batch_for(learner: Learner) -> dict[str, Any]:
    """A batch with every view that the learner asks for; texts of ``negative_*`` come three per sample."""
    generator = torch.Generator().manual_seed(0)
    model = learner.model
    batch: dict[str, Any] = {"position": torch.arange(ROWS), "index": torch.arange(ROWS)}
    for view in learner.views:
        if view.modality == "image":
            size = model.image_size
            images = torch.randint(0, 256, (ROWS, 3, size, size), generator=generator, dtype=torch.uint8)
            name, dot, number = view.source.partition(".")
            if dot:  # crops come as a list
                batch[name] = {**batch.get(name, {}), number: images}
            else:
                batch[name] = images
        else:
            per_sample = 3 if view.source.startswith("negative") else 1
            batch[view.source] = torch.randint(1, 400, (per_sample * ROWS, 9), generator=generator)
            batch[view.source][:, -1] = int(getattr(model.textual, "eot_token", 1))
            if per_sample > 1:
                batch[view.source.replace("_text", "_mask")] = torch.ones(ROWS, per_sample, dtype=torch.bool)
            if view.source == "query_text":  # one of each sample, each the parent of the next
                batch["query_owner"] = torch.arange(ROWS)
                batch |= {"query_parent": torch.arange(ROWS) - 1, "query_weight": torch.ones(ROWS)}
    if "labels" in learner.objective.entries:
        batch["labels"] = torch.tensor([0, 1, 1, -1])
    return batch


@torch.no_grad()
def begin_episodes(learner: Learner, batch: dict[str, Any]) -> None:
    """Let the terms that have episodes see the batch, which is a whole one."""
    for term in episodic_terms(learner).values():
        rows = term.episode_rows(learner.context(batch, term.episode_needs))
        term.begin_episode_(rows, first=0, cluster=partial(kmeans_labels, seed=0))


@pytest.mark.parametrize("path", [*TRAIN, *EVAL], ids=lambda p: p.stem)
def test_loads_saves_and_reloads_the_same(path: Path, tmp_path: Path) -> None:
    cfg = config(path)
    LazyConfig.save(cfg, tmp_path / "saved.yaml")
    again = LazyConfig.load(tmp_path / "saved.yaml")
    assert OmegaConf.to_container(again) == OmegaConf.to_container(cfg)


@pytest.mark.parametrize("path", [*TRAIN, *EVAL], ids=lambda p: p.stem)
def test_is_short_flat_and_says_how_to_run_it(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert len(lines) <= 30
    name = path.stem.removeprefix("train_").removeprefix("eval_")
    assert re.search(rf"hypvl (train|evaluate) --config {name}(\s|$)", path.read_text().split('"""')[1])


@pytest.mark.parametrize("path", TRAIN, ids=lambda p: p.stem)
def test_trains_one_tiny_step(path: Path) -> None:
    cfg = shrink(copy.deepcopy(config(path)))
    assert {"dataset", "model", "optim", "train"} <= set(cfg)
    torch.manual_seed(0)
    learner = learner_of(cfg)
    begin_episodes(learner, batch_for(learner))
    learner.objective.steps.fill_(10**6)  # every term has its full weight
    optimizer = instantiate(cfg.optim.optimizer)(instantiate(cfg.optim.parameters)(learner))
    schedule = instantiate(cfg.optim.lr_scheduler)(optimizer)
    before = {k: p.detach().clone() for k, p in learner.named_parameters()}
    for _ in range(2):  # the first step has learning rate 0 when there is a warm-up
        learner.constrain_()
        output, _ = learner(batch_for(learner))
        assert torch.isfinite(output.total)
        assert all(torch.isfinite(v) and v != 0 for v in output.terms.values()), output.terms
        optimizer.zero_grad()
        output.total.backward()
        optimizer.step()
        schedule.step()
    for name, parameter in learner.named_parameters():
        moved = not torch.equal(parameter.detach(), before[name])
        assert moved == (parameter.requires_grad and parameter.grad is not None), name
        assert parameter.requires_grad == (parameter.grad is not None), name


@pytest.mark.parametrize("path", TRAIN, ids=lambda p: p.stem)
def test_the_data_take_sizes_from_the_model(path: Path) -> None:
    """One key each: image size and text length."""
    cfg = copy.deepcopy(config(path))
    for tower, key, value in (("visual", "image_size", 96), ("textual", "context_length", 33)):
        if cfg.model[tower] is not None:
            cfg = LazyConfig.apply_overrides(cfg, [f"model.{tower}.{key}={value}"])
    if cfg.model.visual is not None:
        assert cfg.dataset.image_transform.size == 96
    if cfg.model.textual is not None and cfg.dataset.tokenizer is not None:  # None = the encoder's own
        assert cfg.dataset.tokenizer.context_length == 33


def test_the_large_recipe_is_the_base_of_the_others(tmp_path: Path) -> None:
    """Editing train_meru_vit_l.py changes S and B as well."""
    folder = tmp_path / "configs"
    shutil.copytree(CONFIGS, folder)
    with (folder / "train_meru_vit_l.py").open("a") as file:
        file.write("\noptim.optimizer.lr = 0.125\nmodel.geometry.curv_init = 0.5\n")
    for size in "sbl":
        cfg = LazyConfig.load(folder / f"train_meru_vit_{size}.py")
        assert cfg.optim.optimizer.lr == 0.125
        assert cfg.model.geometry.curv_init == 0.5
    assert LazyConfig.load(CONFIGS / "train_meru_vit_s.py").optim.optimizer.lr == 5e-4


def test_published_override_builds() -> None:
    cfg = LazyConfig.load(CONFIGS / "train_meru_vit_l.py")
    overrides = ["model.visual.arch=vit_base_patch16_224", "train.total_batch_size=4096"]
    cfg = LazyConfig.apply_overrides(cfg, overrides)
    model = instantiate(cfg.model)
    assert cfg.train.total_batch_size == 4096
    assert sum(p.numel() for p in model.visual.parameters()) == 85_798_656  # ViT-B/16 without a classifier


@pytest.mark.parametrize("family", ["clip", "meru", "atmg"])
def test_published_recipe_values(family: str) -> None:
    cfg = LazyConfig.load(CONFIGS / f"train_{family}_vit_l.py")
    assert (cfg.train.num_iterations, cfg.train.total_batch_size) == (120_000, 2048)
    assert (cfg.optim.optimizer.lr, list(cfg.optim.optimizer.betas)) == (5e-4, [0.9, 0.98])
    assert (cfg.optim.parameters.weight_decay, cfg.optim.parameters.gain_bias_decay) == (0.2, 0.2)
    assert cfg.optim.lr_scheduler.warmup_steps == 4000
    assert cfg.dataset.tarfiles == ["datasets/redcaps/*.tar"]
    assert list(cfg.dataset.image_transform.scale) == [0.5, 1.0]
    assert cfg.train.objective.weights.get("entailment") == (0.2 if family == "meru" else None)
    if family != "clip":
        geometry = cfg.model.geometry
        assert (geometry.curv_init, geometry.learn_curv) == (
            (1.0, True) if family == "meru" else (0.1, False)
        )


def test_published_hycoclip_values() -> None:
    cfg = LazyConfig.load(CONFIGS / "train_hycoclip_vit_l.py")
    assert (cfg.train.num_iterations, cfg.train.total_batch_size) == (500_000, 768)
    assert (cfg.model.geometry.curv_init, cfg.model.geometry.learn_curv) == (1.0, True)
    terms, weights = cfg.train.objective.terms, cfg.train.objective.weights
    assert {
        k: (t.general, t.specific, t.aperture_factor) for k, t in terms.items() if k != "contrastive"
    } == {
        "text_image_entailment": ("text", "image", 0.7),
        "box_text_image_entailment": ("text:box_text", "image:box_image", 0.7),
        "cross_image_entailment": ("image:box_image", "image", 1.2),
        "cross_text_entailment": ("text:box_text", "text", 1.2),
    }
    assert weights == {"contrastive": 1.0} | dict.fromkeys(set(terms) - {"contrastive"}, 0.1)
    assert LazyConfig.load(CONFIGS / "train_hycoclip_vit_s.py").model.visual.arch.startswith(
        "vit_small_mocov3"
    )

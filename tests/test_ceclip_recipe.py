"""CE-CLIP's recipe: the published numbers, and the published variants by override."""

from pathlib import Path

import pytest
import torch

from hypvl.config import LazyConfig, instantiate
from hypvl.data.negatives import HardNegativeMapper
from hypvl.geometry.scorers import Cosine
from hypvl.losses.cross_modal_rank import CrossModalRank
from hypvl.training.optim import parameter_groups

CONFIGS = Path(__file__).resolve().parents[1] / "configs"


def test_published_values() -> None:
    cfg = LazyConfig.load(CONFIGS / "train_ceclip_vit_b_32.py")
    optimizer, train = cfg.optim.optimizer, cfg.train
    assert (optimizer.lr, list(optimizer.betas), optimizer.eps) == (5e-6, [0.9, 0.98], 1e-6)
    assert (cfg.optim.parameters.weight_decay, cfg.optim.parameters.gain_bias_decay) == (0.1, 0.0)
    assert (cfg.optim.lr_scheduler.warmup_steps, train.seed, train.amp) == (50, 42, "fp16")
    assert (train.total_batch_size, train.num_iterations) == (378 * 4, 10 * 414_113 // 1512)
    assert train.objective.weights == {"contrastive": 1.0, "cross_modal_rank": 0.2, "intra_modal": 0.3}
    rank = train.objective.terms.cross_modal_rank
    assert (rank.kind, rank.upper_bound, rank.reset) == ("mean", 10.0, "epoch")
    assert train.objective.terms.contrastive.invalid_negatives == "keep"
    assert train.objective.terms.intra_modal.invalid_negatives == "keep"
    assert train.objective.terms.intra_modal.variant == "fixed"


def test_class_token_and_scale_are_not_decayed() -> None:
    """As every one-dimensional parameter of the published model."""
    cfg = LazyConfig.load(CONFIGS / "train_ceclip_vit_b_32.py")
    model = torch.nn.Module()
    model.cls_token = torch.nn.Parameter(torch.zeros(1, 1, 4))
    model.scorer = Cosine()
    model.norm, model.linear = torch.nn.LayerNorm(4), torch.nn.Linear(4, 4)
    options = {key: cfg.optim.parameters[key] for key in ("weight_decay", "gain_bias_decay", "exclude")}
    decayed = [group for group in parameter_groups(model, **options) if group["weight_decay"]]
    assert [[p.shape for p in group["params"]] for group in decayed] == [[(4, 4)]]  # type: ignore[attr-defined]  # a list


def test_published_rank_term_is_an_override_away() -> None:
    cfg = LazyConfig.load(CONFIGS / "train_ceclip_vit_b_32.py")
    place = "train.objective.terms.cross_modal_rank"
    cfg = LazyConfig.apply_overrides(cfg, [f"{place}.denominator=all", f"{place}.positives=all"])
    term = instantiate(cfg.train.objective).terms["cross_modal_rank"]
    assert isinstance(term, CrossModalRank)
    assert (term.denominator, term.positives) == ("all", "all")


def test_data_reads_generated_and_converted_files_alike() -> None:
    mapper = instantiate(LazyConfig.load(CONFIGS / "train_ceclip_vit_b_32.py").dataset.mapper)
    assert isinstance(mapper, HardNegativeMapper)
    assert mapper.types == ("relation", "attribute", "object", "action") and mapper.invalid_text == "empty"
    assert mapper.image_pattern == "COCO_train2014_{image_id:012d}.jpg"


def test_demo_masks_what_stands_in_for_absent_negatives() -> None:
    """The demo's stand-in is the caption itself, which must not count as a negative of its image."""
    cfg = LazyConfig.load(CONFIGS / "train_ceclip_demo.py")
    assert cfg.dataset.mapper.negatives is True
    assert [cfg.train.objective.terms[name].invalid_negatives for name in ("contrastive", "intra_modal")] == [
        "mask"
    ] * 2
    with pytest.raises(AttributeError):
        cfg.train.objective.terms.cross_modal_rank.invalid_negatives  # noqa: B018 (it always masks)

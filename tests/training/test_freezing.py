"""What is frozen, and how frozen parts run."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hypvl import distributed
from hypvl.embedding.identity import model_identity
from hypvl.encoders.feature_transforms import BatchStandardize
from hypvl.encoders.heads import ProjectionHead
from hypvl.encoders.image import TimmImageEncoder
from hypvl.encoders.text import TextTransformer
from hypvl.geometry.scorers import Cosine
from hypvl.geometry.sphere import Sphere
from hypvl.losses.base import Objective
from hypvl.losses.contrastive import Contrastive
from hypvl.models.dual_encoder import DualEncoder
from hypvl.training.accumulation import GradCache, check_no_batch_statistics
from hypvl.training.freezing import freeze
from hypvl.training.optim import parameter_groups
from hypvl.training.step import Learner, Precision, mean_embedding, optimizer_step, rows_of
from tests.ranks import run_ranks
from tests.training.tiny import tiny_batch, tiny_learner

CPU = Precision(None, torch.device("cpu"))


def resnet_learner(*, transforms: bool = False) -> Learner:
    """A ResNet of four stages of one block, and a text transformer of three blocks."""
    torch.manual_seed(0)
    visual = TimmImageEncoder(
        "resnet10t", image_size=32, timm_args={"channels": (8, 8, 8, 8), "stem_width": 8, "drop_rate": 0.5}
    )
    model = DualEncoder(
        visual,
        TextTransformer("L3_W16_A2", vocab_size=50, context_length=8),
        visual_head=lambda width: ProjectionHead(width, 12),
        textual_head=lambda width: ProjectionHead(width, 12),
        geometry=Sphere(),
        scorer=Cosine(),
        image_transforms=BatchStandardize if transforms else None,
    )
    return Learner(model, Objective({"contrastive": Contrastive()}))


def batch_of(learner: Learner, *, seed: int = 0) -> dict[str, Any]:
    image = torch.randint(
        0, 256, (8, 3, 32, 32), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8
    )
    return tiny_batch(seed=seed) | {"image": image}


def trained(learner: Learner) -> set[str]:
    return {name for name, parameter in learner.named_parameters() if parameter.requires_grad}


def statistics(learner: Learner) -> dict[str, Tensor]:
    buffers = learner.model.visual.named_buffers()
    return {name: buffer.clone() for name, buffer in buffers if "running" in name or "num_batches" in name}


def step(learner: Learner, *, seed: int = 0, cache: bool = False) -> None:
    optimizer = torch.optim.SGD([p for p in learner.parameters() if p.requires_grad], lr=0.1)
    scaler = CPU.make_scaler()
    if cache:
        GradCache(3)(learner, batch_of(learner, seed=seed), precision=CPU, scaler=scaler)
    else:
        learner(batch_of(learner, seed=seed))[0].total.backward()
    optimizer_step(optimizer, learner.parameters(), scaler=scaler, clip_norm=None)


def test_freezing_never_frees_what_is_fixed() -> None:
    learner = tiny_learner("clip")
    assert not learner.model.visual.pos_embed.requires_grad
    kept = freeze(learner, trainable=["model.visual.*"])
    assert "model.visual.pos_embed" not in kept and kept
    assert not learner.model.visual.pos_embed.requires_grad
    with pytest.raises(ValueError, match=r"'model\.visual\.pos_embed' names no trainable parameter"):
        freeze(tiny_learner("clip"), trainable=["model.visual.pos_embed"])


def test_a_pattern_that_names_nothing_tells_the_closest() -> None:
    learner = tiny_learner("clip")
    with pytest.raises(ValueError, match=r"'model\.scorer\.logscale'.*closest is model\.scorer\.log_scale"):
        freeze(learner, trainable=["model.textual.*", "model.scorer.logscale"])
    assert all(p.requires_grad for n, p in learner.named_parameters() if n != "model.visual.pos_embed")
    with pytest.raises(ValueError, match="got no pattern"):
        freeze(learner, trainable=[])
    with pytest.raises(ValueError, match="expected a list of names or patterns"):
        freeze(learner, trainable="model.textual.*")


def test_the_last_blocks_and_what_comes_after_them_are_trained() -> None:
    learner = resnet_learner()
    every = trained(learner)
    freeze(learner, unlocked_blocks={"model.visual": 1, "model.textual": 2})
    locked = every - trained(learner)
    assert {name.split(".")[3] for name in locked if name.startswith("model.visual.")} == {
        "conv1", "bn1", "layer1", "layer2", "layer3",
    }  # fmt: skip
    assert {".".join(name.split(".")[2:4]) for name in locked if name.startswith("model.textual.")} == {
        "token_embed.weight", "posit_embed", "resblocks.0",
    }  # fmt: skip
    assert {"model.textual.ln_final.weight", "model.visual_head.projection.weight"} <= trained(learner)


def test_no_block_leaves_what_comes_after_them_and_all_leave_the_stem_frozen() -> None:
    learner = resnet_learner()
    freeze(learner, unlocked_blocks={"model.textual": 0})
    assert {n for n in trained(learner) if n.startswith("model.textual.")} == {
        "model.textual.ln_final.weight", "model.textual.ln_final.bias",
    }  # fmt: skip
    learner = resnet_learner()
    every = trained(learner)
    freeze(learner, unlocked_blocks={"model.textual": 3})
    assert every - trained(learner) == {"model.textual.token_embed.weight", "model.textual.posit_embed"}


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ({"model.visual": 5}, r"^unlocked_blocks\.model\.visual: got 5; expected a whole .* least 0 and up to 4\.$"),
        ({"model.visual": -1}, r"unlocked_blocks\.model\.visual: got -1"),
        ({"model.visual": 1.5}, r"unlocked_blocks\.model\.visual: got 1\.5"),
        ({"model.image": 1}, r"^unlocked_blocks: got 'model\.image'; expected the .*; .* model\.visual\.$"),
        ({"model.visual": 0}, r"unlocked_blocks\.model\.visual: got 0, but nothing of model\.visual stays trainable"),
        ({"model.visual_head": 1}, r"unlocked_blocks\.model\.visual_head: ProjectionHead has no row of numbered"),
    ],
)  # fmt: skip
def test_blocks_that_are_not_there(blocks: dict[str, Any], message: str) -> None:
    learner = resnet_learner()
    every = trained(learner)
    with pytest.raises(ValueError, match=message):
        freeze(learner, unlocked_blocks=blocks)
    assert trained(learner) == every  # nothing was frozen


@pytest.mark.parametrize("cache", [False, True], ids=["direct", "cache"])
def test_a_frozen_tower_stays_as_it_is_and_has_no_graph(cache: bool) -> None:
    learner = resnet_learner()
    parameter_groups(learner, weight_decay=0, gain_bias_decay=0, frozen=["model.visual.*"])
    learner.train()
    assert learner.training and learner.model.textual.training
    assert not any(module.training for module in learner.model.visual.modules())  # dropout is off, too
    before = learner.model.visual.state_dict()
    before = {name: tensor.clone() for name, tensor in before.items()}
    batch = batch_of(learner)
    _, ctx = learner(batch)
    view = next(view for view in learner.views if view.modality == "image")
    assert not learner.trunk(view, rows_of(view, batch)).requires_grad
    assert ctx.features(view).requires_grad  # the head is trained
    for seed in range(2):
        step(learner, seed=seed, cache=cache)
    for name, tensor in learner.model.visual.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)
    with torch.no_grad():
        learner.eval()
        expected = learner.model.encode_image(batch["image"], stage="trunk")
        learner.train()
        torch.testing.assert_close(learner.trunk(view, rows_of(view, batch)), expected, rtol=0, atol=0)


def test_norms_of_frozen_stages_keep_their_statistics_and_the_others_move() -> None:
    learner = resnet_learner()
    freeze(learner, unlocked_blocks={"model.visual": 1})
    learner.train()
    before = statistics(learner)
    step(learner)
    moved = {name for name, tensor in statistics(learner).items() if not torch.equal(tensor, before[name])}
    assert moved
    assert {name.split(".")[1] for name in moved} == {"layer4"}
    assert {name.split(".")[1] for name in set(before) - moved} == {
        "bn1",
        "conv1",
        "layer1",
        "layer2",
        "layer3",
    }


def test_statistics_of_frozen_norms_may_move() -> None:
    learner = resnet_learner()
    freeze(learner, frozen=["model.visual.*"], freeze_norm_statistics=False)
    learner.train()
    before = statistics(learner)
    step(learner)
    assert all(not torch.equal(tensor, before[name]) for name, tensor in statistics(learner).items())
    with pytest.raises(ValueError, match=r"freeze_norm_statistics: got 'no'; expected True or False"):
        freeze(learner, freeze_norm_statistics="no")  # type: ignore[arg-type]


def test_frozen_norms_normalise_with_their_statistics() -> None:
    """By hand: (x - mean) / sqrt(variance + eps) of a norm without gain."""
    learner, norm = resnet_learner(), nn.BatchNorm1d(1)
    learner.model.visual = nn.Sequential(norm)
    assert norm.running_mean is not None and norm.running_var is not None
    norm.running_mean.fill_(3.0)
    norm.running_var.fill_(4.0 - norm.eps)
    freeze(learner, frozen=["model.visual.*"])
    learner.train()
    assert norm(torch.tensor([[7.0], [5.0]])).flatten().tolist() == pytest.approx([2.0, 1.0])
    assert (norm.running_mean.item(), norm.num_batches_tracked) == (3.0, 0)


def test_gradient_caching_takes_frozen_batch_norms_and_refuses_others() -> None:
    learner = resnet_learner()
    learner.train()
    with pytest.raises(Exception, match=r"grad_cache\.micro_batch: model\.visual\.trunk\.\S+ is a BatchNorm"):
        check_no_batch_statistics(learner)
    freeze(learner, frozen=["model.visual.*"])
    learner.train()
    check_no_batch_statistics(learner)
    direct, cached = resnet_learner(), resnet_learner()
    for each in (direct, cached):
        freeze(each, unlocked_blocks={"model.textual": 1}, frozen=["model.visual.*"])
        each.train()
    step(direct)
    step(cached, cache=True)
    for name, parameter in direct.named_parameters():
        torch.testing.assert_close(parameter, dict(cached.named_parameters())[name], rtol=1e-5, atol=1e-7)


def test_what_is_freed_again_trains_again() -> None:
    learner = resnet_learner()
    freeze(learner, frozen=["model.visual.*"])
    for parameter in learner.parameters():
        parameter.requires_grad_(True)
    freeze(learner, frozen=["model.textual.*"])
    learner.train()
    assert all(module.training for module in learner.model.visual.modules())
    assert not any(module.training for module in learner.model.textual.modules())


def test_a_frozen_standardisation_keeps_its_statistics() -> None:
    learner = resnet_learner(transforms=True)
    freeze(learner, frozen=["model.image_transforms.*"])
    learner.train()
    transform = learner.model.image_transforms[0]
    assert isinstance(transform, BatchStandardize)
    _, ctx = learner(batch_of(learner))
    learner.update_(ctx)
    assert transform.num_batches_tracked.item() == 0 and not transform.running_mean.any()
    free = resnet_learner(transforms=True)
    free.train()
    _, ctx = free(batch_of(free))
    free.update_(ctx)
    moving = free.model.image_transforms[0]
    assert isinstance(moving, BatchStandardize) and moving.num_batches_tracked.item() == 1


def test_a_model_that_was_frozen_keeps_its_identity() -> None:
    learner = resnet_learner()
    before = model_identity(learner.model)
    freeze(learner, frozen=["model.visual.*"])
    learner.train()
    assert model_identity(learner.model) == before


def test_the_mean_embedding_leaves_frozen_parts_in_evaluation_mode() -> None:
    learner = resnet_learner()
    freeze(learner, frozen=["model.visual.*"])
    learner.train()
    mean_embedding(learner, [batch_of(learner)], samples=8)
    assert learner.model.textual.training and not learner.model.visual.training


@pytest.mark.slow  # torch.compile takes seconds
def test_a_compiled_learner_keeps_frozen_parts_in_evaluation_mode() -> None:
    learner = resnet_learner()
    freeze(learner, frozen=["model.visual.*"])
    learner.compile(backend="eager")
    learner.train()
    before = statistics(learner)
    step(learner)
    assert all(torch.equal(tensor, before[name]) for name, tensor in statistics(learner).items())


def gradients_with_a_locked_tower() -> dict[str, Tensor]:
    """Of one step on this rank's rows, through DDP where there are several."""
    learner = resnet_learner()
    freeze(learner, frozen=["model.visual.*"], unlocked_blocks={"model.textual": 1})
    batch = batch_of(learner)
    world = distributed.world_size()
    rows = slice(distributed.rank() * 8 // world, (distributed.rank() + 1) * 8 // world)
    local = {key: value[rows] if isinstance(value, Tensor) else value for key, value in batch.items()}
    module = nn.parallel.DistributedDataParallel(learner, static_graph=True) if world > 1 else learner
    module.train()
    module(local)[0].total.backward()
    return {name: p.grad for name, p in learner.named_parameters() if p.grad is not None}


@pytest.mark.slow  # two processes
def test_two_ranks_have_the_gradients_of_one() -> None:
    one, (first, second) = gradients_with_a_locked_tower(), run_ranks(2, gradients_with_a_locked_tower)
    assert not any(".visual." in name for name in one) and one.keys() == first.keys() == second.keys()
    for name, gradient in one.items():
        torch.testing.assert_close(first[name], gradient, rtol=1e-4, atol=1e-6)
        assert torch.equal(first[name], second[name])

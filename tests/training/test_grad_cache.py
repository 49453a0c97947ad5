"""What gradient caching does beyond plain recipes: random numbers, precision, DDP, frozen parts, checkpointing."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hypvl import distributed
from hypvl.encoders.conv_vit import ConvStemViT
from hypvl.encoders.heads import ProjectionHead
from hypvl.encoders.image import TimmImageEncoder
from hypvl.encoders.text import TextTransformer
from hypvl.geometry.scorers import Cosine
from hypvl.geometry.sphere import Sphere
from hypvl.losses.base import IMAGE, TEXT, LossTerm, Objective, PairContext, View
from hypvl.losses.contrastive import Contrastive
from hypvl.models.dual_encoder import DualEncoder
from hypvl.training.accumulation import GradCache
from hypvl.training.step import Learner, Precision, Rows, forward_backward, optimizer_step
from tests.ranks import run_ranks
from tests.training.tiny import rows_of, tiny_batch, tiny_learner

CPU = torch.device("cpu")
FULL = Precision.choose(False, CPU)


def make(visual: nn.Module | None = None, *objectives: LossTerm, checkpointing: bool = False) -> Learner:
    torch.manual_seed(0)
    if visual is None:
        visual = ConvStemViT(16, 1, heads=2, image_size=16, patch_size=4)
    model = DualEncoder(
        visual,
        TextTransformer("L2_W16_A2", vocab_size=50, context_length=8, grad_checkpointing=checkpointing),
        visual_head=lambda width: ProjectionHead(width, 12),
        textual_head=lambda width: ProjectionHead(width, 12),
        geometry=Sphere(),
        scorer=Cosine(),
    )
    terms = objectives or (Contrastive(),)
    return Learner(model.double(), Objective({str(i): term for i, term in enumerate(terms)})).train()


def step(learner: nn.Module, micro_batch: int | None, rows: int = 8, **given: Any) -> dict[str, Tensor]:
    """Gradients by name, after one step from the same random state."""
    torch.manual_seed(7)
    learner.zero_grad(set_to_none=True)
    given = {"precision": FULL, "scaler": FULL.make_scaler(), **given}
    cache = None if micro_batch is None else GradCache(micro_batch)
    forward_backward(learner, tiny_batch(rows), cache=cache, **given)
    return {name: p.grad.clone() for name, p in learner.named_parameters() if p.grad is not None}


def error(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    assert found.keys() == expected.keys()
    difference = sum((found[k].double() - expected[k].double()).square().sum() for k in expected) ** 0.5
    return float(difference / sum(x.double().square().sum() for x in expected.values()) ** 0.5)


def in_micro_batches(learner: Learner, size: int) -> None:
    """Let the plain step encode like the cached one: the same draws, one graph over everything."""
    whole: Callable[[View, Rows], Tensor] = learner.trunk
    learner.trunk = lambda view, rows: torch.cat([whole(view, part) for part in rows.split(size)])  # type: ignore[method-assign]


DROPPING = {
    "drop path": lambda: ConvStemViT(16, 3, heads=2, image_size=16, patch_size=4, drop_path_rate=0.5),
    "patch and other dropout": lambda: TimmImageEncoder(
        "vit_tiny_patch16_224", image_size=32, drop_path_rate=0.3,
        timm_args={
            "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "patch_drop_rate": 0.5,
            "proj_drop_rate": 0.2, "attn_drop_rate": 0.2, "pos_drop_rate": 0.1,
        },
    ),
}  # fmt: skip


def batch_for(visual: nn.Module, rows: int = 8) -> dict[str, Any]:
    size = int(visual.image_size)  # type: ignore[arg-type]  # Module's attributes
    batch = tiny_batch(rows)
    images = torch.randint(0, 256, (rows, 3, size, size), generator=torch.Generator().manual_seed(1))
    return {**batch, "image": images.to(torch.uint8)}


@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "checkpointed"])
@pytest.mark.parametrize("kind", DROPPING)
@pytest.mark.parametrize("micro_batch", [1, 3, 9])
def test_dropout_is_the_same_in_both_passes(kind: str, checkpointing: bool, micro_batch: int) -> None:
    """The same gradients as one graph over the same draws, and the generator goes on from there."""
    after = []
    result = []
    for cached in (True, False):
        torch.manual_seed(0)
        visual = DROPPING[kind]()
        visual.set_grad_checkpointing(checkpointing and cached)
        learner = make(visual, checkpointing=checkpointing and cached)
        if not cached:
            in_micro_batches(learner, micro_batch)
        torch.manual_seed(7)
        forward_backward(
            learner, batch_for(visual), precision=FULL, scaler=FULL.make_scaler(),
            cache=GradCache(micro_batch) if cached else None,
        )  # fmt: skip
        after.append(torch.rand(3))
        result.append({name: p.grad for name, p in learner.named_parameters() if p.grad is not None})
    assert error(*result) < 1e-10
    assert torch.equal(*after)


def test_with_a_micro_batch_of_the_batch_dropout_is_that_of_the_plain_step() -> None:
    learner = make(DROPPING["drop path"]())
    assert error(step(learner, 8), step(learner, None)) < 1e-12
    torch.manual_seed(8)
    assert error(step(learner, 3), step(learner, None)) > 1e-3  # other draws of the same distribution


class Count(LossTerm):
    """Reads two views; images without gradient."""

    still = View("image", "image", grad=False)
    needs = frozenset({still, TEXT})

    def forward(self, ctx: PairContext) -> Tensor:
        return (ctx.embeddings(self.still) - ctx.embeddings(TEXT)).square().sum()


def test_encoders_see_micro_batches_and_no_more_passes_than_needed() -> None:
    seen: list[tuple[int, bool]] = []

    def note(learner: Learner, micro_batch: int) -> list[tuple[int, bool]]:
        cache = GradCache(micro_batch)
        given: dict[str, Any] = {"precision": FULL, "scaler": FULL.make_scaler(), "cache": cache}
        forward_backward(learner, tiny_batch(8), **given)  # the first one looks at pairs of rows, too
        hook = learner.model.visual.register_forward_hook(
            lambda module, inputs, output: seen.append((len(inputs[0]), output.requires_grad))
        )
        seen.clear()
        forward_backward(learner, tiny_batch(8), **given)
        hook.remove()
        return list(seen)

    once = [(3, False), (3, False), (2, False)]
    twice = [*once, (3, True), (3, True), (2, True)]
    assert note(make(), 3) == twice
    assert note(make(None, Count()), 3) == once  # a view without gradient
    frozen = make()
    frozen.model.visual.requires_grad_(False)
    assert note(frozen, 3) == once
    assert frozen.model.visual_head.projection.weight.grad is not None
    assert note(make(), 100) == [(8, False), (8, True)]


def test_views_that_share_inputs_or_a_trunk() -> None:
    learner = make(None, Contrastive(), Count())  # images with and without gradient
    expected = step(learner, None)
    assert error(step(learner, 3), expected) < 1e-12
    only = make(None, Count())
    result = step(only, 3)
    assert not any("visual" in name for name in result)
    assert error(result, step(only, None)) < 1e-12


def test_fp16_gradients_are_scaled_once() -> None:
    learner = tiny_learner("meru")
    half = Precision.choose("fp16", CPU)
    scaler = torch.amp.GradScaler("cpu", init_scale=512.0)
    expected = step(learner, None, precision=half, scaler=scaler)
    result = step(learner, 3, precision=half, scaler=scaler)
    # 11 bits, summed in another order; 512 or 1/512 would be an error of hundreds, or of 1
    assert error(result, expected) < 5e-3
    full = step(learner, None)
    assert error({name: x / 512 for name, x in result.items()}, full) < 5e-2


@pytest.mark.parametrize("micro_batch", [3, 8])
def test_bf16_in_every_pass(micro_batch: int) -> None:
    learner = tiny_learner("meru")
    half = Precision.choose("bf16", CPU)
    dtypes = set()
    learner.model.textual.resblocks[0].mlp.c_fc.register_forward_hook(
        lambda module, inputs, output: dtypes.add((output.dtype, output.requires_grad))
    )
    result = step(learner, micro_batch, precision=half, scaler=half.make_scaler())
    assert dtypes == {(torch.bfloat16, False), (torch.bfloat16, True)}
    expected = step(learner, None, precision=half, scaler=half.make_scaler())
    assert error(result, expected) < (1e-6 if micro_batch == 8 else 2e-2)  # 8 bits in another order


def test_an_overflow_still_skips_the_step() -> None:
    learner = tiny_learner("clip")
    half = Precision.choose("fp16", CPU)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    optimizer = torch.optim.SGD(learner.parameters(), lr=1.0)
    before = learner.model.visual_head.projection.weight.clone()
    forward_backward(learner, tiny_batch(), precision=half, scaler=scaler, cache=GradCache(3))
    _, stepped = optimizer_step(optimizer, list(learner.parameters()), scaler=scaler, clip_norm=None)
    assert not stepped
    assert torch.equal(before, learner.model.visual_head.projection.weight)


class OnRank1(LossTerm):
    """Texts on every rank, images on rank 1 only."""

    needs = frozenset({IMAGE, TEXT})

    def forward(self, ctx: PairContext) -> Tensor:
        value = ctx.features(TEXT).square().mean()
        return value + ctx.features(IMAGE).square().mean() if distributed.rank() == 1 else value


def on_ranks() -> dict[str, Any]:
    """Gradients of the cached step with and without DDP around the learner, and of one with an idle encoder."""
    batch = rows_of(tiny_batch(), distributed.rank(), distributed.world_size())
    given: dict[str, Any] = {"precision": FULL, "scaler": FULL.make_scaler()}
    result: dict[str, Any] = {}
    for static in (True, False, None):
        learner = tiny_learner("meru").double()
        module: nn.Module = learner
        if static is not None and distributed.world_size() > 1:
            module = nn.parallel.DistributedDataParallel(
                learner, static_graph=static, broadcast_buffers=False
            )
        cache = GradCache(3)
        for _ in range(2):  # DDP with a static graph learns from its first step
            learner.zero_grad(set_to_none=True)
            forward_backward(module, batch, **given, cache=cache)
        result[f"static_graph={static}"] = {
            k: p.grad for k, p in learner.named_parameters() if p.requires_grad
        }
    learner = make(None, OnRank1())
    forward_backward(learner, batch, **given, cache=GradCache(3))
    result["idle"] = {k: p.grad for k, p in learner.named_parameters()}
    result["images"] = learner.model.encode_image(batch["image"], stage="features").square().mean()
    learner.zero_grad()
    result["images"].backward()
    result["images alone"] = {
        k: p.grad for k, p in learner.named_parameters() if "visual" in k and p.requires_grad
    }
    return result


def test_averaged_once_over_ranks_with_and_without_ddp() -> None:
    expected = step(tiny_learner("meru").double(), None)
    ranks = run_ranks(2, on_ranks)
    for result in ranks:
        for case in ("static_graph=True", "static_graph=False", "static_graph=None"):
            assert error(result[case], expected) < 1e-10, case
    # the image encoder had a gradient on rank 1 only: half of it is the mean
    for result in ranks:
        for name, alone in ranks[1]["images alone"].items():
            torch.testing.assert_close(result["idle"][name], alone / 2, rtol=1e-9, atol=1e-15)
        assert result["idle"]["model.scorer.log_scale"] is None  # used on no rank


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="micro_batch: got 0; expected a whole number of at least 1"):
        GradCache(0)
    with pytest.raises(TypeError, match="module: got Linear; expected a Learner"):
        forward_backward(nn.Linear(1, 1), {}, precision=FULL, scaler=FULL.make_scaler(), cache=GradCache(1))

"""Sharded learners (FSDP2): losses, gradients, norms and weights are those of one process and of DDP."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn
from torch.optim import AdamW

from hypvl import distributed
from hypvl.config import LazyCall as L
from hypvl.encoders.conv_vit import ConvStemViT
from hypvl.encoders.heads import ScaledProjectionHead
from hypvl.encoders.mlp_heads import DINOHead
from hypvl.encoders.text import TextTransformer
from hypvl.errors import ConfigError
from hypvl.geometry.lorentz import Lorentz
from hypvl.geometry.scorers import Cosine, NegativeDistance
from hypvl.geometry.sphere import Sphere
from hypvl.losses.base import IMAGE, TEXT, LossTerm, Objective, PairContext, View
from hypvl.losses.contrastive import Contrastive
from hypvl.losses.dino import DINO
from hypvl.losses.entailment import Entailment
from hypvl.losses.ring import Gather
from hypvl.models.dual_encoder import DualEncoder
from hypvl.training.accumulation import GradCache, GradientAverage, naive_forward_backward
from hypvl.training.config import TrainConfig
from hypvl.training.optim import build_optimizer, parameter_groups, warmup_cosine
from hypvl.training.parallel import (
    gathered,
    holds_shards,
    is_sharded,
    local,
    separate_groups,
    shard_,
    whole,
)
from hypvl.training.step import Learner, Precision, forward_backward, optimizer_step
from hypvl.training.teachers import EMATeacher, Teacher
from tests.ranks import run_ranks
from tests.training.test_tokens import ENCODERS, model as pooling_model, timm_vit
from tests.training.test_uneven_ranks import batch as box_batch
from tests.training.tiny import ragged_batch, rows_of

FULL = Precision.choose(False, torch.device("cpu"))
STEPS = 3
WAYS = ("direct", "teacher")
MORE_WAYS = (
    "cached boxes", "frozen", "prototypes", "timm tokens", "ring", "tokens", "cached tokens", "boxes", "cached",
    "naive", "recomputed",
)  # fmt: skip
WITH_DDP = ("direct", "teacher")


class Pooled(LossTerm):
    """A mean over samples of the features that texts pool out of their images."""

    needs = frozenset({IMAGE, TEXT})
    tokens = frozenset({IMAGE})

    def forward(self, ctx: PairContext) -> torch.Tensor:
        owner = torch.arange(len(ctx.features(TEXT)))
        pooled = ctx.model.pool_queries(ctx.trunk(IMAGE), ctx.trunk(TEXT), owner)  # type: ignore[attr-defined]
        weights = torch.linspace(-1, 1, pooled.shape[1], dtype=pooled.dtype)
        return (pooled.square() @ weights).mean()


def model(*, prototypes: int | None = None, recompute: bool = False) -> DualEncoder:
    torch.manual_seed(0)
    euclidean = prototypes is not None
    head: Callable[[int], nn.Module] = (
        (lambda width: DINOHead(width, 12, layers=2, hidden=20, prototypes=prototypes))
        if euclidean
        else (lambda width: ScaledProjectionHead(width, 12))
    )
    return DualEncoder(
        ConvStemViT(16, 2, heads=2, image_size=16, patch_size=4),
        TextTransformer("L2_W16_A2", vocab_size=51, context_length=8, grad_checkpointing=recompute),
        visual_head=head,
        textual_head=head,
        geometry=Sphere() if euclidean else Lorentz(),
        scorer=Cosine() if euclidean else NegativeDistance(),
    )


def learner(way: str) -> Learner:
    boxes: tuple[View, View] = (View.parse("image:box_image"), View.parse("text:box_text"))
    terms: dict[str, LossTerm] = {"contrastive": Contrastive(), "entailment": Entailment()}
    teachers: dict[str, Teacher] = {}
    if "boxes" in way:
        terms["boxes"] = Contrastive([boxes, boxes[::-1], (boxes[0], TEXT), (boxes[1], IMAGE)])
    if "tokens" in way:
        terms = {"contrastive": Contrastive(), "pooled": Pooled()}
    if way == "teacher":
        teachers["average"] = EMATeacher(momentum=0.7)
        terms["teacher"] = Contrastive(
            [(IMAGE, View.parse("text@average")), (TEXT, View.parse("image@average"))]
        )
    if way == "prototypes":
        teachers["average"] = EMATeacher(momentum=0.7)
        views = {"student": ["image", "text"], "teacher": ["image@average", "text@average"]}
        terms = {"dino": DINO(**views, count=9), "contrastive": Contrastive()}
    torch.manual_seed(0)
    if "tokens" in way:
        made = pooling_model(timm_vit() if "timm" in way else ENCODERS["class token"]())
    else:
        made = model(prototypes=9 if way == "prototypes" else None, recompute=way == "recomputed")
    gather: Gather = "ring" if way == "ring" else "all"
    return Learner(made, Objective(terms), teachers, gather=gather).double()


def steps(way: str, parallel: str, *, precision: Precision = FULL) -> dict[str, Any]:
    """Mean losses, norms, and the weights of model and teachers after some steps; and what this rank held."""
    ours = learner(way) if precision is FULL else learner(way).float()
    world, rank = distributed.world_size(), distributed.rank()
    average = GradientAverage()
    several = "cached" in way or way == "naive"
    module: nn.Module = ours
    if parallel == "fsdp":
        shard_(ours, dtype=precision.dtype, wire=None)
    frozen = ["model.textual.*", "model.visual.blocks.0.*"] if way == "frozen" else None
    cfg = OmegaConf.create(
        {
            "parameters": L(parameter_groups, partial=True)(
                weight_decay=0.2, gain_bias_decay=0.1, frozen=frozen, lr={"model.*_head.*": 0.01}
            ),
            "optimizer": L(AdamW, partial=True)(lr=2e-2, fused=True),
            "lr_scheduler": L(warmup_cosine, partial=True)(total_steps=10, warmup_steps=1),
        },
        flags={"allow_objects": True},
    )
    optimizer, scheduler = build_optimizer(cfg, ours)
    ours.train()
    if parallel == "ddp" and not several:
        module = nn.parallel.DistributedDataParallel(ours, static_graph=True, broadcast_buffers=False)
    cache = GradCache(2, average=average) if "cached" in way else None
    scaler = precision.make_scaler()
    result: dict[str, Any] = {"losses": [], "norms": []}
    parameters = [p for p in ours.parameters() if p.requires_grad]
    for i in range(STEPS):
        given = box_batch() if "boxes" in way else rows_of(ragged_batch(8, seed=i), rank, world)
        if "tokens" in way:
            given["image"] = given["image"].repeat(1, 1, 2, 2)
        halves = [rows_of(rows_of(ragged_batch(8, seed=i), part, 2), rank, world) for part in range(2)]
        ours.constrain_()
        how = {"precision": precision, "scaler": scaler}
        if way == "naive":
            output, contexts = naive_forward_backward(module, halves, parts=2, average=average, **how)
        else:
            output, ctx = forward_backward(
                module, given, cache=cache, average=average if parallel == "fsdp" else None, **how
            )
            contexts = [ctx]
        norm, stepped = optimizer_step(optimizer, parameters, scaler=scaler, clip_norm=0.5, loss=output.total)
        scheduler.step()
        assert stepped
        ours.update_(*contexts)
        result["losses"].append(distributed.all_reduce_mean(output.total.detach()))
        result["norms"].append(norm)
    result["held"] = sum(local(p).nbytes for p in ours.model.parameters()) + sum(
        local(x).nbytes for state in optimizer.state.values() for x in state.values() if x.ndim
    )
    result["sharded"] = {name for name, p in ours.named_parameters() if is_sharded(p)}
    result["weights"] = {name: whole(tensor) for name, tensor in ours.state_dict().items()}
    return result


def on_two_ranks() -> dict[str, Any]:
    sharded: dict[str, Any] = {f"{way}, fsdp": steps(way, "fsdp") for way in WAYS}
    return sharded | {f"{way}, ddp": steps(way, "ddp") for way in WITH_DDP} | special_cases()


@pytest.fixture(scope="module")
def alone() -> dict[str, Any]:
    return {way: steps(way, "none") for way in WAYS}


@pytest.fixture(scope="module")
def ranks() -> list[dict[str, Any]]:
    return run_ranks(2, on_two_ranks)


def check_equal(result: Mapping[str, Any], expected: Mapping[str, Any], *, limit: float) -> None:
    for key in ("losses", "norms"):
        torch.testing.assert_close(result[key], expected[key], rtol=limit, atol=0)
    assert result["weights"].keys() == expected["weights"].keys()
    for name, tensor in expected["weights"].items():
        difference = (result["weights"][name] - tensor).abs().max()
        assert difference <= limit * tensor.abs().max().clamp(min=1), f"{name}: {difference}"


@pytest.mark.parametrize("way", WAYS)
def test_training_equals_one_process_and_ddp(way: str, alone: Any, ranks: list[Any]) -> None:
    for result in ranks:
        check_equal(result[f"{way}, fsdp"], alone[way], limit=1e-8)
        if way in WITH_DDP:
            check_equal(result[f"{way}, fsdp"], result[f"{way}, ddp"], limit=1e-8)


def test_each_of_two_ranks_holds_half_of_weights_and_moments(alone: Any, ranks: list[Any]) -> None:
    """In bytes of what is allocated; a little more where a matrix has an odd number of rows."""
    for result in ranks:
        assert result["direct, ddp"]["held"] == alone["direct"]["held"]
        assert 0.49 < result["direct, fsdp"]["held"] / result["direct, ddp"]["held"] < 0.51


def test_scalars_stay_whole_and_teachers_are_sharded(ranks: list[Any]) -> None:
    sharded = ranks[0]["teacher, fsdp"]["sharded"]
    every = {name for name, _ in learner("teacher").named_parameters()}
    scalars = {name for name, p in learner("teacher").named_parameters() if p.ndim == 0}
    assert "model.geometry.log_curv" in scalars and "model.visual_head.log_scale" in scalars
    assert every - sharded == scalars and any(name.startswith("teachers.") for name in sharded)


def special_cases() -> dict[str, Any]:
    """What else a run does with a sharded learner."""
    half = Precision(torch.bfloat16, torch.device("cpu"))
    result: dict[str, Any] = {"bf16": steps("teacher", "fsdp", precision=half)}
    result["bf16, ddp"] = steps("teacher", "ddp", precision=half)
    ours = learner("teacher").float()
    before = {name: tensor.clone() for name, tensor in ours.model.state_dict().items()}
    sharding = shard_(ours, dtype=torch.bfloat16, wire=None)
    ours.model.textual.requires_grad_(False)
    copied = sharding.whole_model()
    if distributed.rank() == 0:  # alone, and not in bf16
        copied.encode_image(ragged_batch()["image"])
    result["copied"] = {
        name: torch.equal(tensor, before[name]) for name, tensor in copied.state_dict().items()
    }
    result["trainable"] = {name for name, p in copied.named_parameters() if p.requires_grad}
    optimizer = AdamW(separate_groups([{"params": [*ours.model.parameters()]}]), lr=1.0, fused=True)
    with half.autocast():
        output, _ = ours(rows_of(ragged_batch(), distributed.rank(), 2))
    output.total.backward()
    broken = torch.tensor(float("inf" if distributed.rank() == 1 else 1.0))
    _, result["stepped"] = optimizer_step(
        optimizer, ours.model.parameters(), scaler=FULL.make_scaler(), clip_norm=None, loss=broken
    )
    result["unmoved"] = all(torch.equal(whole(p), before[name]) for name, p in ours.model.named_parameters())
    ours.load_state_dict({name: whole(tensor) + 1 for name, tensor in ours.state_dict().items()})
    result["loaded"] = all(
        torch.equal(whole(p), before[name] + 1) for name, p in ours.model.named_parameters()
    )
    everything = gathered({"model": ours.state_dict(), "list": [1, (2, 3)]})
    result["gathered"] = (holds_shards(ours.state_dict()), holds_shards(everything), everything["list"])
    result["kept"] = {name for name, tensor in everything["model"].items() if tensor is not None}
    return result


def test_bf16_is_that_of_ddp(ranks: list[Any]) -> None:
    for result in ranks:
        check_equal(result["bf16"], result["bf16, ddp"], limit=1e-3)
        assert torch.equal(result["bf16"]["losses"][0], result["bf16, ddp"]["losses"][0])


def test_a_whole_copy_is_used_by_one_rank_alone(ranks: list[Any]) -> None:
    for result in ranks:
        assert all(result["copied"].values()) and len(result["copied"]) > 50
        assert not any(name.startswith("textual.") for name in result["trainable"])
        assert {"geometry.log_curv", "visual.blocks.1.attn.qkv.weight"} < result["trainable"]


def test_a_loss_that_one_rank_finds_infinite_moves_no_shard(ranks: list[Any]) -> None:
    assert [bool(result["stepped"]) for result in ranks] == [False, False]
    assert all(result["unmoved"] for result in ranks)


def test_whole_states_are_loaded_into_shards_and_gathered_on_the_first_rank(ranks: list[Any]) -> None:
    assert all(result["loaded"] for result in ranks)
    assert [result["gathered"] for result in ranks] == [(True, False, [1, (2, 3)])] * 2
    assert ranks[0]["kept"] > ranks[1]["kept"] > set()


@pytest.mark.slow
@pytest.mark.parametrize("way", MORE_WAYS)
def test_more_ways_equal_one_process(way: str) -> None:
    expected = steps(way, "none")
    for result in run_ranks(2, steps, way, "fsdp"):
        check_equal(result, expected, limit=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["direct", "cached", "naive", "frozen", "teacher", "prototypes"])
def test_four_ranks_equal_one_process(way: str) -> None:
    expected = steps(way, "none")
    for result in run_ranks(4, steps, way, "fsdp"):
        check_equal(result, expected, limit=1e-8)
        assert 0.2 < result["held"] / expected["held"] < 0.35


def test_what_shards_cannot_do_is_refused() -> None:
    for settings, message in (
        ({"compile": True}, r"compile: got True with parallel='fsdp'; expected false"),
        ({"amp": "fp16"}, r"amp: got 'fp16' with parallel='fsdp'; expected bf16 or fp32"),
        ({"ddp": {"broadcast_buffers": True}}, r"ddp.broadcast_buffers: got True with parallel='fsdp'"),
        ({"parallel": "zero"}, r"parallel: got 'zero'; expected"),
    ):
        with pytest.raises(ConfigError, match=rf"^train\.{message}"):
            TrainConfig.read({"objective": {}, "parallel": "fsdp", **settings})
    with pytest.raises(ConfigError, match=r"^train.parallel: got 'fsdp' with fp16"):
        shard_(nn.Linear(2, 2), dtype=torch.float16, wire=None)

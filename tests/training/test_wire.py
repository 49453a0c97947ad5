"""The numbers in which gradients travel: 16 bits only as in the forward pass, and never fp16 without a loss scale."""

from typing import Any
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from hypvl import distributed
from hypvl.losses.base import IMAGE, LossTerm, Objective, PairContext
from hypvl.training.accumulation import GradCache, GradientAverage, naive_forward_backward
from hypvl.training.config import Accumulation, TrainConfig
from hypvl.training.run import _wrap
from hypvl.training.step import Learner, Precision, forward_backward
from tests.ranks import run_ranks
from tests.training.tiny import rows_of, tiny_batch, tiny_model

TINY = 1e-9  # gradients of this size are 0 in fp16


class OnGPU(Precision):
    """A precision that thinks it is that of a GPU, where alone gradients are compressed."""

    def wire(self, *, compress: bool) -> torch.dtype | None:
        return Precision(self.dtype, torch.device("cuda")).wire(compress=compress)


class Tiny(LossTerm):
    """A loss with tiny gradients."""

    needs = frozenset({IMAGE})

    def forward(self, ctx: PairContext) -> Tensor:
        return TINY * ctx.features(IMAGE).float().square().sum()


def sent(way: str, dtype: torch.dtype | None, compress: bool) -> tuple[set[torch.dtype], float]:
    """The dtypes of the messages with gradients, and the share of gradients that are not 0."""
    precision = OnGPU(dtype, torch.device("cpu"))
    settings = TrainConfig.read({"objective": {}, "ddp": {"fp16_compression": compress}})
    learner = Learner(tiny_model("clip"), Objective({"tiny": Tiny()}))
    average = GradientAverage(wire=precision.wire(compress=compress))
    plan = Accumulation() if way == "ddp" else Accumulation(micro_batch=3)
    module = _wrap(learner, settings, precision, plan)
    batch = rows_of(tiny_batch(), distributed.rank(), distributed.world_size())
    how: dict[str, Any] = {"precision": precision, "scaler": torch.amp.GradScaler("cpu", enabled=False)}
    seen: set[torch.dtype] = set()
    real = dist.all_reduce

    def noted(tensor: Tensor, *args: Any, **given: Any) -> Any:
        if tensor.is_floating_point() and tensor.numel() > 1:
            seen.add(tensor.dtype)
        return real(tensor, *args, **given)

    with mock.patch.object(dist, "all_reduce", noted):
        if way == "naive":
            naive_forward_backward(module, [batch, batch], parts=2, average=average, **how)
        else:
            forward_backward(
                module, batch, cache=GradCache(3, average=average) if way == "cache" else None, **how
            )
    visual: nn.Module = learner.model.visual  # type: ignore[assignment]
    gradients = torch.cat([p.grad.flatten() for p in visual.parameters() if p.grad is not None])
    return seen, float((gradients != 0).float().mean())


def every_way() -> dict[str, tuple[set[torch.dtype], float]]:
    return {
        f"{way}, {dtype}, {compress}": sent(way, dtype, compress)
        for way in ("ddp", "cache", "naive")
        for dtype in (torch.bfloat16, None)
        for compress in (True, False)
    }


@pytest.mark.slow
def test_gradients_of_bf16_travel_in_bf16_or_fp32() -> None:
    """``ddp.fp16_compression`` under bf16 is bf16; tiny gradients arrive whatever way the step takes."""
    for results in run_ranks(2, every_way):
        for name, (dtypes, arrived) in results.items():
            compressed = "bfloat16, True" in name
            expected = {torch.bfloat16} if compressed else {torch.float32}
            if name.startswith("ddp") and not compressed:
                expected = set()  # DDP's own reduction, in the dtype of the gradients
            assert dtypes == expected, name
            assert arrived > 0.9, f"{name}: {arrived}"

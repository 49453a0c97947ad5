"""Between log records nothing in a step waits for the device.

Without a GPU two twins show it. On the meta device, whose tensors have no content, whole steps run: what would read a
number back is noted, or fails. On a CUDA device that is only imagined (:class:`FakeTensorMode`) run the parts that need
CUDA: the choice of kernels and the fused optimizer; its backward pass would need a driver. Copies between host and
device are seen. (On the CPU itself reading costs nothing, and some code does it there and only there.)
"""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from hypvl.data.batch import row_lengths
from hypvl.losses.base import Objective
from hypvl.losses.contrastive import Contrastive
from hypvl.losses.entailment import Entailment
from hypvl.training.hooks.metrics import Metrics
from hypvl.training.hooks.skipped import SkippedSteps
from hypvl.training.loop import Hook, StepResult, Trainer
from hypvl.training.optim import parameter_groups, warmup_cosine
from hypvl.training.step import Learner, Precision, optimizer_step
from tests.training.tiny import RECIPES, tiny_batch, tiny_model

_aten = torch.ops.aten
# What gives the host a number, or a tensor whose shape depends on numbers.
_READS = {
    _aten._local_scalar_dense, _aten.item, _aten.is_nonzero, _aten.equal, _aten.nonzero, _aten.masked_select,
    _aten._unique, _aten._unique2, _aten.unique_dim, _aten.unique_consecutive, _aten.repeat_interleave,
}  # fmt: skip


class Waits(TorchDispatchMode):
    """Notes what would make the host wait for a device."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = {} if kwargs is None else kwargs
        name = func.overloadpacket
        if name in _READS and not (name is _aten.repeat_interleave and kwargs.get("output_size") is not None):
            self.found.append(str(func))
        if name in (_aten.index, _aten.index_put_, _aten.index_put):
            self.found += [f"{func} by a mask" for i in args[1] if i is not None and i.dtype == torch.bool]
        result = func(*args, **kwargs)
        if name is _aten._to_copy and args[0].device != result.device and not kwargs.get("non_blocking"):
            self.found.append(f"{func} {args[0].device} -> {result.device}")
        return result


def learner(recipe: str, *, implementation: Any = "dense", warmup: bool = False) -> Learner:
    terms: dict[str, Any] = {
        "contrastive": Contrastive(
            implementation=implementation, tile=(4, 4) if implementation == "tiled" else None
        )
    }
    if recipe == "meru":
        terms["entailment"] = Entailment()
    return Learner(
        tiny_model(recipe), Objective(terms, {}, warmup={"contrastive": [1, 3]} if warmup else None)
    )


def batches() -> Iterator[dict[str, Any]]:
    for seed in range(100):
        batch = tiny_batch(8, seed=seed)
        batch["text"][seed % 8, 3:] = torch.tensor([49, 0, 0])  # one shorter text
        yield batch | {"text_lengths": row_lengths(batch["text"])}


class LeavesOut(torch.optim.SGD):
    """Stands for the fused optimizers, which leave a step out by themselves; none of them runs on meta."""

    _step_supports_amp_scaling = True
    asked = 0

    def step(self, closure: Any = None) -> Any:
        assert vars(self)["found_inf"].device.type == "meta"
        vars(self)["found_inf"] = None  # for the kernel
        self.asked += 1
        return super().step(closure)


class SkippedUntilTheEnd(SkippedSteps):
    def after_train(self, trainer: Trainer) -> None:
        """The end of a run may read what no step has read."""


def train_nowhere(made: Learner, *, clip: float | None, steps: int, period: int) -> list[str]:
    """What waited in that many steps on the meta device, hooks included."""
    groups = parameter_groups(made, weight_decay=0.2, gain_bias_decay=0.2)
    optimizer = LeavesOut(groups, lr=1e-3, foreach=True)
    precision = Precision.choose(False, torch.device("meta"))

    class Stop(Hook):
        def after_step(self, trainer: Trainer, step: StepResult) -> None:
            assert step.output.total.device.type == "meta"
            trainer.stop_requested = trainer.iteration == steps

    run = Trainer(
        learner=made, module=made, optimizer=optimizer, precision=precision, scaler=precision.make_scaler(),
        scheduler=warmup_cosine(optimizer, total_steps=100, warmup_steps=2), loader=list(batches()),
        num_iterations=100, global_batch_size=8, epoch_size=24, clip_norm=clip,
        hooks=(Metrics([], period=period), SkippedUntilTheEnd(period), Stop()),
    )  # fmt: skip
    with Waits() as waits:
        run.run()
    assert optimizer.asked == steps
    return waits.found


@pytest.mark.parametrize(
    ("recipe", "implementation", "clip"),
    [("clip", "tiled", None), ("meru", "dense", None), ("meru", "tiled", 1.0), ("atmg", "dense", 1.0)],
)
def test_steps_read_nothing_back_before_a_record(
    recipe: str, implementation: str, clip: float | None
) -> None:
    with torch.device("meta"):
        made = learner(recipe, implementation=implementation, warmup=True)
    assert train_nowhere(made, clip=clip, steps=2, period=3) == []
    with pytest.raises(RuntimeError, match="no data"):  # the record itself reads the means
        train_nowhere(made, clip=clip, steps=2, period=2)


def test_what_waits_is_noticed() -> None:
    x = torch.arange(3.0)
    for act in (
        lambda: x.sum().item(), lambda: float(x[0]), lambda: bool(x.any()), lambda: x[x > 1], lambda: x.nonzero(),
        lambda: x.repeat_interleave(torch.tensor([1, 2, 0])), lambda: x.unique(),
    ):  # fmt: skip
        with Waits() as waits:
            act()
        assert waits.found
    with Waits() as waits:
        x.to("meta")
        x.to("meta", non_blocking=True)
    assert waits.found == ["aten._to_copy.default cpu -> meta"]


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("implementation", ["dense", "tiled"])
def test_forward_pass_on_an_imagined_gpu(recipe: str, implementation: str) -> None:
    """Encoders, heads, geometry and loss, texts in groups by the lengths of the loader."""
    batch = next(batches())
    with FakeTensorMode() as mode:
        with torch.device("cuda"):
            made = learner(recipe, implementation=implementation)
        moved = {
            k: mode.from_tensor(v).to("cuda", non_blocking=True) if isinstance(v, Tensor) else v
            for k, v in batch.items()
        }
        with Waits() as waits:
            output, ctx = made(moved)
        with waits, torch.no_grad():
            made.constrain_()
            made.update_(ctx)
    assert output.total.device.type == "cuda" and output.total.dtype == torch.float32
    assert waits.found == []


@pytest.mark.parametrize("clip", [None, 1.0])
def test_optimizer_step_on_an_imagined_gpu(clip: float | None) -> None:
    with FakeTensorMode():
        with torch.device("cuda"):
            made = learner("meru")
        optimizer = torch.optim.AdamW(
            parameter_groups(made, weight_decay=0.2, gain_bias_decay=0.2), fused=True
        )
        parameters = [p for p in made.parameters() if p.requires_grad]
        for parameter in parameters:
            parameter.grad = torch.ones_like(parameter)
        scaler = Precision(torch.bfloat16, torch.device("cuda")).make_scaler()
        with Waits() as waits:
            optimizer_step(
                optimizer, parameters, scaler=scaler, clip_norm=clip, loss=torch.zeros((), device="cuda")
            )
    assert waits.found == []


def test_the_imagined_gpu_gives_nothing_away() -> None:
    with FakeTensorMode(), torch.device("cuda"):
        x = torch.ones(3)
        with pytest.raises(DataDependentOutputException):
            x.sum().item()
        with Waits() as waits:
            x.cpu()
    assert waits.found == ["aten._to_copy.default cuda:0 -> cpu"]

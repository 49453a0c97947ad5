"""Trunks that may not be run in micro-batches, or twice, are refused by name; those that may are not."""

import pytest
import torch
from torch import Tensor, nn

from hypvl.encoders.feature_transforms import BatchStandardize
from hypvl.encoders.image import TimmImageEncoder
from hypvl.errors import ConfigError
from hypvl.training.accumulation import GradCache, check_no_batch_statistics
from hypvl.training.step import Precision, forward_backward
from tests.training.test_grad_cache import make
from tests.training.tiny import tiny_batch

FULL = Precision.choose(False, torch.device("cpu"))


class Trunk(nn.Module):
    """Mean colours, a norm, and a layer."""

    width, image_size = 8, 16

    def __init__(self, norm: nn.Module | None = None) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 8)
        self.norm = norm if norm is not None else nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        return self.norm(self.layer(images.mean((2, 3), dtype=self.layer.weight.dtype) / 255))


class Coupled(Trunk):
    """Subtracts the mean row, as no module with a known name does."""

    def forward(self, images: Tensor) -> Tensor:
        x = super().forward(images)
        return x - x.mean(0)


class Keeps(Trunk):
    """Counts its calls in a buffer."""

    calls: Tensor

    def __init__(self) -> None:
        super().__init__(nn.Identity())
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(images)


class OwnDraws(Trunk):
    """Dropout from a generator that nobody can put back."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(0)

    def forward(self, images: Tensor) -> Tensor:
        x = super().forward(images)
        return x * torch.rand(1, 8, generator=self.generator, dtype=x.dtype)


class Grows(Trunk):
    """Without a buffer: gives other features at every call."""

    def forward(self, images: Tensor) -> Tensor:
        self.calls = getattr(self, "calls", 0) + 1
        return super().forward(images) * min(self.calls, 6)


class Lazy(Trunk):
    """Makes a table when it is first called, and keeps it."""

    table: Tensor | None

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", None)

    def forward(self, images: Tensor) -> Tensor:
        x = super().forward(images)
        if self.table is None:
            self.table = torch.arange(8, dtype=x.dtype)
        return x + self.table


class Frozen(nn.BatchNorm1d):
    """Stays with its running statistics in training, too."""

    def train(self, mode: bool = True) -> "Frozen":
        return super().train(False)


def first_step(trunk: nn.Module, rows: int = 8) -> None:
    learner = make(trunk)
    forward_backward(learner, tiny_batch(rows), precision=FULL, scaler=FULL.make_scaler(), cache=GradCache(3))
    assert learner.model.visual.layer.weight.grad is not None  # type: ignore[union-attr]  # Toy has it


@pytest.mark.parametrize("norm", [
    nn.BatchNorm1d(8), nn.SyncBatchNorm(8), nn.BatchNorm1d(8, track_running_stats=False),
    nn.InstanceNorm1d(8, track_running_stats=True), BatchStandardize(8),
])  # fmt: skip
def test_norms_over_the_batch_are_refused_by_name(norm: nn.Module) -> None:
    learner = make(Trunk(norm))
    said = (
        rf"^train.grad_cache.micro_batch: model.visual.norm is a {type(norm).__name__}, whose .* \(LayerNorm"
    )
    with pytest.raises(ConfigError, match=said):
        check_no_batch_statistics(learner)


def test_a_network_of_timm_is_refused_before_it_ran() -> None:
    learner = make(TimmImageEncoder("resnet10t", image_size=32))
    with pytest.raises(ConfigError, match=r"model.visual.trunk.conv1.1 is a BatchNorm"):
        first_step(learner.model.visual)
    bn = next(m for m in learner.model.visual.modules() if isinstance(m, nn.BatchNorm2d))
    assert torch.equal(bn.running_mean, torch.zeros_like(bn.running_mean))


@pytest.mark.parametrize("norm", [nn.LayerNorm(8), nn.GroupNorm(2, 8), Frozen(8), nn.BatchNorm1d(8)])
def test_norms_that_see_one_row_are_not(norm: nn.Module) -> None:
    learner = make(Trunk(norm))
    if type(norm) is nn.BatchNorm1d:
        norm.eval()
    check_no_batch_statistics(learner)
    forward_backward(learner, tiny_batch(), precision=FULL, scaler=FULL.make_scaler(), cache=GradCache(3))


def test_batch_statistics_after_the_trunk_are_welcome() -> None:
    """A head whose statistics are those of the batch: the cached step has them of all rows."""
    grads = []
    for cache in (None, GradCache(3)):
        learner = make()
        head = nn.Sequential(learner.model.visual_head, nn.BatchNorm1d(12).double())
        learner.model.visual_head = head
        forward_backward(learner, tiny_batch(), precision=FULL, scaler=FULL.make_scaler(), cache=cache)
        grads.append({name: p.grad for name, p in learner.named_parameters() if p.grad is not None})
        assert head[1].num_batches_tracked == 1
    for result in grads:  # a shift before batch statistics does nothing: its gradient is rounding alone
        torch.testing.assert_close(
            result.pop("model.visual.norm.bias"), torch.zeros(16).double(), rtol=0, atol=1e-12
        )
    torch.testing.assert_close(*grads, rtol=1e-9, atol=1e-14)


def test_rows_that_depend_on_each_other_are_found() -> None:
    with pytest.raises(
        ConfigError, match=r"in model.visual \(Coupled\) the features of a row depend on the oth"
    ):
        first_step(Coupled())
    first_step(Trunk(), rows=1)  # one row depends on nothing


def test_what_changes_with_each_call_is_found() -> None:
    with pytest.raises(ConfigError, match=r"model.visual.calls changes whenever model.visual encodes"):
        first_step(Keeps())
    with pytest.raises(ConfigError, match=r"model.visual \(OwnDraws\)"):
        first_step(OwnDraws())
    with pytest.raises(ConfigError, match=r"model.visual \(Grows\) .*(depend on the other|second time)"):
        first_step(Grows(), rows=8)
    with pytest.raises(ConfigError, match=r"model.visual \(OwnDraws\) gave other features .* a second time"):
        first_step(OwnDraws(), rows=1)  # no pair of rows to look at: the second pass tells
    first_step(Lazy())

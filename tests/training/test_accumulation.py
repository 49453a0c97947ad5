"""What `train` may say about dividing a step's batch, and what naive accumulation computes."""

from typing import Any

import pytest
import torch
from torch import Tensor

from hypvl import distributed
from hypvl.errors import ConfigError
from hypvl.losses.base import IMAGE, Objective, PairContext
from hypvl.training.accumulation import GradientAverage, naive_forward_backward
from hypvl.training.config import Accumulation, TrainConfig
from hypvl.training.step import Learner, Precision, forward_backward
from tests.ranks import run_ranks
from tests.training.test_loop import Epochs, trainer
from tests.training.tiny import rows_of, tiny_batch, tiny_learner, tiny_model

FULL = Precision.choose(False, torch.device("cpu"))


def choose(*, world_size: int = 1, broadcast: bool = False, **settings: Any) -> Accumulation:
    common = {"objective": {}, "total_batch_size": 12, "ddp": {"broadcast_buffers": broadcast}}
    return Accumulation.choose(TrainConfig.read({**common, **settings}), world_size=world_size)


def test_off_by_default_and_for_earlier_configs() -> None:
    assert choose() == Accumulation(None, 1)
    assert choose(grad_cache={"micro_batch": None}, accumulate=1, naive_accumulate=1) == Accumulation()
    assert not choose().divides


def test_accumulate_is_a_micro_batch() -> None:
    assert choose(grad_cache={"micro_batch": 5}) == Accumulation(micro_batch=5)
    assert choose(accumulate=3) == Accumulation(micro_batch=4)  # 12 / 3
    assert choose(accumulate=5) == Accumulation(micro_batch=3)  # 12 / 5, rounded up: 4 parts
    assert choose(accumulate=3, world_size=2) == Accumulation(micro_batch=2)
    assert choose(naive_accumulate=3, world_size=2) == Accumulation(naive_parts=3)
    assert "encoders see 4 rows at once" in choose(accumulate=3).describe()
    assert "3 separate losses per step" in choose(naive_accumulate=3).describe()


@pytest.mark.parametrize("value", [0, -2, True, "8", 2.5, [4], float("inf"), float("nan")])
@pytest.mark.parametrize("name", ["grad_cache.micro_batch", "accumulate", "naive_accumulate"])
def test_other_numbers_are_refused(name: str, value: Any) -> None:
    settings = {"grad_cache": {"micro_batch": value}} if "." in name else {name: value}
    with pytest.raises(
        ConfigError, match=rf"^train\.{name}: got .*; expected a whole number of at least 1\.$"
    ):
        choose(**settings)


def test_what_does_not_go_together_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"^train.grad_cache.micro_batch and train.accumulate: both are set"
    ):
        choose(grad_cache={"micro_batch": 4}, accumulate=2)
    with pytest.raises(ConfigError, match=r"^train.accumulate and train.naive_accumulate: both are set"):
        choose(accumulate=2, naive_accumulate=2)
    with pytest.raises(ConfigError, match=r"^train.accumulate: got 7, but a process has 6 samples"):
        choose(accumulate=7, world_size=2)
    with pytest.raises(
        ConfigError, match=r"^train.naive_accumulate: got 4 .* on 2 processes; .* multiple of 8"
    ):
        choose(naive_accumulate=4, world_size=2)
    with pytest.raises(ConfigError, match=r"'train.grad_cache.micro': the closest .*\.micro_batch'"):
        choose(grad_cache={"micro": 3})
    with pytest.raises(ConfigError, match=r"train.grad_cache: got 8; expected a mapping of settings"):
        choose(grad_cache=8)
    with pytest.raises(ConfigError, match=r"train.accumulate: set together with train.ddp.broadcast_buffers"):
        choose(accumulate=2, world_size=2, broadcast=True)
    assert choose(accumulate=2, broadcast=True).micro_batch == 6  # one process: nothing to broadcast


def gradients(learner: Learner) -> dict[str, Tensor]:
    return {name: p.grad for name, p in learner.named_parameters() if p.grad is not None}


def naive(parts: int = 2) -> dict[str, Tensor]:
    """Two global batches of 8 as two parts; each rank has its rows of both."""
    learner = tiny_learner("meru").double()
    world = distributed.world_size()
    batches = [rows_of(tiny_batch(8, seed=seed), distributed.rank(), world) for seed in range(parts)]
    output, contexts = naive_forward_backward(
        learner, batches, parts=parts, precision=FULL, scaler=FULL.make_scaler(), average=GradientAverage()
    )
    assert [ctx.batch is batch for ctx, batch in zip(contexts, batches, strict=True)] == [True] * parts
    means = {name: distributed.all_reduce_mean(value) for name, value in output.terms.items()}
    return {**gradients(learner), **means, "total": distributed.all_reduce_mean(output.total)}


def test_naive_accumulation_is_the_mean_of_separate_losses() -> None:
    expected: dict[str, Tensor] = {}
    for seed in range(2):
        learner = tiny_learner("meru").double()
        output, _ = forward_backward(
            learner, tiny_batch(8, seed=seed), precision=FULL, scaler=FULL.make_scaler()
        )
        for name, value in {**gradients(learner), **output.terms, "total": output.total.detach()}.items():
            expected[name] = expected.get(name, 0) + value / 2
    for result in (naive(), *run_ranks(2, naive)):
        assert result.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(result[name], value, rtol=1e-10, atol=1e-13, msg=name)


class Rows(Epochs):
    """Counts the rows of its updates."""

    def update_(self, ctx: PairContext) -> None:
        self.updates += len(ctx.features(IMAGE))


def test_a_step_of_several_parts_is_one_step() -> None:
    """Six batches of 8 are three steps; every part is heard of, the epoch begins once."""
    term = Rows()
    learner = Learner(tiny_model("clip"), Objective({"count": term}))
    run = trainer(learner, iterations=3, naive_parts=2)
    run.global_batch_size, run.epoch_size = 16, 32
    run.run()
    assert (run.iteration, run.consumed) == (3, 48)
    assert (term.epochs, term.updates, int(learner.objective.steps)) == (2, 48, 3)

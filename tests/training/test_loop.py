import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from hypvl.errors import ConfigError, UserError
from hypvl.losses.base import IMAGE, LossTerm, Objective, PairContext
from hypvl.training.hooks.metrics import Metrics
from hypvl.training.hooks.sinks import Record
from hypvl.training.hooks.skipped import SkippedSteps
from hypvl.training.loop import Hook, StepResult, Trainer
from hypvl.training.optim import parameter_groups, warmup_cosine
from hypvl.training.step import Learner, Precision, mean_embedding
from tests.training.tiny import tiny_batch, tiny_learner, tiny_model


def batches(start: int = 0) -> Iterator[dict[str, Any]]:
    position = start
    while True:
        yield tiny_batch(8, seed=position)
        position += 1


def trainer(learner: Learner, *, iterations: int = 6, hooks: tuple[Hook, ...] = (), **given: Any) -> Trainer:
    groups = parameter_groups(learner, weight_decay=0.2, gain_bias_decay=0.2)
    optimizer = torch.optim.AdamW(groups, lr=1e-2)
    precision = Precision.choose(False, torch.device("cpu"))
    return Trainer(
        learner=learner,
        module=learner,
        optimizer=optimizer,
        scheduler=warmup_cosine(optimizer, total_steps=iterations, warmup_steps=2),
        loader=batches(),
        precision=precision,
        scaler=precision.make_scaler(),
        num_iterations=iterations,
        global_batch_size=8,
        epoch_size=24,
        hooks=hooks,
        **given,
    )


class Memory:
    """A sink that keeps what it got."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.closed = False

    def write(self, record: Record) -> None:
        self.records.append(record)

    def close(self) -> None:
        self.closed = True


def test_first_step_has_rate_zero_and_later_ones_learn() -> None:
    learner = tiny_learner("meru")
    before = {k: v.clone() for k, v in learner.state_dict().items()}

    class AfterFirst(Hook):
        def after_step(self, trainer: Trainer, step: StepResult) -> None:
            if trainer.iteration == 1:
                assert all(torch.equal(v, before[k]) for k, v in learner.state_dict().items())

    run = trainer(learner, hooks=(AfterFirst(),))
    run.run()
    assert run.iteration == 6
    assert run.consumed == 48
    moved = [k for k, v in learner.state_dict().items() if not torch.equal(v, before[k])]
    assert "model.geometry.log_curv" in moved
    assert "model.textual.token_embed.weight" in moved
    assert "model.visual.pos_embed" not in moved  # frozen


def test_loss_falls_on_one_batch() -> None:
    learner = tiny_learner("clip")
    memory = Memory()
    run = trainer(learner, iterations=40, hooks=(Metrics([memory], period=1),))
    run.loader = [tiny_batch(8)] * 40
    run.run()
    assert memory.records[-1]["loss"] < 0.7 * memory.records[0]["loss"]


def test_records_average_over_the_period_and_say_speed_and_position() -> None:
    learner, memory = tiny_learner("meru"), Memory()
    run = trainer(learner, iterations=5, hooks=(Metrics([memory], period=2),))
    run.run()
    assert [r["iteration"] for r in memory.records] == [2, 4, 5]
    first = memory.records[0]
    assert first["loss"] == pytest.approx(first["contrastive"] + 0.2 * first["entailment"], rel=1e-5)
    assert first["consumed"] == 16
    assert first["epoch"] == pytest.approx(16 / 24)
    assert 0 <= first["data_wait"] <= 1
    assert first["samples_per_second"] > 0
    assert {"lr", "grad_norm", "memory_gb", "peak_memory_gb", "eta_seconds", "curv"} <= first.keys()
    assert memory.closed


def test_the_rate_in_a_record_is_the_one_its_step_used() -> None:
    memory = Memory()
    trainer(tiny_learner("clip"), iterations=4, hooks=(Metrics([memory], period=1),)).run()
    # warm-up of 2 steps to 0.01, then cos(pi/2 (step - 2) / 2)^2: 1, 1/2
    assert [r["lr"] for r in memory.records] == pytest.approx([0.0, 0.005, 0.01, 0.005])


def test_a_hook_can_stop_the_run_and_hooks_are_closed_after_an_error() -> None:
    class Stop(Hook):
        closed = False

        def after_step(self, trainer: Trainer, step: StepResult) -> None:
            if trainer.iteration == 2:
                trainer.stop_requested = True

        def close(self, trainer: Trainer) -> None:
            self.closed = True

    stop = Stop()
    run = trainer(tiny_learner("clip"), hooks=(stop,))
    run.run()
    assert run.iteration == 2
    assert stop.closed

    class Fail(Hook):
        def after_step(self, trainer: Trainer, step: StepResult) -> None:
            raise RuntimeError("boom")

    stop = Stop()
    with pytest.raises(RuntimeError, match="boom"):
        trainer(tiny_learner("clip"), hooks=(stop, Fail())).run()
    assert stop.closed


class Epochs(LossTerm):
    """Counts epochs and updates; adds nothing."""

    needs = frozenset({IMAGE})

    def __init__(self) -> None:
        super().__init__()
        self.epochs = 0
        self.updates = 0

    def forward(self, ctx: PairContext) -> torch.Tensor:
        return ctx.features(IMAGE).square().mean()

    def update_(self, ctx: PairContext) -> None:
        self.updates += 1

    def begin_epoch_(self) -> None:
        self.epochs += 1


def test_terms_are_told_of_epochs_and_of_steps_that_were_not_skipped() -> None:
    term = Epochs()
    learner = Learner(tiny_model("clip"), Objective({"count": term}))
    trainer(learner, iterations=7).run()  # 7 steps of 8 samples, 24 an epoch: epochs begin at 0, 3, 6
    assert (term.epochs, term.updates) == (3, 7)


class Refuses(Epochs):
    """Raises a ValueError from its n-th call on."""

    def __init__(self, call: int) -> None:
        super().__init__()
        self.call = call

    def forward(self, ctx: PairContext) -> torch.Tensor:
        if self.updates + 1 == self.call:
            raise ValueError("cones: Sphere has none.")
        return super().forward(ctx)


def test_what_does_not_fit_in_the_first_step_is_an_error_of_the_config() -> None:
    with pytest.raises(ConfigError, match=r"^the first step is not possible: cones: Sphere has none\.$"):
        trainer(Learner(tiny_model("clip"), Objective({"a": Refuses(1)}))).run()
    with pytest.raises(ValueError, match=r"^cones: Sphere has none\.$"):  # no mistake of the user
        trainer(Learner(tiny_model("clip"), Objective({"a": Refuses(2)}))).run()


class Misses(Epochs):
    """Wants an entry that is not there: by the context, or, as a slip in a new term would, by itself."""

    def __init__(self, slip: bool) -> None:
        super().__init__()
        self.slip = slip

    def forward(self, ctx: PairContext) -> torch.Tensor:
        result = (
            ctx.batch["x"] if self.slip else ctx.entry("x", meaning="a number", otherwise="or do without")
        )
        return result * super().forward(ctx)


def test_what_a_batch_has_not_is_an_error_of_the_config() -> None:
    said = r"^the first step is not possible: batch: has no 'x', a number; it has image, .*, or do without\.$"
    with pytest.raises(ConfigError, match=said):
        trainer(Learner(tiny_model("clip"), Objective({"a": Misses(slip=False)}))).run()
    with pytest.raises(KeyError, match=r"^'x'$"):  # where it happened is what helps
        trainer(Learner(tiny_model("clip"), Objective({"a": Misses(slip=True)}))).run()


class Poisoned(LossTerm):
    """Not finite in the steps named, by the loss or by the gradient alone."""

    needs = frozenset({IMAGE})

    def __init__(self, *steps: int, gradient: bool = False) -> None:
        super().__init__()
        self.steps, self.gradient, self.calls = steps, gradient, 0

    def forward(self, ctx: PairContext) -> torch.Tensor:
        self.calls += 1
        features = ctx.features(IMAGE)
        if self.calls not in self.steps:
            return features.square().mean()
        if self.gradient:
            features.register_hook(lambda gradient: gradient * float("nan"))
            return features.square().mean()
        return features.sum() * float("nan")


@pytest.mark.parametrize("gradient", [True, False])
@pytest.mark.parametrize("fused", [True, False])
def test_a_bad_step_is_skipped_counted_and_changes_nothing(gradient: bool, fused: bool) -> None:
    """Weights are those of a run without its batch, and records average over the finite values."""
    weights, memory = [], Memory()
    for poisoned in (True, False):
        term = Poisoned(*([3] if poisoned else []), gradient=gradient)
        learner = Learner(tiny_model("clip"), Objective({"a": term}))
        run = trainer(
            learner, iterations=6 if poisoned else 5, hooks=(Metrics([memory], period=3), SkippedSteps(2))
        )
        run.optimizer = torch.optim.AdamW(learner.parameters(), lr=1e-2, fused=fused)
        run.scheduler = torch.optim.lr_scheduler.LambdaLR(run.optimizer, lambda step: 1.0)
        if not poisoned:
            run.loader = (batch for i, batch in enumerate(batches()) if i != 2)
        run.run()
        weights.append([p.detach().clone() for p in learner.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))
    first, second = memory.records[:2]
    assert (first["skipped_steps"], second["skipped_steps"]) == (1, 0)
    assert all(math.isfinite(first[name]) for name in ("loss", "a", "grad_norm"))


def test_a_skipped_step_updates_no_state() -> None:
    class Counting(Poisoned):
        updates = 0

        def update_(self, ctx: PairContext) -> None:
            self.updates += 1

    term = Counting(2, 3)
    trainer(Learner(tiny_model("clip"), Objective({"a": term})), iterations=5).run()
    assert term.updates == 3


def test_steps_that_are_never_finite_end_the_run_with_advice() -> None:
    learner, memory = tiny_learner("clip"), Memory()
    learner.model.visual_head.projection.weight.data.fill_(float("nan"))
    run = trainer(learner, hooks=(Metrics([memory], period=2), SkippedSteps(4)))
    with pytest.raises(
        UserError, match=r"4 steps in a row up to iteration 4 .*max_skipped_steps=4.*optimizer\.lr"
    ):
        run.run()
    assert [record["skipped_steps"] for record in memory.records] == [2, 2]
    assert math.isnan(memory.records[0]["loss"])


def test_skipped_steps_count_only_in_a_row() -> None:
    term = Poisoned(1, 3, 4, 6)
    run = trainer(Learner(tiny_model("clip"), Objective({"a": term})), iterations=7, hooks=(SkippedSteps(3),))
    run.run()
    assert run.iteration == 7


def test_a_record_after_a_resume_is_that_of_the_undisturbed_run() -> None:
    whole, parts = Memory(), Memory()
    trainer(tiny_learner("meru"), iterations=8, hooks=(Metrics([whole], period=4),)).run()
    learner = tiny_learner("meru")
    first = trainer(learner, iterations=8)
    metrics = Metrics([parts], period=4)

    class Stop(Hook):
        def after_step(self, trainer: Trainer, step: StepResult) -> None:
            trainer.stop_requested = trainer.iteration == 6

    first.hooks = (metrics, Stop())
    first.run()
    state = metrics.state()
    assert state[0]["first"] == 4
    metrics = Metrics([parts], period=4)
    metrics.load_state(state)
    second = trainer(learner, iterations=8, iteration=6, hooks=(metrics,))
    second.optimizer, second.scheduler, second.loader = first.optimizer, first.scheduler, batches(6)
    second.run()
    timed = {"samples_per_second", "data_wait", "memory_gb", "peak_memory_gb", "eta_seconds"}
    for a, b in zip(whole.records, parts.records, strict=True):
        assert {k: v for k, v in a.items() if k not in timed} == {
            k: v for k, v in b.items() if k not in timed
        }


def test_mean_embedding_is_a_unit_vector_of_images_and_texts() -> None:
    learner = tiny_learner("clip")
    root = mean_embedding(learner, batches(), samples=9)
    both = [tiny_batch(8, seed=s) for s in (0, 1)]
    learner.eval()
    with torch.no_grad():
        total = sum(
            learner.model.encode_image(b["image"]).sum(0) + learner.model.encode_text(b["text"]).sum(0)
            for b in both
        )
    torch.testing.assert_close(root, total / total.norm())


class ClosesBadly(Hook):
    def close(self, trainer: Trainer) -> None:
        raise OSError("gone")


@pytest.mark.parametrize("fails", [False, True])
def test_all_hooks_are_closed_whatever_one_of_them_does(fails: bool) -> None:
    """The first of them, which is closed last, says how the run ended: failed."""
    ends: list[bool] = []

    class Says(Hook):
        def close(self, trainer: Trainer) -> None:
            ends.append(trainer.failed)

    class Fails(Hook):
        def after_train(self, trainer: Trainer) -> None:
            if fails:
                raise RuntimeError("before")

    run = trainer(tiny_learner("clip"), hooks=(Says(), ClosesBadly(), Fails()))
    with pytest.raises(RuntimeError if fails else OSError, match="before" if fails else "gone"):
        run.run()
    assert ends == [True]

"""Running statistics of a model in training: skipped steps, going on after a reload, two processes."""

from typing import Any

import torch
from torch import Tensor, nn

from hypvl import distributed
from hypvl.encoders.feature_transforms import BatchStandardize
from hypvl.geometry.sphere import Sphere
from hypvl.losses.base import Objective
from hypvl.losses.contrastive import Contrastive
from hypvl.models.dual_encoder import DualEncoder
from hypvl.training.loop import Hook, StepResult
from hypvl.training.optim import parameter_groups
from hypvl.training.step import Learner, mean_embedding
from tests.encoders.test_feature_transforms import check_two_processes, three_steps
from tests.ranks import run_ranks
from tests.training.test_loop import batches, trainer
from tests.training.tiny import rows_of, tiny_batch, tiny_model

TRANSFORMS = ["model.image_transforms.*", "model.text_transforms.*"]


def async_learner(recipe: str = "clip", *, seed: int = 0) -> Learner:
    """A tiny model with batch norms on both modalities."""
    plain = tiny_model(recipe, seed=seed)
    heads = iter((plain.visual_head, plain.textual_head))
    model = DualEncoder(
        plain.visual,
        plain.textual,
        visual_head=lambda width: next(heads),
        textual_head=lambda width: next(heads),
        geometry=plain.geometry,
        scorer=plain.scorer,
        image_transforms=BatchStandardize,
        text_transforms=BatchStandardize,
    )
    return Learner(model, Objective({"contrastive": Contrastive()}))


def buffers(learner: Learner) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in learner.model.named_buffers() if "transforms" in name}


def test_each_step_moves_the_statistics_once() -> None:
    learner = async_learner()
    trainer(learner, iterations=3).run()
    result = buffers(learner)
    assert (
        result["image_transforms.0.num_batches_tracked"]
        == result["text_transforms.0.num_batches_tracked"]
        == 3
    )
    assert 0 < result["image_transforms.0.running_mean"].norm() < 1


def test_statistics_are_those_of_the_embeddings_of_the_step() -> None:
    learner = async_learner()
    with torch.no_grad():
        x = Sphere().lift(learner.model.encode_image(tiny_batch(8, seed=0)["image"], stage="features"))
    _one_step(learner)
    result = buffers(learner)
    torch.testing.assert_close(result["image_transforms.0.running_mean"], 0.1 * x.mean(0))
    torch.testing.assert_close(result["image_transforms.0.running_var"], 0.9 + 0.1 * x.var(0))


def _one_step(learner: Learner) -> None:
    run = trainer(learner, iterations=6)
    run.num_iterations = 1
    run.run()


def test_a_skipped_step_leaves_the_statistics_alone() -> None:
    learner = async_learner()
    run = trainer(learner, iterations=6)
    # The first step overflows.
    run.scaler = torch.amp.GradScaler("cpu", init_scale=3e38, backoff_factor=1e-20)
    seen: list[tuple[bool, dict[str, Tensor]]] = []

    class Look(Hook):
        def after_step(self, trainer: Any, step: StepResult) -> None:
            seen.append((step.stepped, buffers(learner)))

    start = buffers(learner)
    run.hooks = (Look(),)
    run.run()
    assert [stepped for stepped, _ in seen] == [False, True, True, True, True, True]
    before = start
    for stepped, now in seen:
        moved = not torch.equal(
            now["image_transforms.0.running_mean"], before["image_transforms.0.running_mean"]
        )
        assert moved == stepped
        assert (
            now["image_transforms.0.num_batches_tracked"] - before["image_transforms.0.num_batches_tracked"]
            == stepped
        )
        before = now


def test_evaluation_and_the_mean_embedding_leave_them_alone() -> None:
    learner = async_learner()
    _one_step(learner)
    before = buffers(learner)
    mean_embedding(learner, batches(), samples=9)
    assert all(torch.equal(v, before[k]) for k, v in buffers(learner).items())


def test_a_reload_mid_run_gives_the_same_next_loss() -> None:
    learner, other = async_learner(), async_learner(seed=5)
    run = trainer(learner, iterations=6)
    run.num_iterations = 3
    run.run()
    other.load_state_dict(learner.state_dict())
    batch = tiny_batch(8, seed=3)
    for mode in (True, False):
        losses = [one.train(mode)(batch)[0].total for one in (learner, other)]
        assert torch.equal(*losses)


def test_only_the_batch_norms_move_when_the_rest_is_frozen() -> None:
    learner = async_learner()
    parameter_groups(learner, weight_decay=0.01, gain_bias_decay=0.01, trainable=TRANSFORMS)
    before = {name: p.detach().clone() for name, p in learner.named_parameters()}
    trainer(learner, iterations=4).run()
    moved = {name for name, p in learner.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {f"model.{m}_transforms.0.{p}" for m in ("image", "text") for p in ("weight", "bias")}
    assert buffers(learner)["text_transforms.0.num_batches_tracked"] == 4


def test_batch_norms_are_gains_to_the_weight_decay() -> None:
    groups = parameter_groups(async_learner(), weight_decay=0.2, gain_bias_decay=0.05, trainable=TRANSFORMS)
    assert [(g["weight_decay"], len(g["params"])) for g in groups] == [(0.05, 4)]  # type: ignore[arg-type]


def train_steps() -> dict[str, dict[str, Any]]:
    """For two geometries: losses and state of three steps through DDP, in double precision."""
    result = {}
    for recipe in ("clip", "meru"):
        learner: Any = async_learner(recipe).double()
        world, rank = distributed.world_size(), distributed.rank()
        run = trainer(learner, iterations=3)
        if world > 1:
            run.module = nn.parallel.DistributedDataParallel(
                learner, static_graph=True, broadcast_buffers=False
            )
        # Not Adam: on the hyperboloid batch norm takes biases out again, and Adam makes steps of rounding errors.
        run.optimizer = torch.optim.SGD(run.parameters, lr=0.1)
        run.scheduler = torch.optim.lr_scheduler.ConstantLR(run.optimizer, factor=1.0)
        run.loader = [rows_of(tiny_batch(8, seed=s), rank, world) for s in range(3)]
        losses: list[Tensor] = []

        class Keep(Hook):
            def after_step(self, trainer: Any, step: StepResult, into: list[Tensor] = losses) -> None:
                into.append(distributed.all_reduce_mean(step.output.total))

        run.hooks = (Keep(),)
        run.run()
        result[recipe] = {"losses": torch.stack(losses), "state": learner.state_dict()}
    return result


def module_and_training() -> tuple[Any, Any]:
    """Both in one pair of processes: starting them is what takes time."""
    return three_steps(), train_steps()


def test_two_processes_equal_one() -> None:
    module, expected = module_and_training()
    ranks = run_ranks(2, module_and_training)
    check_two_processes(module, [alone for alone, _ in ranks])
    for _, ranked in ranks:
        for recipe, one in expected.items():
            torch.testing.assert_close(ranked[recipe]["losses"], one["losses"], rtol=1e-9, atol=1e-11)
            for name, value in one["state"].items():
                torch.testing.assert_close(
                    ranked[recipe]["state"][name], value, rtol=1e-8, atol=1e-10, msg=f"{recipe}: {name}"
                )

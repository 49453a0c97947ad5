import pytest
import torch

from benchmarks import grad_cache
from hypvl.training.accumulation import GradCache

TINY = ("--arch", "test_vit", "--text-arch", "L1_W64", "--image-size", "32")


@pytest.mark.slow  # four processes that load torch
def test_figures_of_a_tiny_run() -> None:
    args = grad_cache.parser().parse_args(
        [*TINY, "--batches", "4", "--micro-batch", "2", "--time-batch", "4", "--repeats", "1"]
    )
    result = grad_cache.measure(args)
    assert {"extra_memory_mib", "memory_per_sample_mib", "memory_ratio", "time_ratio"} <= result.keys()
    assert {name: set(rows) for name, rows in result["extra_memory_mib"].items()} == {
        "cached": {4}, "plain": {4},
    }  # fmt: skip
    assert 0 < result["grad_error"] < 1e-5


def test_the_error_is_relative() -> None:
    one, two = torch.tensor([3.0, 4.0]), torch.tensor([0.0])
    assert grad_cache.relative_error([one, two], [2 * one, two]) == 0.5
    assert grad_cache.relative_error([one, two + 5], [one, two]) == 1.0


def test_both_forms_step_on_the_same_batch() -> None:
    learner = grad_cache.learner_of("test_vit", "L1_W64", 32)
    batch = grad_cache.batch_of(4, 32)
    assert torch.equal(batch["image"], grad_cache.batch_of(4, 32)["image"])
    assert batch["text"].shape == (4, 12) and (batch["text"][:, -1] == grad_cache.END).all()
    plain, cached = (grad_cache.gradients(learner, batch, form) for form in (None, GradCache(3)))
    assert len(plain) == sum(p.requires_grad for p in learner.parameters())
    assert grad_cache.relative_error(cached, plain) < 1e-5

"""Weights between two checkpoints."""

import math

import pytest
import torch
from torch import Tensor

from hypvl.errors import CheckpointError
from hypvl.geometry.lorentz import Lorentz
from hypvl.models.interpolation import interpolate_weights
from tests.training.tiny import tiny_model


def states() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    first, second = (
        {
            "weight": torch.randn(3, 4, generator=torch.Generator().manual_seed(seed)),
            "half": torch.randn(5, generator=torch.Generator().manual_seed(seed)).bfloat16(),
            "running_mean": torch.full((2,), float(seed)),
            "num_batches_tracked": torch.tensor(10 * seed),
        }
        for seed in (1, 2)
    )
    first["weight"][0, 0] = -0.0
    return first, second


def test_values_by_hand() -> None:
    initial = {"w": torch.tensor([0.0, 4.0]), "n": torch.tensor(3), "on": torch.tensor([True])}
    finetuned = {"w": torch.tensor([8.0, 0.0]), "n": torch.tensor(5), "on": torch.tensor([False])}
    mixed = interpolate_weights(initial, finetuned, alpha=0.25)
    assert mixed["w"].tolist() == [2.0, 3.0]
    assert (mixed["n"].item(), mixed["on"].item()) == (5, False)  # of the fine-tuned one
    assert interpolate_weights(initial, finetuned, alpha=0.5)["w"].tolist() == [4.0, 2.0]


@pytest.mark.parametrize("alpha", [0, 1])
def test_the_ends_are_the_same_bits(alpha: int) -> None:
    ends = states()
    mixed = interpolate_weights(*ends, alpha=alpha)
    for name, tensor in ends[alpha].items():
        assert mixed[name].dtype == tensor.dtype
        assert torch.equal(mixed[name].flatten().view(torch.uint8), tensor.flatten().view(torch.uint8)), name
        assert mixed[name].data_ptr() != tensor.data_ptr()


def test_equal_weights_stay_the_same_bits() -> None:
    first, _ = states()
    mixed = interpolate_weights(first, first, alpha=0.3)
    assert all(torch.equal(mixed[name], tensor) for name, tensor in first.items())


def test_curvature_and_scales_are_interpolated_as_logarithms() -> None:
    """Half way between curvatures 0.5 and 2 is their geometric mean, 1."""
    models = [tiny_model("meru", seed=seed) for seed in (0, 1)]
    for model, curv in zip(models, (0.5, 2.0), strict=True):
        assert isinstance(model.geometry, Lorentz)
        torch.nn.init.constant_(model.geometry.log_curv, math.log(curv))
    mixed = interpolate_weights(models[0].state_dict(), models[1].state_dict(), alpha=0.5)
    models[0].load_state_dict(mixed)
    assert models[0].geometry.curvature is not None
    assert models[0].geometry.curvature.item() == pytest.approx(1.0)


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan"), "half", True])
def test_alpha_has_a_range(alpha: float) -> None:
    with pytest.raises(ValueError, match=r"alpha: got .*; expected a number of at least 0 and up to 1"):
        interpolate_weights(*states(), alpha=alpha)


def test_different_models_are_refused() -> None:
    initial, finetuned = states()
    with pytest.raises(CheckpointError, match="different models: only one of them has extra"):
        interpolate_weights(initial | {"extra": torch.zeros(1)}, finetuned, alpha=0.5)
    with pytest.raises(
        CheckpointError, match=r"weight is torch.float32 \(2,\) in the initial one and .* \(3, 4\) in"
    ):
        interpolate_weights(initial | {"weight": torch.zeros(2)}, finetuned, alpha=0.5)
    with pytest.raises(CheckpointError, match=r"weight is torch.int64"):
        interpolate_weights(initial | {"weight": torch.zeros(3, 4, dtype=torch.int64)}, finetuned, alpha=0.5)

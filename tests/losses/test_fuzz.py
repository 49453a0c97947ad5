"""Every loss term over features of all magnitudes and dtypes, and over batches that are degenerate."""

import pytest
import torch
from torch import Tensor

from hypvl.losses.base import View
from tests.losses.contract import LossContract
from tests.losses.implementations import forced
from tests.losses.test_distributed import contracts
from tests.losses.toy import context, random_features

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
MAGNITUDES = [10.0**exponent for exponent in range(-30, 31, 10)]
# What is refused says why (documented): fp64 beyond 1e70, losses that do not fit, SigLIP without a bias.
REFUSED = ("beyond", "does not fit", "bias")


def batches(count: int, *, view: int) -> dict[str, Tensor]:
    """Rows of one view by what is special about them, fp64."""
    free, other = random_features(count, seed=view), random_features(count, seed=9)
    mixed = (
        free
        * torch.tensor(MAGNITUDES, dtype=torch.float64).repeat(-(-count // len(MAGNITUDES)))[:count, None]
    )
    sign = -1.0 if view % 2 else 1.0
    result = {f"{magnitude:g}": magnitude * free for magnitude in MAGNITUDES}
    result["mixed magnitudes"] = mixed
    result["identical rows"] = free[:1].expand(count, -1)
    result["identical views"] = other
    result["antipodal views"] = sign * other
    result["zero rows"] = torch.zeros_like(free)
    result["every other row zero"] = free * (torch.arange(count) % 2)[:, None]
    result["one direction"] = other[:1] * torch.arange(1, count + 1, dtype=torch.float64)[:, None]
    return result


def faults(contract: LossContract, samples: int, dtype: torch.dtype, *implementations: str) -> list[str]:
    """What is not finite. Gradients of 16 bits are taken in fp32: beyond 65504 is beyond fp16."""
    term, wide = contract.make(), torch.promote_types(dtype, torch.float32)
    model, result = contract.model().to(wide), []
    if wide == torch.float32:
        term.float()
    views = sorted(term.needs, key=str)
    made = {
        view: batches(samples * contract.per_sample.get(view.source, 1), view=i)
        for i, view in enumerate(views)
    }
    limit = torch.finfo(dtype).max
    # A layer of prototypes is part of a head, which computes in the dtype that it is given.
    of_dtype = dtype != wide and not hasattr(model, "prototypes")
    for name in made[views[0]]:
        rows: dict[View, Tensor] = {view: made[view][name].clamp(-limit, limit).to(dtype) for view in views}
        for implementation in implementations:
            leaves = {view: x.to(wide, copy=True).requires_grad_() for view, x in rows.items()}
            with forced(implementation):
                try:
                    if of_dtype:
                        narrow = term(context(model, rows, **contract.batch(samples)))
                    value = term(context(model, leaves, **contract.batch(samples)))
                except ValueError as error:
                    if not any(word in str(error) for word in REFUSED):
                        result.append(f"{name}, {implementation}: {error}")
                    continue
            values = [value, narrow] if of_dtype else [value]
            if not all(x.isfinite() for x in values):
                result.append(f"{name}, {implementation}: values {[x.item() for x in values]}")
                continue
            inputs = [
                *leaves.values(),
                *(p for p in (*term.parameters(), *model.parameters()) if p.requires_grad),
            ]
            for x, gradient in zip(
                inputs, torch.autograd.grad(value, inputs, allow_unused=True), strict=True
            ):
                if gradient is not None and not gradient.isfinite().all():
                    result.append(f"{name}, {implementation}: gradient of {tuple(x.shape)}")
    return result


@pytest.mark.slow  # the contract of losses tries the largest sizes always
@pytest.mark.parametrize("name", sorted(contracts()))
def test_term(name: str) -> None:
    result = faults(contracts()[name](), 6, torch.float32, "chosen")
    assert not result, "\n".join(result)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype(dtype: torch.dtype) -> None:
    result = [
        f"{name}, {samples} samples, {fault}"
        for name, kind in contracts().items()
        for samples, implementations in ((1, ["chosen"]), (6, ["chosen", "tiled"]))
        for fault in faults(kind(), samples, dtype, *implementations)
    ]
    assert not result, "\n".join(result)

"""Lorentz operations against the published code's numbers, and against exact ones where that code is floored.

Tolerances. The published float64 code clamps and adds eps = 1e-8 where hypvl does not: lengths agree to 1e-7,
angles to 1e-5 (eps is amplified near 0 and pi), half apertures inside the minimum radius to 1.5e-4 (pi/2 there,
pi/2 - 1.4e-4 in the published code). Distances and log maps shorter than 1.4e-4 are floored there: not compared.
Gradients, relative to the largest: 1e-6 (fp32: 1e-4), and 5e-3 for angles, since eps comes in over the square
of the angle: 1e-3 measured at 0.01 radians. (Gradients themselves are checked in tests/geometry.)
"""

import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hypvl.geometry import lorentz
from tests.parity.reference import cases, load, number

OPERATIONS: dict[str, Callable[..., Tensor]] = {
    name: getattr(lorentz, name)
    for name in (
        "pairwise_inner", "pairwise_dist", "exp_map0", "log_map0", "half_aperture", "oxy_angle", "pairwise_oxy_angle",
    )
}  # fmt: skip
INPUTS = {
    "pairwise_inner": "xz", "pairwise_dist": "xz", "exp_map0": "t", "log_map0": "x", "half_aperture": "x",
    "oxy_angle": "xy", "pairwise_oxy_angle": "xz",
}  # fmt: skip
SKIPPED = {
    "einstein_loss_atmg_asis": "the published function squares the norm twice and is never called there"
}
ANGLES = ("half_aperture", "oxy_angle", "pairwise_oxy_angle")


def operations(key: str) -> list[Any]:
    """One parameter per (case, operation) of the file; operations that hypvl does not copy say why."""
    result = []
    for case in cases("lorentz_ops", key):
        if case.values[0] is None:
            result.append(case)
            continue
        content = case.values[0]
        for name in content["ops"]:
            reason = SKIPPED.get(name)
            marks = [pytest.mark.skip(reason=reason)] if reason else []
            result.append(pytest.param((content, name), id=f"{content['name']}-{name}", marks=marks))
    return result


def hashed(key: str, rows: int, scale: float, dim: int = 512) -> Tensor:
    """The number files' inputs by formula (meta/hash_formula): scale * u(key), (rows, dim)."""
    content = load("lorentz_ops")
    assert content is not None
    start = (zlib.crc32(key.encode()) + int(content["meta"]["salt_for_512d"])) % 2**32
    h = (np.arange(rows * dim, dtype=np.uint64) * 0x9E3779B1 + start) % 2**32
    h = ((h ^ (h >> np.uint64(16))) * 0x85EBCA6B) % 2**32
    h = ((h ^ (h >> np.uint64(13))) * 0xC2B2AE35) % 2**32
    h ^= h >> np.uint64(16)
    return torch.tensor(scale * (h.astype(np.float64) / 2147483648 - 1)).reshape(rows, dim)


def evaluate(
    name: str, case: dict[str, Any], dtype: torch.dtype
) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """Value, inputs and gradients of the sum, by the name of the input ("curv" included)."""
    if "inputs" in case:
        given = {key: torch.tensor(number(case["inputs"][key]), dtype=torch.float64) for key in INPUTS[name]}
    else:
        given = {key: hashed(*case["inputs_formula"][key]) for key in INPUTS[name]}
    leaves = {key: value.to(dtype).requires_grad_() for key, value in given.items()}
    curv = torch.tensor(float(case["curv"]), dtype=dtype, requires_grad=True)
    out = OPERATIONS[name](*leaves.values(), curv=curv)
    grads = torch.autograd.grad(out.sum(), (*leaves.values(), curv))
    return out.detach(), leaves, dict(zip((*leaves, "curv"), grads, strict=True))


def close(actual: Tensor, expected: Any, *, rtol: float, atol: float) -> None:
    """Against a full array, or against the row norms and first entries that long arrays are given by."""
    actual = actual.double()
    if isinstance(expected, dict):
        close(actual.norm(dim=-1), expected["row_l2"], rtol=rtol, atol=atol)
        close(actual[..., :4], expected["first4_each_row"], rtol=rtol, atol=atol)
        return
    wanted = torch.tensor(number(expected), dtype=torch.float64)
    torch.testing.assert_close(actual, wanted, rtol=rtol, atol=atol)


def largest(expected: Any) -> float:
    if isinstance(expected, dict):
        return max(number(expected["row_l2"]))
    return torch.tensor(number(expected), dtype=torch.float64).abs().max().item()


@pytest.mark.parametrize("case", [*operations("cases"), *operations("cases_512")])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["fp64", "fp32"])
def test_operation_and_gradients(case: tuple[dict[str, Any], str], dtype: torch.dtype) -> None:
    content, name = case
    expected = content["ops"][name]
    out, _, grads = evaluate(name, content, dtype)
    double = dtype == torch.float64
    if name == "half_aperture":
        rtol, atol = 0.0, 1.5e-4
    elif name in ANGLES:
        rtol, atol = 0.0, 1e-5 if double else 1e-4
    else:
        # Relative to the largest entry too: fp32 inner products of unlike signs cancel.
        rtol = 1e-7 if double else 5e-6
        atol = rtol * largest(expected["out"])
    close(out, expected["out"], rtol=rtol, atol=atol)
    for key, grad in grads.items():
        wanted = expected.get(f"grad_{key}")
        if wanted is None:
            continue
        if name in ANGLES:
            rtol = 5e-3
        else:
            rtol = 1e-6 if double else 1e-4
        close(grad, wanted, rtol=rtol, atol=rtol * largest(wanted))


# The elementwise form of an operation on single pairs, which is what the edge cases are.
ELEMENTWISE = {"pairwise_dist": lorentz.dist, "pairwise_oxy_angle": lorentz.oxy_angle}


def flat(value: Any) -> list[float | None]:
    return [w for v in value for w in flat(v)] if isinstance(value, list) else [number(value)]


def edges() -> list[Any]:
    """The edge cases under their names."""
    return [
        pytest.param(p.values[0], id="-".join(str(p.values[0][k]) for k in ("name", "op", "curv")))
        if p.values[0]
        else p
        for p in cases("lorentz_edge", "edge")
    ]


def on_the_edge_of_the_cone(case: dict[str, Any]) -> bool:
    """Within 1e-7 of the minimum radius the arcsine itself is ill-conditioned."""
    x = torch.tensor(number(case["inputs"]["x"]), dtype=torch.float64)
    radius = float(case["curv"]) ** 0.5 * x.norm(dim=-1)
    return case["op"] == "half_aperture" and bool(((radius / 0.2 - 1).abs() < 1e-7).any())


@pytest.mark.parametrize("case", edges())
def test_edges_against_exact_arithmetic(case: dict[str, Any]) -> None:
    if case.get("exact") is None or on_the_edge_of_the_cone(case):
        pytest.skip("no exact value, or an ill-conditioned one")
    inputs = [torch.tensor(number(value), dtype=torch.float64) for value in case["inputs"].values()]
    function = ELEMENTWISE.get(case["op"]) or OPERATIONS[case["op"]]
    # The exact values are not saturated.
    options = {"max_radius": 700.0} if case["op"] == "exp_map0" else {}
    out = function(*inputs, curv=float(case["curv"]), **options).flatten().tolist()
    expected = flat(case["exact"])
    assert len(out) == len(expected)
    for value, wanted in zip(out, expected, strict=True):
        if wanted is None:  # undefined: only finite
            assert abs(value) <= 4
            continue
        # The files hold 12 significant digits of inputs and values: 6e-12 relative, or absolute for angles.
        assert abs(value - wanted) <= 6e-12 * (1 if "angle" in case["op"] else max(abs(wanted), 1e-300))


@pytest.mark.parametrize("case", edges())
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["fp64", "fp32"])
def test_edges_have_finite_values_and_gradients(case: dict[str, Any], dtype: torch.dtype) -> None:
    inputs = [torch.tensor(number(v), dtype=torch.float64).to(dtype) for v in case["inputs"].values()]
    for function in {OPERATIONS[case["op"]], ELEMENTWISE.get(case["op"], OPERATIONS[case["op"]])}:
        leaves = [x.clone().requires_grad_() for x in inputs]
        curv = torch.tensor(float(case["curv"]), dtype=dtype, requires_grad=True)
        out = function(*leaves, curv=curv)
        assert out.isfinite().all()
        assert all(g.isfinite().all() for g in torch.autograd.grad(out.sum(), (*leaves, curv)))

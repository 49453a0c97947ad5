"""Points of every magnitude and dtype through every public function: finite, with finite gradients, or refused."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from hypvl.geometry import lorentz
from hypvl.geometry.base import Geometry
from tests.geometry import fuzz
from tests.geometry.contract import GeometryContract, ScorerContract
from tests.geometry.test_conformance import built_by

# ValueErrors that are documented: fp64 beyond 1e70, and an index beyond its reach.
DOCUMENTED = re.compile(r"got a component beyond 1e\+\d+, expected smaller ones")
ALIKE = (
    "TestFixedCurvature",
    "TestLorentzPoolsDirections",
    "TestOneFactor",
)  # other settings of the same space


# What trains always: fp32; bf16, fp64 and fp16 in the slow tests.
DTYPES = [
    pytest.param(dtype, marks=() if dtype == torch.float32 else pytest.mark.slow, id=str(dtype))
    for dtype in fuzz.DTYPES
]


def contracts(kind: type) -> list[type]:
    built_by(kind)  # imports them
    return [cls for cls in kind.__subclasses__() if cls.__name__ not in ALIKE]


def faults(
    calls: dict[str, Callable[[Tensor, Tensor], Any]], x: Tensor, y: Tensor, module: torch.nn.Module
) -> list[str]:
    result = []
    for name, function in calls.items():
        try:
            fault = fuzz.check(function, x, y, module)
        except ValueError as error:
            fault = "" if DOCUMENTED.search(str(error)) else f"ValueError: {error}"
        if fault:
            result.append(f"{name}: {fault}")
    return result


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("contract", contracts(GeometryContract), ids=lambda cls: cls.__name__)
def test_geometry(contract: type, dtype: torch.dtype) -> None:
    """Any vectors, and points of the space: 1,464 of each dtype and kind."""
    geometry: Geometry = contract().build()
    x, y = (fuzz.points(dtype, copies=3, seed=seed) for seed in (0, 1))
    assert len(x) == 1464 and x.isfinite().all()
    result = []
    for kind in ("any vectors", "points"):
        if kind == "points":
            x, y = (geometry.lift(z).detach() for z in (x, y))
        made = faults(fuzz.of_rows(geometry), x, y, geometry)
        pairs = fuzz.of_pairs(geometry)
        if kind == "any vectors":
            pairs = {name: function for name, function in pairs.items() if fuzz.takes_any(geometry, name)}
        made += faults(pairs, x[:120], y[:130], geometry)
        result += [f"{kind}: {fault}" for fault in made]
    assert not result, "\n".join(result)


@pytest.mark.parametrize("contract", contracts(GeometryContract), ids=lambda cls: cls.__name__)
def test_the_whole_range_of_fp64_is_finite_or_refused(contract: type) -> None:
    geometry: Geometry = contract().build().double()
    for magnitudes in ([10.0**e for e in range(-300, 70, 30)], [10.0**e for e in range(-300, 301, 100)]):
        x, y = (fuzz.points(torch.float64, copies=1, seed=seed, magnitudes=magnitudes) for seed in (0, 1))
        assert not faults(fuzz.of_rows(geometry), x, y, geometry)
        pairs = fuzz.of_pairs(geometry).items()
        assert not faults({n: call for n, call in pairs if fuzz.takes_any(geometry, n)}, x, y, geometry)


@pytest.mark.parametrize("contract", contracts(GeometryContract), ids=lambda cls: cls.__name__)
def test_no_public_function_is_left_out(contract: type) -> None:
    geometry: Geometry = contract().build()
    called = {*fuzz.of_rows(geometry), *fuzz.of_pairs(geometry)}
    assert set(fuzz.public(type(geometry))) <= called


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("contract", contracts(ScorerContract), ids=lambda cls: cls.__name__)
def test_scorer(contract: type, dtype: torch.dtype) -> None:
    """Logits, scores and class scores of every pair of modalities, at the largest scale."""
    geometry, scorer = contract().build()
    with torch.no_grad():
        scorer.log_scale.fill_(scorer.log_scale_max)
    both = torch.nn.ModuleList([geometry, scorer]).to(torch.promote_types(dtype, torch.float32))
    x, y = (fuzz.points(dtype, copies=1, seed=seed)[:150] for seed in (0, 1))
    calls: dict[str, Callable[[Tensor, Tensor], Any]] = {}
    for query in ("image", "text"):
        for key in ("image", "text"):
            kind = {"query_modality": query, "key_modality": key}
            calls[f"logits {query} {key}"] = lambda a, b, kind=kind: scorer.logits(geometry, a, b, **kind)
            calls[f"scores {query} {key}"] = lambda a, b, kind=kind: scorer.scores(geometry, a, b, **kind)
            calls[f"tiled_logits {query} {key}"] = fuzz.of_tiles(
                lambda a, b, kind=kind: scorer.tiled_logits(geometry, a, b, **kind)
            )
    for name in ("class_scores", "class_logits"):
        calls[name] = lambda a, b, name=name: getattr(scorer, name)(geometry, a, b.view(50, 3, -1))
    of_any = {name: call for name, call in calls.items() if fuzz.takes_any(geometry, name)}
    result = faults(of_any, x, y, both)
    x, y = (geometry.lift(z).detach() for z in (x, y))
    result += faults(calls, x, y, both)
    assert not result, "\n".join(result)


OF_LORENTZ: dict[str, Callable[..., Tensor]] = {
    "time_component": lambda x, y, c: lorentz.time_component(x, curv=c),
    "exp_map0": lambda x, y, c: lorentz.exp_map0(x, curv=c),
    "log_map0": lambda x, y, c: lorentz.log_map0(x, curv=c),
    "half_aperture": lambda x, y, c: lorentz.half_aperture(x, curv=c),
    "dist": lambda x, y, c: lorentz.dist(x, y, curv=c),
    "oxy_angle": lambda x, y, c: lorentz.oxy_angle(x, y, curv=c),
    "geodesic": lambda x, y, c: lorentz.geodesic(x, y, torch.linspace(0, 1, 3), curv=c),
    "pairwise_inner": lambda x, y, c: lorentz.pairwise_inner(x[:100], y[:100], curv=c),
    "pairwise_dist": lambda x, y, c: lorentz.pairwise_dist(x[:100], y[:100], curv=c),
    "pairwise_oxy_angle": lambda x, y, c: lorentz.pairwise_oxy_angle(x[:100], y[:100], curv=c),
}


@pytest.mark.parametrize(
    "curv", [1e-6, 1e6, *(pytest.param(curv, marks=pytest.mark.slow) for curv in (1e-3, 1e3))]
)
@pytest.mark.parametrize("name", OF_LORENTZ)
def test_lorentz_of_any_curvature(name: str, curv: float) -> None:
    space = torch.nn.Module()
    space.log_curv = torch.nn.Parameter(torch.tensor(curv).log())
    for dtype in fuzz.DTYPES:
        x, y = (fuzz.points(dtype, copies=1, seed=seed) for seed in (0, 1))
        fault = fuzz.check(lambda x, y: OF_LORENTZ[name](x, y, space.log_curv.exp()), x, y, space)
        assert not fault, f"{dtype}: {fault}"


def test_every_function_of_the_lorentz_model_is_called() -> None:
    functions = {
        name for name, value in vars(lorentz).items()
        if callable(value) and getattr(value, "__module__", "") == lorentz.__name__ and not isinstance(value, type)
        and not name.startswith("_")
    }  # fmt: skip
    assert functions == set(OF_LORENTZ)

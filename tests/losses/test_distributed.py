"""Every loss term on two processes: the mean over ranks, its gradients and its state equal one process's."""

import importlib
import pkgutil
from collections.abc import Iterator
from typing import Any

import torch

import tests.losses
from hypvl import distributed
from tests.losses.contract import LossContract
from tests.losses.toy import context
from tests.ranks import run_ranks

STEPS = 3
ROWS = 6


def contracts() -> dict[str, type[LossContract]]:
    """Every contract test of the folder by its name."""
    for info in pkgutil.iter_modules(tests.losses.__path__):
        if info.name.startswith("test_") and info.name != "test_distributed":
            importlib.import_module(f"tests.losses.{info.name}")
    return {f"{c.__module__}.{c.__qualname__}": c for c in below(LossContract)}


def below(contract: type[LossContract]) -> Iterator[type[LossContract]]:
    """Every subclass, those of subclasses included."""
    for subclass in contract.__subclasses__():
        yield subclass
        yield from below(subclass)


def run(name: str) -> dict[str, Any]:
    """Values, gradients of our rows and buffers over a few steps, the second one skipped (an fp16 overflow)."""
    contract = contracts()[name]()
    world, rank = distributed.world_size(), distributed.rank()
    term, model = contract.make(), contract.model()
    owners: dict[str, torch.nn.Module] = {"model": model, "term": term}
    out: dict[str, Any] = {"loss": [], "grad": [], "scalars": [], "buffers": []}
    for step in range(STEPS):
        rows = {
            view: x.chunk(world)[rank].clone().requires_grad_()
            for view, x in contract.rows(ROWS, seed=step).items()
        }
        batch = {key: x.chunk(world)[rank] for key, x in contract.batch(ROWS).items()}
        ctx = context(model, rows, **batch)
        value = term(ctx)
        model.zero_grad()
        term.zero_grad()
        value.backward()
        before = {k: v.clone() for k, v in term.named_buffers()}
        if step != 1:
            with torch.no_grad():
                term.update_(ctx)
                term.step_()
        else:
            assert all(torch.equal(before[k], v) for k, v in term.named_buffers())
        out["loss"].append(value.detach())
        out["grad"].append(
            {str(v): torch.zeros_like(x) if x.grad is None else x.grad for v, x in rows.items()}
        )
        named = {
            f"{owner}.{k}": p for owner in ("model", "term") for k, p in owners[owner].named_parameters()
        }
        out["scalars"].append({k: p.grad for k, p in named.items() if p.grad is not None})
        out["buffers"].append({k: v.clone() for k, v in term.named_buffers()})
    return out


def run_all() -> dict[str, dict[str, Any]]:
    return {name: run(name) for name in contracts()}


def test_two_processes_equal_one() -> None:
    expected, ranks = run_all(), run_ranks(2, run_all)
    assert expected
    for name, one in expected.items():
        two = [results[name] for results in ranks]
        for step in range(STEPS):
            where = f"{name}, step {step}"
            close(sum(r["loss"][step] for r in two) / 2, one["loss"][step], f"{where}: value")
            for view, gradient in one["grad"][step].items():
                joined = torch.cat([r["grad"][step][view] for r in two]) / 2  # DDP averages over ranks
                close(joined, gradient, f"{where}: gradient of {view}")
            for key, gradient in one["scalars"][step].items():
                close(sum(r["scalars"][step][key] for r in two) / 2, gradient, f"{where}: gradient of {key}")
            for key, buffer in one["buffers"][step].items():
                for rank, results in enumerate(two):
                    close(results["buffers"][step][key], buffer, f"{where}: buffer {key} of rank {rank}")


def close(found: Any, expected: torch.Tensor, message: str) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11, msg=lambda m: f"{message}\n{m}")

"""What the parity tests of objectives with several boxes for each image share."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.parity.reference import load
from tests.ranks import run_ranks

OfRanks = dict[str, list[dict[str, Any]]]


def owner_of(num_boxes: Sequence[int]) -> Tensor:
    """The sample of each box, (sum of the numbers,) int64: boxes stand sample by sample."""
    return torch.arange(len(num_boxes)).repeat_interleave(torch.tensor(num_boxes))


def share(
    features: Mapping[str, Sequence[Any]], owner: Tensor, *, rank: int, world: int, boxes: str = "box_"
) -> tuple[dict[str, Tensor], Tensor]:
    """Rows of one of ``world`` ranks, which require gradients, and the local owners of its boxes.

    Ranks have consecutive samples, as equally many as the number allows; ``boxes`` begins the name of a view of boxes.
    """
    samples = len(features["image"])
    first, last = (samples * (rank + step) // world for step in (0, 1))
    mine = (owner >= first) & (owner < last)
    rows = {}
    for name, values in features.items():
        x = torch.tensor(values, dtype=torch.float64)
        rows[name] = (x[mine] if name.startswith(boxes) else x[first:last]).clone().requires_grad_()
    return rows, owner[mine] - first


def assert_near(found: Any, expected: Any, tolerance: float, what: str) -> None:
    """Within ``tolerance`` of numbers, relative to the largest of them and 1; None on one side is so on the other."""
    assert (found is None) == (expected is None), f"{what}: got {found}, expected {expected}"
    if expected is None:
        return
    wanted = torch.as_tensor(expected, dtype=torch.float64)
    got = torch.as_tensor(found, dtype=torch.float64)
    size = max(1.0, wanted.abs().max().item()) if wanted.numel() else 1.0
    torch.testing.assert_close(got, wanted, rtol=0.0, atol=tolerance * size, msg=lambda m: f"{what}\n{m}")


def on_two_ranks(name: str, job: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> OfRanks:
    """What ``job`` gives on each rank for the inputs of ``two_ranks`` of a file, by the name of the case."""
    content = load(name) or {}
    by_name = {case["name"]: case for case in content.get("cases", [])}
    inputs = [by_name[entry["case"]] for entry in content.get("two_ranks", []) if entry["case"] in by_name]
    per_rank = run_ranks(2, job, inputs) if inputs else [[], []]
    return {case["name"]: [results[i] for results in per_rank] for i, case in enumerate(inputs)}


def ranks_of(results: OfRanks, entry: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Those of one entry of ``two_ranks``; skips where the folder lacks its inputs."""
    if entry["case"] not in results:
        pytest.skip(f"there is no case {entry['case']}, which holds the inputs")
    return results[entry["case"]]

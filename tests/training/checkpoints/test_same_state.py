"""Two states of a run are the same when every bit of what was learned is."""

from typing import Any

import pytest
import torch

from hypvl.training.checkpoints.same_state import state_differences

STATE = {
    "model": {"w": torch.tensor([0.0, float("nan")]), "n": torch.tensor(3)},
    "optimizer": {"state": {0: {"step": 2.0, "exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]},
    "metrics": [{"first": 3, "seconds": 1.5, "data_seconds": 0.5}],
    "provenance": {"started": "now"},
    "iteration": 4,
}
OTHER: dict[str, tuple[dict[str, Any], list[str]]] = {
    "the time": ({"metrics": [{"first": 3, "seconds": 9.0, "data_seconds": 8.0}], "provenance": {}}, []),
    "a sign": ({"model": {"w": torch.tensor([-0.0, float("nan")]), "n": torch.tensor(3)}}, ["model.w"]),
    "a type": ({"model": {"w": STATE["model"]["w"], "n": torch.tensor(3.0)}}, ["model.n"]),  # type: ignore[index]
    "a shape": ({"model": {"w": STATE["model"]["w"][None], "n": torch.tensor(3)}}, ["model.w"]),  # type: ignore[index]
    "a moment": (
        {
            "optimizer": {
                "state": {0: {"step": 2.0, "exp_avg": torch.zeros(2)}},
                "param_groups": [{"lr": 0.1}],
            }
        },
        ["optimizer.state.0.exp_avg"],
    ),
    "a group more": (
        {"optimizer": {**STATE["optimizer"], "param_groups": [{"lr": 0.1}, {}]}},  # type: ignore[dict-item]
        ["optimizer.param_groups"],
    ),
    "a number": ({"iteration": 5}, ["iteration"]),
    "an entry more": ({"root": torch.zeros(2)}, ["root"]),
}


@pytest.mark.parametrize("case", OTHER)
def test_what_differs_is_named(case: str) -> None:
    other, expected = OTHER[case]
    assert state_differences(STATE, STATE | other) == expected

"""Schedules of learning rate and weight decay: functions of the step, for each parameter group in its own window."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR

from hypvl.allowlist import configurable
from hypvl.checks import number, whole_number

#: (step, steps) -> factor of the rate; both count from the first step of a group's window.
Multiplier = Callable[[int, int], float]


class GroupSchedule(LambdaLR):
    """Rate of each parameter group by a function of the step, and its weight decay where it has an end value.

    What a group may hold: ``window`` (start, end), outside of which its rate is 0 and in which the schedule runs, end
    None = ``total_steps``; ``weight_decay_end``, to which its decay goes by half a cosine over ``total_steps``.

    Args:
        optimizer: Whose groups.
        multiplier: Factor of the rate.
        total_steps: Steps of the run, >= 1.
        warmup_steps: Steps at the start of each window in which the rate rises, 0 to one less than its steps.

    Raises:
        ValueError: for numbers out of range, and a window that is shorter than the warm-up or begins after the run.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, multiplier: Multiplier, *, total_steps: int, warmup_steps: int
    ) -> None:
        self.total_steps = whole_number("total_steps", total_steps, least=1)
        whole_number("warmup_steps", warmup_steps, least=0)
        groups = optimizer.param_groups
        for window in {group.get("window") for group in groups}:
            _check_window(window, total_steps=self.total_steps, warmup_steps=warmup_steps)
        # (start, end) of the decay of each group; state_dict holds plain numbers only
        self.decays = [
            (float(group["weight_decay"]), float(group["weight_decay_end"]))
            if "weight_decay_end" in group
            else None
            for group in groups
        ]
        super().__init__(
            optimizer, [_in_window(multiplier, g.get("window"), self.total_steps) for g in groups]
        )

    def step(self, epoch: int | None = None) -> None:
        """Set rates and decays of the next step."""
        super().step(epoch)
        for group, decay in zip(self.optimizer.param_groups, self.decays, strict=True):
            if decay is not None:
                group["weight_decay"] = cosine_between(*decay, step=self.last_epoch, steps=self.total_steps)


def cosine_between(start: float, end: float, *, step: int, steps: int) -> float:
    """From ``start`` to ``end`` by half a cosine, and there it stays.

    Formula: ``end + (start - end) (1 + cos(pi step / steps)) / 2``.

    Source: DINO (Caron et al. 2021, arXiv 2104.14294), section 3.2: weight decay from 0.04 to 0.4.
    """
    return end + (start - end) * (1 + math.cos(math.pi * min(1.0, step / steps))) / 2


def half_cosine_multiplier(step: int, *, total_steps: int, warmup_steps: int) -> float:
    """Learning-rate multiplier in [0, 1]: ``(step + 1) / warmup``, then half a cosine down to 0.

    Formula: ``(1 + cos(pi (step - warmup) / (total - warmup))) / 2`` from ``warmup`` on. ``step`` counts the optimizer
    steps already taken: the first one uses 1 / warmup, not 0.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return cosine_between(1.0, 0.0, step=step - warmup_steps, steps=max(1, total_steps - warmup_steps))


@configurable("optim")
def half_cosine(optimizer: torch.optim.Optimizer, *, total_steps: int, warmup_steps: int) -> GroupSchedule:
    """Schedule of :func:`half_cosine_multiplier`, that of open_clip and ProtoCLIP.

    Raises:
        ValueError: unless these are whole numbers, 0 <= warmup_steps < total_steps, or as :class:`GroupSchedule`.
    """
    return GroupSchedule(
        optimizer,
        lambda step, steps: half_cosine_multiplier(step, total_steps=steps, warmup_steps=warmup_steps),
        total_steps=total_steps,
        warmup_steps=warmup_steps,
    )


@configurable("optim")
def constant(optimizer: torch.optim.Optimizer, *, total_steps: int, warmup_steps: int = 0) -> GroupSchedule:
    """The rate stays, after a warm-up of ``(step + 1) / warmup``.

    Raises:
        ValueError: as :func:`half_cosine`.
    """
    return GroupSchedule(
        optimizer,
        lambda step, steps: min(1.0, (step + 1) / max(1, warmup_steps)),
        total_steps=total_steps,
        warmup_steps=warmup_steps,
    )


def checked_windows(windows: Mapping[str, Any]) -> dict[str, tuple[int, int | None]]:
    """Pattern -> (start, end), end None = the end of the run. ValueError unless 0 <= start < end."""
    checked: dict[str, tuple[int, int | None]] = {}
    for pattern, window in windows.items():
        if isinstance(window, str | Mapping) or not hasattr(window, "__len__") or len(window) != 2:
            raise ValueError(
                f"windows.{pattern}: got {window!r}; expected two steps, [start, end], the end null = that of the run."
            )
        start = whole_number(f"windows.{pattern}.0", window[0], least=0)
        end = None if window[1] is None else whole_number(f"windows.{pattern}.1", window[1], least=start + 1)
        checked[pattern] = (start, end)
    return checked


def checked_decay_end(weight_decay_end: float | None) -> float | None:
    """None, or the number; ValueError below 0."""
    return None if weight_decay_end is None else number("weight_decay_end", weight_decay_end, least=0)


def _check_window(window: tuple[int, int | None] | None, *, total_steps: int, warmup_steps: int) -> None:
    start, end = (0, None) if window is None else window
    steps = (total_steps if end is None else end) - start
    shown = f"the window [{start}, {'null' if end is None else end}] of optim.parameters.windows"
    if start >= total_steps:
        raise ValueError(f"{shown} begins after all of the total_steps={total_steps}; lower its start.")
    if not 0 <= warmup_steps < steps:
        for_what = f"total_steps {total_steps}" if window is None else f"{shown}, which has {steps} steps"
        raise ValueError(
            f"warmup_steps: got {warmup_steps}; expected 0 to {steps - 1} for {for_what} (lower "
            "optim.lr_scheduler.warmup_steps or raise train.num_iterations)."
        )


def _in_window(
    multiplier: Multiplier, window: tuple[int, int | None] | None, total_steps: int
) -> Callable[[int], float]:
    if window is None:
        return lambda step: multiplier(step, total_steps)
    start, end = window
    last = total_steps if end is None else end

    def factor(step: int) -> float:
        inside = start <= step and (end is None or step < end)
        return multiplier(step - start, last - start) if inside else 0.0

    return factor

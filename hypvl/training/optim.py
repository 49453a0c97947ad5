"""Parameter groups and learning-rate schedules of the published recipes."""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from hypvl.allowlist import configurable
from hypvl.checks import names_parameter, number, whole_number
from hypvl.config import instantiate
from hypvl.errors import ConfigError
from hypvl.training.config import mapping_at
from hypvl.training.freezing import freeze, named


@configurable("optim")
def parameter_groups(
    model: nn.Module,
    *,
    weight_decay: float,
    gain_bias_decay: float,
    exclude: Iterable[str] = (),
    trainable: Iterable[str] | None = None,
    frozen: Iterable[str] | None = None,
    unlocked_blocks: Mapping[str, int] | None = None,
    freeze_norm_statistics: bool = True,
    lr: Mapping[str, float] | None = None,
) -> list[dict[str, object]]:
    """Trainable parameters in three groups with their weight decay: regular, gains and biases, excluded.

    Those with a learning rate of their own come after them, in groups of the same three kinds. Gains and biases are
    the parameters of normalisation layers and everything named ``bias``. Excluded is what a module declares in its
    ``no_weight_decay: frozenset[str]`` (names of its own parameters: scales, curvature, logit biases), and what
    ``exclude`` adds.

    Args:
        model: Whose parameters; frozen ones are in no group.
        weight_decay: Of matrices and embeddings, >= 0.
        gain_bias_decay: Of gains and biases, >= 0. The published recipe asks for 0.0 but, by an `or` in its code,
            trained with 0.2, as hypvl's recipes do; 0.0 is the usual practice.
        exclude: Patterns of more parameters that are never decayed, see :func:`hypvl.checks.names_parameter`.
        trainable: Freeze all but these, see :func:`~hypvl.training.freezing.freeze`; None = freeze nothing.
        frozen: Freeze these; with ``trainable``, of what that leaves. None = freeze nothing.
        unlocked_blocks: Encoder -> number of its last blocks that stay trainable, with what comes after them, for
            example ``{"model.visual": 3}``; from 0 to the number of its blocks. None = all.
        freeze_norm_statistics: Whether batch norms in frozen parts use their running statistics and leave them as
            they are.
        lr: Pattern -> a learning rate >= 0 in place of the optimizer's, for example of scalars that a pretrained file
            lacks; the schedule multiplies it, too. The first pattern that names a parameter counts.

    Returns:
        Groups for a torch optimizer; empty ones are left out.

    Raises:
        ValueError: for a number out of range, a pattern that names no trainable parameter, or when all are frozen.

    Source: reference/scheduler_optim.json (MERU recipe).
    """
    decays = (
        number("weight_decay", weight_decay, least=0),
        number("gain_bias_decay", gain_bias_decay, least=0),
        0.0,
    )
    rates = {pattern: number(f"lr.{pattern}", rate, least=0) for pattern, rate in (lr or {}).items()}
    names = freeze(
        model,
        trainable=trainable,
        frozen=frozen,
        unlocked_blocks=unlocked_blocks,
        freeze_norm_statistics=freeze_norm_statistics,
    )
    excluded = set(named("exclude", exclude, names, may_be_none=True))
    named("lr", rates, names)
    norms = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm)
    groups: dict[tuple[str | None, int], list[nn.Parameter]] = {
        (pattern, kind): [] for pattern in (None, *rates) for kind in range(3)
    }
    seen: set[int] = set()
    for prefix, module in model.named_modules():
        declared = getattr(module, "no_weight_decay", None)  # timm's models have a method of that name
        undecayed = declared if isinstance(declared, frozenset) else frozenset()
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad or id(parameter) in seen:
                continue
            seen.add(id(parameter))
            full = f"{prefix}.{name}" if prefix else name
            if name in undecayed or full in excluded:
                kind = 2
            elif isinstance(module, norms) or name == "bias" or name.endswith("_bias"):
                kind = 1
            else:
                kind = 0
            groups[next((p for p in rates if names_parameter(p, full)), None), kind].append(parameter)
    return [
        {"params": parameters, "weight_decay": decays[kind]}
        | ({} if pattern is None else {"lr": rates[pattern]})
        for (pattern, kind), parameters in groups.items()
        if parameters
    ]


def check_optimizer(arguments: Mapping[str, Any]) -> None:
    """ValueError for what an optimizer, of whatever class, would accept and fail with later: NaN, numbers below 0."""
    for name, value in arguments.items():
        if name in ("lr", "weight_decay", "momentum", "lambd", "dampening"):
            number(name, value, least=0)
        elif name in ("eps", "alpha", "rho", "max_norm"):
            for part in value if isinstance(value, list | tuple) else [value]:
                number(name, part, above=0)
        elif name in ("betas", "beta"):
            for i, part in enumerate(value if isinstance(value, list | tuple) else [value]):
                number(f"{name}.{i}", part, least=0, below=1)
        elif isinstance(value, float):
            number(name, value)


def warmup_cosine_multiplier(step: int, *, total_steps: int, warmup_steps: int) -> float:
    """Learning-rate multiplier in [0, 1]: linear from 0 to 1, then the squared cosine quarter wave down to 0.

    Formula: ``step / warmup`` below ``warmup``; ``cos(pi/2 (step - warmup) / (total - warmup))^2`` after. ``step``
    counts the optimizer steps already taken: the first one uses 0.

    Differs: stays at 0 after ``total_steps``, where the published schedule rises again.
    """
    if step < warmup_steps:
        return step / max(1, warmup_steps)
    progress = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
    return math.cos(math.pi / 2 * progress) ** 2


@configurable("optim")
def warmup_cosine(optimizer: torch.optim.Optimizer, *, total_steps: int, warmup_steps: int) -> LambdaLR:
    """Schedule of :func:`warmup_cosine_multiplier` for every parameter group.

    Raises:
        ValueError: unless these are whole numbers, 0 <= warmup_steps < total_steps.
    """
    total_steps = whole_number("total_steps", total_steps, least=1)
    if not 0 <= whole_number("warmup_steps", warmup_steps) < total_steps:
        raise ValueError(
            f"warmup_steps: got {warmup_steps}; expected 0 to {total_steps - 1} for total_steps {total_steps} "
            "(lower optim.lr_scheduler.warmup_steps or raise train.num_iterations)."
        )
    return LambdaLR(
        optimizer,
        lambda step: warmup_cosine_multiplier(step, total_steps=total_steps, warmup_steps=warmup_steps),
    )


def build_optimizer(optim: DictConfig, learner: nn.Module) -> tuple[torch.optim.Optimizer, LRScheduler]:
    """The optimizer and the schedule of `optim` in a config. Raises ConfigError naming the key of a wrong value."""
    groups = _call(optim, "parameters", learner)
    arguments: Any = OmegaConf.to_container(mapping_at(optim, "optimizer", above="optim."), resolve=True)
    try:
        check_optimizer(arguments)
    except ValueError as error:
        raise ConfigError(f"optim.optimizer.{error}") from error
    optimizer = _call(optim, "optimizer", groups)
    return optimizer, _call(optim, "lr_scheduler", optimizer)


def _call(optim: DictConfig, name: str, argument: Any) -> Any:
    """Call the partial node at ``name`` with an argument; wrong values are errors of the config."""
    node = mapping_at(optim, name, above="optim.")
    try:
        return instantiate(node)(argument)
    except (TypeError, ValueError) as error:
        separator = "." if re.match(r"\w+(\.\S+)?: got ", str(error)) else ": "
        raise ConfigError(f"optim.{name}{separator}{error}") from error

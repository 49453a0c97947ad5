"""Parameter groups and learning-rate schedules of the published recipes."""

import itertools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from hypvl.allowlist import configurable
from hypvl.checks import names_parameter, number
from hypvl.config import instantiate
from hypvl.errors import ConfigError
from hypvl.training.blocks import depths, ordered_blocks
from hypvl.training.config import mapping_at
from hypvl.training.freezing import freeze, module_at, named
from hypvl.training.parallel import is_sharded, separate_groups
from hypvl.training.schedules import GroupSchedule, checked_decay_end, checked_windows


@configurable("optim")
def parameter_groups(
    model: nn.Module,
    *,
    weight_decay: float,
    gain_bias_decay: float,
    weight_decay_end: float | None = None,
    exclude: Iterable[str] = (),
    decayed: Iterable[str] = (),
    trainable: Iterable[str] | None = None,
    frozen: Iterable[str] | None = None,
    unlocked_blocks: Mapping[str, int] | None = None,
    freeze_norm_statistics: bool = True,
    lr: Mapping[str, float] | None = None,
    layer_decay: Mapping[str, float] | None = None,
    backbone_scale: Mapping[str, float] | None = None,
    windows: Mapping[str, Sequence[int | None]] | None = None,
) -> list[dict[str, object]]:
    """Trainable parameters in three groups with their weight decay: regular, gains and biases, excluded.

    Those with a learning rate of their own, a scale of it or a window come after them, in groups of the same kinds.
    Gains and biases are the parameters of normalisation layers and everything named ``bias``. Excluded is what a module
    declares in its ``no_weight_decay: frozenset[str]`` (names of its own parameters: scales, curvature, logit biases),
    and what ``exclude`` adds.

    Args:
        model: Whose parameters; frozen ones are in no group.
        weight_decay: Of matrices and embeddings, >= 0.
        gain_bias_decay: Of gains and biases, >= 0. The published recipe asks for 0.0 but, by an `or` in its code,
            trained with 0.2, as hypvl's recipes do; 0.0 is the usual practice.
        weight_decay_end: Where ``weight_decay`` ends: by half a cosine over the run, >= 0. None = it stays.
        exclude: Patterns of more parameters that are never decayed, see :func:`hypvl.checks.names_parameter`.
        decayed: Patterns of parameters that are decayed as matrices are, although their module excludes them. The
            curvatures and scales of PHyCLIP's factors were trained so: by 0.2, towards 1.
        trainable: Freeze all but these, see :func:`~hypvl.training.freezing.freeze`; None = freeze nothing.
        frozen: Freeze these; with ``trainable``, of what that leaves. None = freeze nothing.
        unlocked_blocks: Encoder -> number of its last blocks that stay trainable, with what comes after them, for
            example ``{"model.visual": 3}``; from 0 to the number of its blocks. None = all.
        freeze_norm_statistics: Whether batch norms in frozen parts use their running statistics and leave them as
            they are.
        lr: Pattern -> a learning rate >= 0 in place of the optimizer's, for example of scalars that a pretrained file
            lacks; the schedule multiplies it, too. The first pattern that names a parameter counts.
        layer_decay: Encoder -> gamma, above 0 and up to 1, for example ``{"model.visual": 0.75}``: rates of its
            parameters are multiplied by :func:`layer_scale`. None = 1.
        backbone_scale: Encoder -> what the rates of its parameters up to the last block are multiplied by, above 0.
            None = 1.
        windows: Pattern -> the steps [start, end] between which the schedule of these parameters runs; before and
            after them their rate is 0. 0 <= start < end; end None = the end of the run. The first pattern that names a
            parameter counts. None = the whole run.

    Returns:
        Groups for a torch optimizer; empty ones are left out. ``lr_scale`` of a group multiplies its rate once, see
        :func:`scale_rates_`; ``window`` and ``weight_decay_end`` are for the schedule.

    Raises:
        ValueError: for a number out of range, a pattern that names no trainable parameter, a parameter that is both
            excluded and decayed by name, or when all are frozen.

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
    kept = set(named("decayed", decayed, names))
    if both := sorted(excluded & kept):
        raise ValueError(f"decayed: got {both[0]}, which exclude names too; take it out of one of the two.")
    named("lr", rates, names)
    spans = checked_windows(windows or {})
    named("windows", spans, names)
    end = checked_decay_end(weight_decay_end)
    scales = _layer_scales(model, layer_decay or {}, backbone_scale or {})
    norms = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm)
    factors = sorted({1.0, *scales.values()}, reverse=True)
    factors.insert(0, factors.pop(factors.index(1.0)))  # the log shows the rate of the first group
    groups: dict[tuple[str | None, float, str | None, int], list[nn.Parameter]] = {
        key: [] for key in itertools.product((None, *rates), factors, (None, *spans), range(3))
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
            if (name in undecayed and full not in kept) or full in excluded:
                kind = 2
            elif full in kept:
                kind = 0
            elif isinstance(module, norms) or name == "bias" or name.endswith("_bias"):
                kind = 1
            else:
                kind = 0
            pattern = next((p for p in rates if names_parameter(p, full)), None)
            span = next((p for p in spans if names_parameter(p, full)), None)
            groups[pattern, scales.get(full, 1.0), span, kind].append(parameter)
    return [
        {"params": parameters, "weight_decay": decays[kind]}
        | ({} if pattern is None else {"lr": rates[pattern]})
        | ({} if factor == 1 else {"lr_scale": factor})
        | ({} if span is None else {"window": spans[span]})
        | ({} if end is None or kind else {"weight_decay_end": end})
        for (pattern, factor, span, kind), parameters in groups.items()
        if parameters
    ]


def layer_scale(depth: int, *, blocks: int, gamma: float, backbone_scale: float = 1.0) -> float:
    """What the learning rate of a parameter is multiplied by: smaller, the closer it lies to the input.

    Formula: ``backbone_scale * gamma^(L + 1 - i)`` for i = 0 (stem) to L = ``blocks``; 1 for i = L + 1, what comes
    after the blocks. See :func:`hypvl.training.blocks.depths` for i.

    Source: layer-wise learning-rate decay of BEiT (Bao et al. 2022, arXiv 2106.08254), with a scale for the backbone as
        in ITRA.
    """
    return 1.0 if depth > blocks else backbone_scale * gamma ** (blocks + 1 - depth)


def _layer_scales(
    model: nn.Module, layer_decay: Mapping[str, float], backbone_scale: Mapping[str, float]
) -> dict[str, float]:
    """The scale of each parameter of an encoder that has one, by its full name."""
    gammas = {
        path: number(f"layer_decay.{path}", gamma, above=0, most=1) for path, gamma in layer_decay.items()
    }
    factors = {
        path: number(f"backbone_scale.{path}", factor, above=0) for path, factor in backbone_scale.items()
    }
    scales: dict[str, float] = {}
    for path in dict.fromkeys([*gammas, *factors]):
        argument = "layer_decay" if path in gammas else "backbone_scale"
        encoder = module_at(argument, model, path)
        try:
            by_name, blocks = depths(encoder), len(ordered_blocks(encoder))
        except ValueError as error:
            raise ValueError(f"{argument}.{path}: {error}") from error
        given = {"gamma": gammas.get(path, 1.0), "backbone_scale": factors.get(path, 1.0)}
        inside = {f"{path}.{name}": layer_scale(i, blocks=blocks, **given) for name, i in by_name.items()}
        if scales.keys() & inside.keys():
            raise ValueError(
                f"{argument}.{path}: lies in another encoder that is named, too; keep one of them."
            )
        scales |= inside
    return scales


def scale_rates_(optimizer: torch.optim.Optimizer) -> None:
    """Multiply the rate of each group by its ``lr_scale``, once, before a schedule reads the rates."""
    for group in optimizer.param_groups:
        group["lr"] *= group.get("lr_scale", 1.0)


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
def warmup_cosine(optimizer: torch.optim.Optimizer, *, total_steps: int, warmup_steps: int) -> GroupSchedule:
    """Schedule of :func:`warmup_cosine_multiplier` for every parameter group.

    Raises:
        ValueError: unless these are whole numbers, 0 <= warmup_steps < total_steps, or as
            :class:`~hypvl.training.schedules.GroupSchedule`.
    """
    return GroupSchedule(
        optimizer,
        lambda step, steps: warmup_cosine_multiplier(step, total_steps=steps, warmup_steps=warmup_steps),
        total_steps=total_steps,
        warmup_steps=warmup_steps,
    )


def build_optimizer(optim: DictConfig, learner: nn.Module) -> tuple[torch.optim.Optimizer, LRScheduler]:
    """The optimizer and the schedule of `optim` in a config. Raises ConfigError naming the key of a wrong value."""
    groups = _call(optim, "parameters", learner)
    if any(is_sharded(parameter) for parameter in learner.parameters()):
        groups = separate_groups(groups)
    arguments: Any = OmegaConf.to_container(mapping_at(optim, "optimizer", above="optim."), resolve=True)
    try:
        check_optimizer(arguments)
    except ValueError as error:
        raise ConfigError(f"optim.optimizer.{error}") from error
    optimizer = _call(optim, "optimizer", groups)
    scale_rates_(optimizer)
    scheduler = _call(optim, "lr_scheduler", optimizer)
    asked = any("window" in group or "weight_decay_end" in group for group in optimizer.param_groups)
    if asked and not isinstance(scheduler, GroupSchedule):
        raise ConfigError(
            f"optim.lr_scheduler: is a {type(scheduler).__name__}, which knows no windows and no weight_decay_end of "
            "optim.parameters; use warmup_cosine, half_cosine or constant, or leave them out."
        )
    return optimizer, scheduler


def _call(optim: DictConfig, name: str, argument: Any) -> Any:
    """Call the partial node at ``name`` with an argument; wrong values are errors of the config."""
    node = mapping_at(optim, name, above="optim.")
    try:
        return instantiate(node)(argument)
    except (TypeError, ValueError) as error:
        separator = "." if re.match(r"\w+(\.\S+)?: got ", str(error)) else ": "
        raise ConfigError(f"optim.{name}{separator}{error}") from error

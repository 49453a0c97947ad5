"""What is trained: freezing by names and up to the last blocks, and the mode in which frozen parts run."""

from collections.abc import Iterable, Mapping, Sequence

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from hypvl.checks import closest, names_parameter, one_of, whole_number
from hypvl.training.blocks import depths, ordered_blocks

ENCODERS = ("visual", "textual")
_MARK = "kept_in_eval"


def freeze(
    model: nn.Module,
    *,
    trainable: Iterable[str] | None = None,
    frozen: Iterable[str] | None = None,
    unlocked_blocks: Mapping[str, int] | None = None,
    freeze_norm_statistics: bool = True,
) -> list[str]:
    """Freeze parameters: they ask for no gradient any more.

    Those that are fixed by construction (sine-cosine positions) stay fixed. An encoder of which all is frozen is marked
    to run in evaluation mode and without a graph (its dropout is off), see :func:`hold_in_eval_`.

    Args:
        model: Changed in place; in a training run the learner, whose names start with ``model.`` or ``objective.``.
        trainable: Freeze all that none of these patterns names, see :func:`hypvl.checks.names_parameter`, for example
            ``["model.*_head.*"]``; None = freeze nothing.
        frozen: Of what is left, freeze all that one of these names, for example ``["model.textual.*"]``.
        unlocked_blocks: Encoder -> N, for example ``{"model.visual": 3}``: of what is left, freeze all of this encoder
            but its last N blocks and what comes after them (final norm, pooling), see
            :func:`hypvl.training.blocks.ordered_blocks`. From 0 to the number of blocks.
        freeze_norm_statistics: Whether batch norms in frozen parts use their running statistics and leave them as
            they are; False = in training those of the batch, as without freezing.

    Returns:
        The names that stay trainable.

    Raises:
        ValueError: for a pattern that names no trainable parameter (the message gives the closest name), an encoder
            that does not exist, a number out of range, or when nothing stays trainable.
    """
    one_of("freeze_norm_statistics", freeze_norm_statistics, (True, False))
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    kept = names if trainable is None else named("trainable", trainable, names)
    if not kept and trainable is not None:
        raise ValueError("trainable: got no pattern; expected at least one, or null to freeze nothing.")
    every = [name for name, _ in model.named_parameters()]  # a pattern may name what is frozen already
    removed = set() if frozen is None else set(named("frozen", frozen, kept, known=every))
    kept = [name for name in kept if name not in removed]
    for path, count in (unlocked_blocks or {}).items():
        locked = _before_the_last(model, path, count)
        left = [name for name in kept if name not in locked]
        if not any(name.startswith(f"{path}.") for name in left):
            raise ValueError(
                f"unlocked_blocks.{path}: got {count!r}, but nothing of {path} stays trainable; raise the number, or "
                "trainable and frozen name it as well: leave one of them out."
            )
        kept = left
    if not kept:
        raise ValueError("trainable, frozen: they leave no parameter to train; expected at least one.")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in kept)
    _mark(model, statistics=freeze_norm_statistics)
    return kept


def _before_the_last(model: nn.Module, path: str, count: int) -> set[str]:
    """Names of the parameters of an encoder that lie before its last ``count`` blocks."""
    encoder = module_at("unlocked_blocks", model, path)
    try:
        blocks = len(ordered_blocks(encoder))
        by_name = depths(encoder)
    except ValueError as error:
        raise ValueError(f"unlocked_blocks.{path}: {error}") from error
    count = whole_number(f"unlocked_blocks.{path}", count, least=0, most=blocks)
    return {f"{path}.{name}" for name, depth in by_name.items() if depth <= blocks - count}


def module_at(argument: str, model: nn.Module, path: str) -> nn.Module:
    """The module of that dotted name. ValueError for none; the message gives the closest encoder."""
    try:
        if path:
            return model.get_submodule(path)
    except AttributeError:
        pass
    encoders = [name for name, _ in model.named_modules() if name.rpartition(".")[2] in ENCODERS]
    names = encoders or [name for name, _ in model.named_modules() if name]
    near = closest(str(path), names, cutoff=0.0)
    hint = f"; the closest is {near}" if near else ""
    raise ValueError(f"{argument}: got {path!r}; expected the name of an encoder{hint}.")


def named(
    argument: str,
    patterns: Iterable[str],
    names: list[str],
    *,
    may_be_none: bool = False,
    known: Sequence[str] | None = None,
) -> list[str]:
    """The names that some pattern names, in their order.

    Unless ``may_be_none``, each pattern has to name one of ``known``; None = of the names.
    """
    known = names if known is None else known
    if isinstance(patterns, str) or not all(isinstance(pattern, str) for pattern in patterns):
        raise ValueError(f"{argument}: got {patterns!r}; expected a list of names or patterns.")
    for pattern in () if may_be_none else patterns:
        if not any(names_parameter(pattern, name) for name in known):
            near = closest(pattern, names, cutoff=0.0)
            raise ValueError(
                f"{argument}: {pattern!r} names no trainable parameter; the closest is {near if near else 'none'}."
            )
    return [name for name in names if any(names_parameter(pattern, name) for pattern in patterns)]


def hold_in_eval_(model: nn.Module) -> None:
    """Put what :func:`freeze` marked into evaluation mode again; called after each change to training mode."""
    for module in model.modules():
        if is_held(module):
            module.training = False


def is_held(module: nn.Module) -> bool:
    """Whether :func:`freeze` marked a module to run in evaluation mode."""
    return bool(getattr(module, _MARK, False))


def _mark(model: nn.Module, *, statistics: bool) -> None:
    """Mark all of an encoder that is frozen as a whole and, with ``statistics``, the norms of other frozen modules."""

    def visit(module: nn.Module, *, name: str, frozen: bool, held: bool) -> None:
        parameters = list(module.parameters())
        if parameters:  # else as what it is in
            frozen = not any(parameter.requires_grad for parameter in parameters)
        held = held or (frozen and name in ENCODERS)
        norm = isinstance(module, _BatchNorm | _InstanceNorm) and module.running_mean is not None
        setattr(module, _MARK, frozen and statistics if norm else held)
        for child, submodule in module.named_children():
            visit(submodule, name=child, frozen=frozen, held=held)

    visit(model, name="", frozen=False, held=False)

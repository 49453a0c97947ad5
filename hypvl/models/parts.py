"""A geometry or a scorer as plain data, for files that other programs read too, and built again from it."""

import importlib
import inspect
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import nn

from hypvl.config.targets import allowed_targets
from hypvl.errors import CheckpointError

P = TypeVar("P", bound=nn.Module)
_PLAIN = bool | int | float | str


def describe(part: nn.Module) -> dict[str, Any]:
    """Class, arguments and parameters of a geometry or a scorer, JSON-serialisable; :func:`rebuild` reads it.

    Arguments are the attributes that have their names; what is not plain data is left out.

    Example:
        >>> from hypvl.geometry.lorentz import Lorentz
        >>> describe(Lorentz(curv_init=0.5))["arguments"]["curv_init"]
        0.5
    """
    names = inspect.signature(type(part)).parameters
    given = {name: getattr(part, name) for name in names if isinstance(getattr(part, name, None), _PLAIN)}
    state = {name: value.detach().double().cpu().tolist() for name, value in part.state_dict().items()}
    learned = [name for name, parameter in part.named_parameters() if parameter.requires_grad]
    name = f"{type(part).__module__}.{type(part).__qualname__}"
    return {"class": name, "arguments": given, "state": state, "learned": learned}


def rebuild(record: Mapping[str, Any], kind: type[P], *, source: object) -> P:
    """The part that :func:`describe` wrote down, in evaluation mode; what was learned can be learned again.

    Only classes on the allow-list of models (docs/configs.md) are built, and only of the kind ``Geometry`` or
    ``Scorer`` that is asked for. ``source`` is named in errors.

    Raises:
        CheckpointError: for another class, or arguments and parameters that do not fit it.
    """
    name = str(record.get("class"))
    if name not in allowed_targets(part="model"):
        raise CheckpointError(
            f"{source}: its {kind.__name__.lower()} is {name!r}, which is not on the allow-list; expected a class of "
            "hypvl, or put the exact name into the environment variable HYPVL_EXTRA_TARGETS."
        )
    module, _, attribute = name.rpartition(".")
    try:
        cls = getattr(importlib.import_module(module), attribute)
        if not (isinstance(cls, type) and issubclass(cls, kind)):
            raise TypeError(f"{name} is no {kind.__name__}")
        arguments = {key: value for key, value in record["arguments"].items() if isinstance(value, _PLAIN)}
        part = cls(**arguments)
        own = part.state_dict()
        state = {key: torch.tensor(value) for key, value in record["state"].items() if key in own}
        part.load_state_dict({**own, **state})
        for key, parameter in part.named_parameters():
            parameter.requires_grad_(key in record["learned"])
    except (ImportError, AttributeError, LookupError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"{source}: its {kind.__name__.lower()} cannot be built ({' '.join(str(error).split())[:200]}); expected "
            "what hypvl export wrote."
        ) from error
    return part.eval()

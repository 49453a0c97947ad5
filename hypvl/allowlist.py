"""Marks of what a config that is data (YAML, JSON, the one inside a checkpoint) may name as ``_target_``.

A class or function is marked where it is defined. ``hypvl/config/targets.json`` is written from the marks: the test
``tests/test_allowlist.py`` writes it when a mark is new, and fails once so that the change is committed. Loading a
config reads only that file.
"""

import importlib
import pkgutil
from collections.abc import Callable
from typing import Any, TypeVar

PARTS = ("model", "dataset", "optim", "train", "evaluate")
#: Targets that are not ours, by their exact names. Never a package: `torch` holds functions that run any code.
FOREIGN: dict[str, tuple[str, ...]] = {"optim": ("torch.optim.AdamW", "torch.optim.adamw.AdamW")}
_MARK = "_configurable_parts"

T = TypeVar("T", bound=Callable[..., Any])


def configurable(*parts: str) -> Callable[[T], T]:
    """Mark a class or function of a module as one that data may name. It stays as it is; subclasses are not marked.

    Args:
        parts: The parts of a config that may build it, ``"model"``, ``"dataset"``, ``"optim"``, ``"train"`` or
            ``"evaluate"``.

    Raises:
        ValueError: for another part, or none.

    Example:
        >>> @configurable("train")
        ... class MyLoss: ...
    """
    if not parts or not set(parts) <= set(PARTS):
        raise ValueError(f"parts: got {parts}; expected some of {', '.join(PARTS)}")

    def mark(target: T) -> T:
        setattr(target, _MARK, parts)
        return target

    return mark


def marked_targets(package: str = "hypvl") -> dict[str, list[str]]:
    """The allow-list as the marks of a package and ``FOREIGN`` give it: part -> sorted exact dotted names.

    Imports every module of the package, so only the test that keeps the list calls it.
    """
    names: dict[str, set[str]] = {part: set(FOREIGN.get(part, ())) for part in PARTS}
    root = importlib.import_module(package)
    entries = pkgutil.walk_packages(root.__path__, f"{package}.")
    for module in (root, *(importlib.import_module(entry.name) for entry in entries)):
        for name, value in vars(module).items():
            defined_as = (getattr(value, "__module__", None), getattr(value, "__qualname__", None))
            if defined_as == (module.__name__, name):  # neither imported nor another name for it
                for part in vars(value).get(_MARK, ()):
                    names[part].add(f"{module.__name__}.{name}")
    return {part: sorted(result) for part, result in names.items()}

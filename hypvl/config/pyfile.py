"""Python config files: executed afresh each time, with relative imports between them.

A file runs with its own ``__import__``, which reads ``from .name import x`` as "execute name.py beside this
file and take x". Nothing global is patched, nothing enters ``sys.modules`` and no ``__pycache__`` appears, so
the folder may lie anywhere and needs no ``__init__.py``. ``from hypvl.recipes.name import x`` does the same with the
recipes that come with hypvl. Each import statement executes its file again: two
files that import the same noun get two copies of it.
"""

import builtins
import inspect
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hypvl.checks import closest
from hypvl.config.plain import one_line
from hypvl.config.recipes import PACKAGE, shipped_folders
from hypvl.errors import ConfigError, UserError

# What code in a config raises when it is wrong; all are reported in one line, with the file and the line.
_CODE_ERRORS = (
    ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, NameError, OSError, RuntimeError,
    TypeError, ValueError, OmegaConfBaseException,
)  # fmt: skip


class _LocatedError(ConfigError):
    """A ConfigError whose message already names the file it comes from."""


def execute(path: Path) -> dict[str, Any]:
    """Run a Python config file: its public values (no modules, functions, classes). Raises ConfigError, in one line."""
    module = _run(path, importers=())
    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_") and not inspect.ismodule(value) and not callable(value)
    }


def _run(path: Path, importers: tuple[Path, ...]) -> ModuleType:
    """Execute one file; its dicts and lists become OmegaConf nodes, so that importers edit them by attribute."""
    path = path.resolve()
    if path in importers:
        circle = " -> ".join(p.name for p in (*importers[importers.index(path) :], path))
        raise _LocatedError(f"{path}: these config files import each other: {circle}; break the circle.")
    module = ModuleType(path.stem)
    module.__file__ = str(path)
    chain = (*importers, path)
    vars(module)["__builtins__"] = {**vars(builtins), "__import__": _importer(path, chain)}
    try:
        exec(compile(path.read_bytes(), str(path), "exec", dont_inherit=True), vars(module))
    except SyntaxError as error:
        where = f"{error.filename}, line {error.lineno}" if error.lineno else str(path)
        raise _LocatedError(f"{where}: not valid Python: {error.msg}.") from error
    except _LocatedError:
        raise
    except UserError as error:
        raise _LocatedError(f"{_config_line(error, files=chain)}: {error}") from error
    except _CODE_ERRORS as error:
        message = one_line(error) or "no message"
        raise _LocatedError(
            f"{_config_line(error, files=chain)}: {type(error).__name__}: {message}"
        ) from error
    for name, value in vars(module).items():
        if not name.startswith("_") and isinstance(value, dict | list):
            vars(module)[name] = _as_node(value, name, path)
    return module


def _importer(path: Path, chain: tuple[Path, ...]) -> Any:
    """The ``__import__`` of one config file: relative names and recipes are files, everything else is as usual."""

    def import_(
        name: str,
        globals_: dict[str, Any] | None = None,
        locals_: dict[str, Any] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        if level == 0 and fromlist and f"{name}.".startswith(f"{PACKAGE}."):
            folders = shipped_folders()
            if not folders:
                raise _LocatedError(
                    f"{path}: imports {name}, but this installation of hypvl holds no recipes."
                )
            below = name.removeprefix(PACKAGE).removeprefix(".")
            return _import_relative(folders[0], below, tuple(fromlist), importer=path, chain=chain)
        if level == 0:
            return builtins.__import__(name, globals_, locals_, fromlist or (), 0)
        folder = path.parents[level - 1]
        return _import_relative(folder, name, tuple(fromlist or ()), importer=path, chain=chain)

    return import_


def _import_relative(
    folder: Path, name: str, fromlist: tuple[str, ...], *, importer: Path, chain: tuple[Path, ...]
) -> ModuleType:
    target = folder.joinpath(*name.split(".")) if name else folder
    if target.with_suffix(".py").is_file() and name:
        module = _run(target.with_suffix(".py"), chain)
    elif (target / "__init__.py").is_file():
        module = _run(target / "__init__.py", chain)
    elif target.is_dir():
        module = ModuleType(target.name)
    else:
        near = closest(target.name, sorted(p.stem for p in target.parent.glob("*.py")))
        hint = f"; the closest file is {target.parent / near}.py" if near else ""
        raise _LocatedError(f"{importer}: imports a config file that does not exist: {target}.py{hint}.")
    for wanted in fromlist:
        if wanted == "*" or hasattr(module, wanted):
            continue
        if target.is_dir() and ((target / f"{wanted}.py").is_file() or (target / wanted).is_dir()):
            setattr(module, wanted, _import_relative(target, wanted, (), importer=importer, chain=chain))
            continue
        names = sorted(n for n in vars(module) if not n.startswith("_"))
        near = closest(wanted, names)
        hint = f"the closest is '{near}'" if near else f"it has {', '.join(names) or 'nothing'}"
        raise _LocatedError(f"{importer}: imports '{wanted}' from {target}.py, which lacks it; {hint}.")
    return module


def _as_node(value: dict[Any, Any] | list[Any], name: str, path: Path) -> Any:
    try:
        return OmegaConf.create(value, flags={"allow_objects": True})
    except OmegaConfBaseException as error:
        raise _LocatedError(f"{path}: '{name}' cannot be a config: {one_line(error)}") from error


def _config_line(error: BaseException, *, files: tuple[Path, ...]) -> str:
    """``file, line N`` of the last config file in the traceback."""
    names = {str(file) for file in files}
    lines = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename in names]
    return f"{lines[-1].filename}, line {lines[-1].lineno}" if lines else str(files[-1])

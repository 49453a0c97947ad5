"""LazyCall describes a call, LazyConfig reads, changes and saves configs, instantiate builds from them."""

import difflib
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hypvl.config import overrides as override_rules
from hypvl.config.plain import TARGET, as_config, dotted_name, one_line, to_plain, without_secrets
from hypvl.config.pyfile import execute
from hypvl.config.reader import MAX_TEXT, dump_yaml, parse_json, parse_yaml, stored_data
from hypvl.config.targets import check_untrusted, is_reference_or_text, without_permissions
from hypvl.errors import ConfigError, UserError
from hypvl.io.files import read_regular, write_atomically

SUFFIXES = (".py", ".yaml", ".yml", ".json")


class LazyCall:
    """A call that is described now and made later by :func:`instantiate`.

    ``LazyCall(AdamW, partial=True)(lr=5e-4)`` is the config node
    ``{_target_: torch.optim.adamw.AdamW, _partial_: true, lr: 0.0005}``.

    Args:
        target: An importable class or function, or its dotted name.
        partial: Build ``functools.partial(target, **kwargs)`` instead of calling it.

    Raises:
        ConfigError: for a lambda, a local function, or anything else that has no importable name.
    """

    def __init__(self, target: Callable[..., Any] | str, partial: bool = False) -> None:
        if not callable(target) and not isinstance(target, str):
            raise ConfigError(
                f"LazyCall got {target!r}; expected a class, a function or the dotted name of one."
            )
        self._target = target if isinstance(target, str) else dotted_name(target)
        self._partial = partial

    def __call__(self, /, **kwargs: Any) -> DictConfig:
        """The config node of these arguments: values, lists, mappings or further nodes; others are a ConfigError."""
        if TARGET in kwargs:
            raise ConfigError(
                f"LazyCall({self._target}) got a keyword {TARGET}; give the target to LazyCall itself."
            )
        node: dict[str, Any] = {TARGET: self._target}
        if self._partial:
            node["_partial_"] = True
        plain = to_plain({**node, **kwargs}, source=f"LazyCall({self._target})")
        # Objects are allowed here so that code can write `model.visual._target_ = OtherClass`; loading a config
        # turns classes into names and refuses every other object.
        return as_config(plain, source=f"LazyCall({self._target})", allow_objects=True)


class LazyConfig:
    """Reading, changing and saving configs; every method is static."""

    @staticmethod
    def load(path: str | os.PathLike[str], *, extra_targets: Iterable[str] = ()) -> DictConfig:
        """Read a config file.

        A ``.py`` file is code: it is executed, and may name any target. ``.yaml``, ``.yml`` and ``.json`` files are
        data: their targets must be on the allow-list, or exact dotted names of ``extra_targets``. Nothing is cached:
        two loads share nothing.

        Raises:
            ConfigError: when the file is missing, is not a config, or names a target that is not allowed.
        """
        file = Path(path)
        _check_file(file)
        if file.suffix == ".py":
            return as_config(to_plain(execute(file), source=str(file)), source=str(file))
        try:
            text = read_regular(file, max_bytes=_LARGEST).decode("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{file}: cannot be read as text: {error}.") from error
        read = parse_json if file.suffix == ".json" else parse_yaml
        data = read(text, source=str(file))
        return LazyConfig.from_dict(data, source=str(file), extra_targets=extra_targets)

    @staticmethod
    def from_yaml(text: str, *, source: str = "YAML text", extra_targets: Iterable[str] = ()) -> DictConfig:
        """:meth:`from_dict` of YAML text, e.g. the one inside a checkpoint."""
        data = parse_yaml(text, source=source)
        return LazyConfig.from_dict(data, source=source, extra_targets=extra_targets)

    @staticmethod
    def from_dict(data: Any, *, source: str = "config", extra_targets: Iterable[str] = ()) -> DictConfig:
        """A config from data of outside. Raises ConfigError for no mapping, or a target off the allow-list."""
        plain = stored_data(data, source=source)
        check_untrusted(plain, source=source, extra_targets=extra_targets)
        return as_config(plain, source=source)

    @staticmethod
    def to_yaml(cfg: DictConfig | ListConfig) -> str:
        """The config as YAML text, which :meth:`from_yaml` reads back to an equal config.

        References such as ``${train.seed}`` stay; anything else in ``${}`` (``oc.env``, other resolvers,
        nested references) is replaced by its present value, because YAML configs may not call resolvers.

        Raises:
            ConfigError: for a value that a config cannot hold, or a reference that leads nowhere.
        """
        return dump_yaml(_without_resolvers(to_plain(cfg, source="config"), cfg, ()))

    @staticmethod
    def to_shown_yaml(cfg: DictConfig | ListConfig) -> str:
        """:meth:`to_yaml` for what is passed on, see :func:`hypvl.config.plain.without_secrets`."""
        return dump_yaml(without_secrets(parse_yaml(LazyConfig.to_yaml(cfg), source="config")))

    @staticmethod
    def to_data_yaml(cfg: DictConfig | ListConfig) -> str:
        """:meth:`to_yaml` as data may say it: permissions, which the command line gives each time, are false."""
        return dump_yaml(without_permissions(parse_yaml(LazyConfig.to_yaml(cfg), source="config")))

    @staticmethod
    def save(cfg: DictConfig | ListConfig, path: str | os.PathLike[str]) -> None:
        """Write :meth:`to_yaml` to ``path``, whole or not at all. Raises ConfigError unless it is a .yaml or .yml."""
        file = Path(path)
        if file.suffix not in (".yaml", ".yml"):
            raise ConfigError(
                f"cannot save a config as {file}; expected a name that ends with .yaml or .yml."
            )
        write_atomically(file, LazyConfig.to_yaml(cfg))

    @staticmethod
    def apply_overrides(cfg: DictConfig, overrides: Sequence[str]) -> DictConfig:
        """See :func:`hypvl.config.overrides.apply_overrides`."""
        return override_rules.apply_overrides(cfg, overrides)


def instantiate(cfg: Any, *args: Any, **kwargs: Any) -> Any:
    """Build the objects of a config node, or of a mapping or list of nodes: Hydra's ``instantiate``.

    Targets receive plain lists and dicts, never OmegaConf containers; ``args`` are positional arguments for the target,
    ``kwargs`` replace or join those of the node.

    Raises:
        ConfigError: when a target cannot be imported or refuses its arguments (TypeError, ValueError).
        UserError, OSError: as raised by a target, e.g. ``DataError`` for missing data.
    """
    import hydra.utils
    from hydra.errors import InstantiationException

    kwargs.setdefault("_convert_", "all")
    try:
        return hydra.utils.instantiate(cfg, *args, **kwargs)
    except OmegaConfBaseException as error:
        raise ConfigError(f"the config cannot be resolved: {one_line(error)}") from error
    except InstantiationException as error:
        causes: list[BaseException] = [error]
        while (cause := causes[-1].__cause__) is not None:
            causes.append(cause)
        for cause in causes:
            if isinstance(cause, UserError | OSError):
                raise cause from None
        if isinstance(causes[-1], TypeError | ValueError | ImportError | InstantiationException):
            origin = next((cause for cause in causes if not isinstance(cause, InstantiationException)), error)
            raise ConfigError(_refused(error, origin)) from error
        raise


_LARGEST = 4 * MAX_TEXT  # bytes
_CALL = re.compile(r"Error in call to target '(?P<target>[^']+)'.*full_key: (?P<key>\S+)", re.DOTALL)
_ARGUMENT = re.compile(r"[a-z]\w*(\.[\w*]+)*: got ")
_UNEXPECTED = re.compile(r"unexpected keyword argument '(?P<name>\w+)'")


def _refused(error: BaseException, cause: BaseException) -> str:
    """What a target refused, in one sentence if Hydra names the target."""
    call = _CALL.search(str(error))
    if call is None or isinstance(cause, ImportError):
        return one_line(error)
    key, target = call["key"], call["target"]
    if _ARGUMENT.match(str(cause)):  # it names the argument; add the key
        return f"{key}.{one_line(cause)}"
    text = f"{key}: {target} refuses its arguments: {one_line(cause).rstrip('.')}"
    unexpected = _UNEXPECTED.search(str(cause))
    if unexpected is None:
        return text + "."
    return (
        f"{text}; an override of a mapping is merged with what is there, delete what does not belong: "
        f"~{key}.{unexpected['name']}"
    )


def _check_file(file: Path) -> None:
    if file.is_dir():
        raise ConfigError(f"config {file} is a folder; name the config file in it.")
    if not file.exists():
        names = sorted(p.name for p in file.parent.glob("*") if p.suffix in SUFFIXES)
        near = [str(file.parent / name) for name in difflib.get_close_matches(file.name, names, n=1)]
        if not near and file.parent == Path() and not file.suffix:  # the bare name of a recipe
            recipes = [Path("configs") / f"{file.name}{suffix}" for suffix in SUFFIXES]
            near = [str(path) for path in recipes if path.is_file()]
        hint = f"; the closest is {near[0]}" if near else ""
        raise ConfigError(f"config {file} does not exist{hint}.")
    if file.suffix not in SUFFIXES:
        raise ConfigError(f"{file} is not a config: expected a name that ends with {', '.join(SUFFIXES)}.")


def _without_resolvers(plain: Any, root: DictConfig | ListConfig, path: tuple[str | int, ...]) -> Any:
    """Replace everything in ``${}`` that YAML configs may not hold by its present value."""
    if isinstance(plain, dict):
        return {key: _without_resolvers(value, root, (*path, key)) for key, value in plain.items()}
    if isinstance(plain, list):
        return [_without_resolvers(value, root, (*path, i)) for i, value in enumerate(plain)]
    if not isinstance(plain, str) or "${" not in plain or is_reference_or_text(plain):
        return plain
    node: Any = root
    try:
        for key in path:
            node = node[key]
    except OmegaConfBaseException as error:
        raise ConfigError(f"'{'.'.join(map(str, path))}' is {plain!r}: {one_line(error)}") from error
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node

"""What every command shares: how errors are printed, the parser with overrides, reading the config.

Nothing here imports torch, hydra or omegaconf until a config is read, so that ``--help`` answers at once.
"""

import argparse
import errno
import io
import os
import re
import select
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

from hypvl.checks import closest, set_flags
from hypvl.cli.numbers import Number, check_numbers, whole
from hypvl.data.workers import dead_worker
from hypvl.errors import ConfigError, StoppedError, UserError
from hypvl.io.json_text import json_bytes
from hypvl.io.redact import clean_log, map_texts, printable, printable_lines

if TYPE_CHECKING:
    from omegaconf import DictConfig

DEBUG_VARIABLE = "HYPVL_DEBUG"
INTERRUPTED = 130  # 128 + SIGINT, as shells report it
UNREAD = 141  # 128 + SIGPIPE
_LONGEST_LINE = 4000
_CALLED_AS: ContextVar[str | None] = ContextVar("called_as", default=None)
_OVERRIDES_HELP = (
    "changes to the config: key=value changes, +key=value adds, ++key=value sets either way, ~key deletes"
    " (hypvl docs configs)"
)


def run_main(main: Callable[[Sequence[str]], int], argv: Sequence[str] | None = None) -> int:
    """Call ``main``; print an error that the user can act on as one line on stderr, and return an exit code.

    It is what ``main`` returned; a :class:`UserError`'s ``exit_code`` (a config error: 2); 1 when the system refuses (a
    full disk, no permission) or a data worker has died; 130 after Ctrl-C; 141, in silence, when the reader of stdout
    has ended (``| head``). With ``HYPVL_DEBUG=1`` the traceback is printed before the line. Other exceptions pass
    through.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # names of files that are not UTF-8, terminals that are not
        sys.stdout.reconfigure(errors="backslashreplace")
    clean_log()
    try:
        try:
            return main(sys.argv[1:] if argv is None else argv)
        finally:
            sys.stdout.flush()
    except (UserError, OSError, RuntimeError) as error:
        if isinstance(error, BrokenPipeError) and _nobody_reads_stdout():
            return UNREAD
        line = _line(error)
        if line is None:
            raise
        if os.environ.get(DEBUG_VARIABLE, "0") not in ("", "0"):
            show_traceback()
        with suppress(OSError):  # a terminal that was closed
            show(line, file=sys.stderr)
        return error.exit_code if isinstance(error, UserError) else 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED


def _nobody_reads_stdout() -> bool:
    """Whether the reader of the pipe that stdout is has ended (``| head``); what is left to print is then dropped."""
    try:
        descriptor = sys.stdout.fileno()
    except (OSError, ValueError):  # no file, as in tests
        return False
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    if not any(event & select.POLLERR for _, event in poll.poll(0)):
        return False
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)  # the interpreter flushes once more when it ends
    os.close(nowhere)
    return True


@contextmanager
def called_as(name: str) -> Iterator[None]:
    """Parsers made inside name themselves this way in usage and errors: ``hypvl train``, not the file's name."""
    token = _CALLED_AS.set(name)
    try:
        yield
    finally:
        _CALLED_AS.reset(token)


def _line(error: UserError | OSError | RuntimeError) -> str | None:
    """The line to print for an error; None for an error of the program itself."""
    if isinstance(error, StoppedError):
        return str(error)
    if isinstance(error, UserError):
        return f"error: {error}"
    if isinstance(error, OSError):
        return f"error: {system_error(error)} ({DEBUG_VARIABLE}=1 shows where.)"
    # torch raises RuntimeError from a signal handler, at any place of the main process
    died = dead_worker(error, setting="now (--num-workers)")
    return None if died is None else f"error: {died}"


def show(*lines: object, file: TextIO | None = None) -> None:
    """Print lines that may hold texts from outside: secrets removed, control characters escaped."""
    for line in lines:
        print(printable(str(line), limit=_LONGEST_LINE), file=file, flush=True)


def show_json(value: Any) -> None:
    """Print plain data as JSON."""
    print(json_bytes(value, indent=1).decode(), end="", flush=True)


def show_traceback() -> None:
    """Print the traceback of the exception being handled to stderr, without secrets."""
    print(printable_lines(traceback.format_exc()), end="", file=sys.stderr, flush=True)


def system_error(error: OSError) -> str:
    """An error of the operating system as one sentence."""
    reason = error.strerror or str(error) or type(error).__name__
    place = "" if error.filename is None else f"{error.filename}: "
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"{place}no space is left to write ({reason}); free some, or name another folder."
    return f"{place}{reason}."


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Prints examples as written, N for numbers, PATH for paths, and defaults unless they are None, False or empty."""

    def _get_default_metavar_for_optional(self, action: argparse.Action) -> str:
        if action.type in (user_path, user_text, checkpoint_path, _foreign):
            return "PATH"
        if isinstance(action.type, Number) and action.type.is_whole:
            return "N"
        return super()._get_default_metavar_for_optional(action)

    def _get_help_string(self, action: argparse.Action) -> str | None:
        text = action.help
        shown = action.default not in (None, False, argparse.SUPPRESS) and action.default != []
        if text is None or not shown or "default" in text:
            return text
        return f"{text} (default: %(default)s)"


class CommandParser(argparse.ArgumentParser):
    """Accepts overrides between the flags in any order, and no abbreviated flags; ends its help with ``examples``."""

    def __init__(self, description: str | None, *, examples: str = "") -> None:
        super().__init__(
            prog=_CALLED_AS.get(),
            description=description,
            epilog=textwrap.dedent(examples).strip(),
            formatter_class=HelpFormatter,
            allow_abbrev=False,
        )

    def add_model_arguments(self) -> None:
        """Which model: ``--checkpoint-path`` or ``--model`` (one is required), ``--train-config`` and ``--device``.

        Load it with :func:`hypvl.cli.loading.load_chosen`.
        """
        which = self.add_mutually_exclusive_group(required=True)
        which.add_argument(
            "--checkpoint-path", type=checkpoint_path,
            help="weights, .pth or .safetensors, or the folder of a training run (its last checkpoint)",
        )  # fmt: skip
        which.add_argument(
            "--model", type=_foreign, metavar="NAME",
            help="instead, a model of another library: open_clip:NAME/WEIGHTS, hf:FOLDER_OR_ID, onnx:FILE, "
            "lavis:FILE, xvlm:FILE (hypvl docs foreign_models)",
        )  # fmt: skip
        self.add_argument(
            "--train-config", type=user_text,
            help="config the model was trained with, or a model's name (default: the config in the checkpoint)",
        )  # fmt: skip
        self.add_argument("--device", metavar="NAME", help="cpu, cuda, ... (default: a GPU if there is one)")

    def add_encoding_arguments(self) -> None:
        """``--batch-size`` and ``--num-workers`` of commands without a config, see ``encoding_of`` in loading.py."""
        self.add_argument(
            "--batch-size", type=whole(least=1), default=256, help="images, or texts, per forward pass"
        )
        self.add_argument("--num-workers", type=whole(least=0), help="processes that read images")

    def add_embeddings_arguments(self) -> None:
        """The two flags; give the parsed ones to :func:`hypvl.cli.loading.open_store`."""
        group = self.add_mutually_exclusive_group()
        group.add_argument(
            "--save-embeddings", type=user_path, metavar="DIR",
            help="save embeddings, ids and thumbnails in this folder, and reuse those it already has",
        )  # fmt: skip
        group.add_argument(
            "--embeddings", type=user_path, metavar="DIR",
            help="reuse the embeddings in this folder (of --save-embeddings or hypvl extract)",
        )  # fmt: skip

    def parse_args(  # type: ignore[override]  # one signature instead of argparse's overloads
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        """Parse with flags and overrides in any order; messages of readers then name the flags of this parser.

        Raises:
            ConfigError: for a number out of its range, see :mod:`hypvl.cli.numbers`.
        """
        set_flags(self._option_string_actions)
        parsed = self.parse_intermixed_args(args, namespace)
        check_numbers(parsed, self._actions)
        return parsed

    def error(self, message: str) -> NoReturn:
        """Print usage and message and exit with 2; for an unknown flag, name the closest one."""
        unknown = re.match(r"unrecognized arguments: (-\S+)", message)
        super().error(printable(message + (self._hint(unknown[1]) if unknown else ""), limit=_LONGEST_LINE))

    def _hint(self, flag: str) -> str:
        name = flag.partition("=")[0]
        near = closest(name.replace("_", "-"), self._option_string_actions, cutoff=0.8)
        if near:
            return f"; the closest flag is {near}"
        takes_overrides = any(action.dest == "overrides" for action in self._actions)
        if not takes_overrides or "." not in name:
            return ""
        key = flag.lstrip("-")
        return f"; a key of the config takes no dashes: {key if '=' in key else f'{key}=...'}"


def config_parser(
    description: str | None, *, examples: str = "", config_required: bool = True
) -> CommandParser:
    """A parser with ``--config PATH`` and trailing overrides.

    The results are ``args.config`` and ``args.overrides``; give both to :func:`load_config`.
    """
    parser = CommandParser(description, examples=examples)
    parser.add_argument(
        "--config", required=config_required, type=user_text,
        help="config file: .py (code), .yaml or .json (data); or the name of a recipe, such as meru_vit_b",
    )  # fmt: skip
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE", help=_OVERRIDES_HELP)
    return parser


def user_path(text: str) -> Path:
    """A path as typed; ``~`` at its beginning is the home folder, which shells leave alone in ``--flag=~/x``."""
    return Path(user_text(text))


def user_text(text: str) -> str:
    """As :func:`user_path`, for an argument that may also be a name or a pattern."""
    return os.path.expanduser(text)  # noqa: PTH111  # Path.expanduser raises for an unknown user


def checkpoint_path(text: str) -> Path:
    """A file as typed; for the folder of a training run its last checkpoint."""
    path = user_path(text)
    if not path.is_dir():
        return path
    from hypvl.models.checkpoint_io import checkpoint_file

    return checkpoint_file(path)


def _foreign(text: str) -> str:
    from hypvl.models.foreign import parse

    parse(text)
    return re.sub(r"(?<=[:,/])~(?=/)", lambda _: user_text("~"), text)  # each path in it


def encoding_overrides(args: argparse.Namespace) -> list[str]:
    """``--batch-size`` and ``--num-workers`` as overrides of a suite's ``encoding``."""
    flags = {"batch_size": args.batch_size, "num_workers": args.num_workers}
    return [f"encoding.{key}={value}" for key, value in flags.items() if value is not None]


def add_table_arguments(parser: Any, *, images: bool = True) -> None:
    """Add ``--caption-column``, ``--separator``, ``--quoting`` and, for tables with images, ``--image-column``."""
    if images:
        parser.add_argument(
            "--image-column", metavar="NAME",
            help="column or key of the image (default: image, filepath, ...)",
        )  # fmt: skip
    parser.add_argument(
        "--caption-column", metavar="NAME", help="column or key of the caption (default: caption, title, ...)"
    )
    parser.add_argument(
        "--separator", metavar="SIGN",
        help="between columns (default: TAB if the header line has one, else comma, else semicolon)",
    )  # fmt: skip
    parser.add_argument(
        "--quoting", choices=("minimal", "none"), default="minimal",
        help="none: quotation marks are ordinary characters",
    )  # fmt: skip


def table_options(args: argparse.Namespace) -> dict[str, Any]:
    """The table flags as keyword arguments of the readers. Raises ConfigError for a separator that cannot be one."""
    from hypvl.io.table_text import checked_separator

    names = ("image_column", "caption_column", "separator", "quoting")
    options = {name: getattr(args, name) for name in names if hasattr(args, name)}
    try:
        options["separator"] = checked_separator(options["separator"])
    except ValueError as error:
        raise ConfigError(f"--{error}") from error
    return options


def table_flags_given(args: argparse.Namespace) -> list[str]:
    """Names of the table flags that the user typed, for commands that may also read something else."""
    return [
        f"--{name.replace('_', '-')}"
        for name, value in table_options(args).items()
        if value not in (None, "minimal")
    ]


def load_config(
    path: str | os.PathLike[str],
    overrides: Sequence[str] = (),
    *,
    required: Sequence[str] = (),
    prefix: str = "",
) -> "DictConfig":
    """Read a config, check that it is the kind this command needs, and apply the overrides.

    In its texts ``~/`` at the beginning is the home folder. Nothing has been built or written.

    Args:
        path: As for :func:`find_config`; so is ``prefix``.
        overrides: As typed, see docs/configs.md.
        required: Names the config must have at its top level, e.g. ``("dataset", "model")``.
    """
    from hypvl.config import LazyConfig
    from hypvl.config.plain import as_config, to_plain

    file = find_config(path, prefix=prefix)
    config = LazyConfig.load(file)
    _check_names(config, file, required)
    config = LazyConfig.apply_overrides(config, overrides)
    _check_names(config, file, required)
    data = map_texts(
        to_plain(config, source=str(file)), lambda text: user_text(text) if text.startswith("~/") else text
    )
    return as_config(data, source=str(file))


def find_config(path: str | os.PathLike[str], *, prefix: str) -> Path:
    """The file of a config: a path as it is; a bare name is a recipe (:func:`hypvl.config.recipes.recipe_folders`).

    ``meru_vit_b`` and ``train_meru_vit_b`` are ``configs/train_meru_vit_b.py`` where ``prefix`` is ``train_``.

    Raises:
        ConfigError: for a name without a recipe; the closest is named. For ``configs/x.py`` that is not in the working
            folder but comes with hypvl.
    """
    from hypvl.config.recipes import OWN_FOLDER, find_recipe, recipes

    file = Path(path)
    if file.exists():
        return file
    if file.parts == (OWN_FOLDER, file.name) and file.suffix == ".py" and find_recipe(file.stem, prefixes=()):
        raise ConfigError(
            f"--config: {file} is not in this folder; the recipe that comes with hypvl is called by its name, "
            f"--config {file.stem.removeprefix(prefix)}."
        )
    if file.suffix or len(file.parts) != 1:
        return file
    found = find_recipe(file.name, prefixes=(prefix,))
    if found is not None:
        return found
    if prefix and (other := find_recipe(file.name)) is not None:
        raise ConfigError(
            f"--config: {file.name!r} is {other.name}, which is for another command; expected a recipe {prefix}..."
        )
    known = [name for name in recipes() if name.startswith(prefix)]
    if not file.name.startswith(prefix):  # as the user names recipes
        known = [name.removeprefix(prefix) for name in known]
    near = closest(file.name, known, cutoff=0.0)
    hint = f"; the closest is {near}" if near else ""
    raise ConfigError(
        f"--config: got {file.name!r}, but no recipe has that name{hint}; hypvl recipes lists all."
    )


def _check_names(config: "DictConfig", path: Path, required: Sequence[str]) -> None:
    names = [str(name) for name in config]
    missing = [name for name in required if name not in names]
    if not names or (required and len(missing) == len(required)):
        expected = f"; expected {', '.join(required)}" if required else ""
        defines = ", ".join(names) or "nothing"
        raise ConfigError(f"{path} is not a config of this command: it defines {defines}{expected}.")
    if missing:
        raise ConfigError(
            f"{path} lacks {', '.join(missing)}; expected all of {', '.join(required)} at its top level."
        )

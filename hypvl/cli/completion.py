"""Print a script that completes hypvl's commands, flags, recipes and files in a shell."""

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, get_args

from hypvl.checks import one_of
from hypvl.cli.common import CommandParser, run_main, user_path
from hypvl.errors import UserError

EXAMPLES = """
examples:
  hypvl completion bash > ~/.local/share/bash-completion/completions/hypvl
  hypvl completion zsh > ~/.zfunc/_hypvl        (in ~/.zshrc: fpath=(~/.zfunc $fpath); compinit)
  hypvl completion tcsh > ~/.hypvl.tcsh         (in ~/.tcshrc: source ~/.hypvl.tcsh)

Needs shtab: pip install 'hypvl[completion]'. Run it again after an update of hypvl.
"""
Shell: TypeAlias = Literal["bash", "zsh", "tcsh"]
#: Completes what --config takes: recipes and files.
_RECIPES = {
    "bash": '_hypvl_recipes() {{ compgen -W "{names}" -- "$1"; compgen -f -- "$1"; }}\n',
    "zsh": "_hypvl_recipes() {{ compadd {names}; _files; }}\n",
}


def build_parser() -> CommandParser:
    """Flags of the command."""
    parser = CommandParser(__doc__, examples=EXAMPLES)
    parser.add_argument("shell", choices=get_args(Shell), metavar="SHELL", help="bash, zsh or tcsh")
    return parser


def main(argv: Sequence[str]) -> int:
    """Print the script."""
    args = build_parser().parse_args(argv)
    sys.stdout.write(completion_script(args.shell))  # code of ours, in lines of any length
    return 0


def completion_script(shell: Shell) -> str:
    """The script for one shell.

    Raises:
        UserError: shtab is not installed.
        ValueError: For another shell.
    """
    one_of("shell", shell, Shell)
    try:
        shtab = importlib.import_module("shtab")
    except ImportError as error:
        raise UserError("completion: needs the package shtab; pip install 'hypvl[completion]'.") from error
    from hypvl.config.recipes import recipes

    bare = [name.removeprefix("train_").removeprefix("eval_") for name in recipes()]
    names = " ".join(sorted({*recipes(), *bare}))
    preamble = {kind: text.format(names=names) for kind, text in _RECIPES.items()}
    script: str = shtab.complete(_whole_parser(shtab), shell=shell, preamble=preamble)
    return script


def _whole_parser(shtab: Any) -> argparse.ArgumentParser:
    """One parser with a sub-command for each command, for shtab to walk."""
    from hypvl.cli import registry

    whole = argparse.ArgumentParser(prog="hypvl")
    whole.add_argument("--version", action="version", version="")
    below = whole.add_subparsers(parser_class=argparse.ArgumentParser)
    for command in registry.commands().values():
        own = command.load().build_parser()
        for action in own._actions:
            if (how := _completion(action, shtab)) is not None:
                action.complete = how  # where shtab looks
        below.add_parser(command.name, parents=[own], add_help=False, help=command.summary)
    return whole


def _completion(action: argparse.Action, shtab: Any) -> Any:
    """How the value of a flag is completed: a recipe, a folder, a file; None = not at all."""
    if action.dest in ("config", "base"):
        return {"bash": "_hypvl_recipes", "zsh": "_hypvl_recipes", "tcsh": "f"}
    if action.metavar in ("DIR", "FOLDER") or action.dest.endswith("_dir"):
        return shtab.DIRECTORY
    return shtab.FILE if action.type is user_path or action.dest.endswith("_path") else None


if __name__ == "__main__":
    raise SystemExit(run_main(main))

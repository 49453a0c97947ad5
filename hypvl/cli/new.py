"""Write a recipe of your own that starts from another: a file of a few lines to edit."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypvl.cli.common import CommandParser, find_config, run_main, show, user_path, user_text
from hypvl.errors import ConfigError

if TYPE_CHECKING:
    from omegaconf import DictConfig

EXAMPLES = """
examples:
  hypvl new my_recipe --from meru_vit_b
  hypvl train --config my_recipe --num-gpus 8 --output-dir output/my_recipe

  hypvl new my_suite --from eval_zero_shot_retrieval
  hypvl new experiments/wider.py --from meru_demo
"""
#: Settings that are shown as they are in the new file, for editing.
_SHOWN = (
    "dataset.tarfiles", "model.visual.arch", "model.textual.arch", "optim.optimizer.lr", "train.total_batch_size",
    "train.num_iterations", "encoding.batch_size", "roots",
)  # fmt: skip
_LINE = 110


def build_parser() -> CommandParser:
    """Flags of the command."""
    parser = CommandParser(__doc__, examples=EXAMPLES)
    parser.add_argument(
        "name", metavar="NAME", type=user_path,
        help="name of the recipe, which is written to configs/NAME.py; or a path that ends in .py",
    )  # fmt: skip
    parser.add_argument(
        "--from", dest="base", required=True, metavar="RECIPE", type=user_text,
        help="recipe it starts from (hypvl recipes lists them)",
    )  # fmt: skip
    return parser


def main(argv: Sequence[str]) -> int:
    """Write the file; one that is there is left as it is and an error."""
    args = build_parser().parse_args(argv)
    from hypvl.config import LazyConfig
    from hypvl.config.recipes import OWN_FOLDER

    file = args.name if args.name.suffix == ".py" else Path(OWN_FOLDER) / f"{args.name}.py"
    if not file.stem.isidentifier() or (args.name.suffix != ".py" and len(args.name.parts) != 1):
        raise ConfigError(
            f"NAME: got {str(args.name)!r}; expected letters, digits and underscores, as in my_recipe, "
            "or a path that ends in .py."
        )
    if file.exists():
        raise ConfigError(f"{file} exists and is not overwritten; choose another name, or remove it.")
    base = _base(args.base, file)
    config = LazyConfig.load(base)
    text = leaf(file, base, config)
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("x", encoding="utf-8") as out:
        out.write(text)
    show(f"{file}: starts from {base.stem}; edit it, then: {_command(file, config)}")
    return 0


def leaf(file: Path, base: Path, config: "DictConfig") -> str:
    """The text of the new recipe ``file``: it imports what ``base`` defines, and shows a few of its settings.

    Args:
        config: That of ``base``.
    """
    from hypvl.config.recipes import PACKAGE

    package = "" if base.parent.resolve() == file.parent.resolve() else PACKAGE
    names = ", ".join(sorted(str(name) for name in config))
    imported = f"from {package}.{base.stem} import {names}"
    if len(imported) > _LINE:
        listed = "".join(f"    {name},\n" for name in names.split(", "))
        imported = f"from {package}.{base.stem} import (\n{listed})"
    shown = "".join(f"# {key} = {_literal(value)}\n" for key, value in _settings(config))
    return (
        f'"""What this recipe is for: {_command(file, config)}"""\n\n{imported}\n\n'
        f"# What differs from {base.stem}. These are its settings:\n{shown}"
    )


def _settings(config: "DictConfig") -> Iterator[tuple[str, Any]]:
    """Those of :data:`_SHOWN` that the config has; of a mapping each entry."""
    from omegaconf import OmegaConf

    for key in _SHOWN:
        value = OmegaConf.select(config, key)
        if OmegaConf.is_dict(value):
            yield from ((f"{key}.{name}", entry) for name, entry in value.items())
        elif value is not None:
            yield key, OmegaConf.to_container(value) if OmegaConf.is_list(value) else value


def _literal(value: Any) -> str:
    """A setting as Python reads it, texts in double quotes."""
    if isinstance(value, list):
        return f"[{', '.join(map(_literal, value))}]"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def _base(name: str, file: Path) -> Path:
    """The recipe to start from: one that the new file can import, beside it or hypvl's own."""
    from hypvl.config.recipes import shipped_folders

    beside = file.parent / Path(name).name
    base = beside if beside.suffix == ".py" and beside.is_file() else _found(name)
    importable = [file.parent.resolve(), *(folder.resolve() for folder in shipped_folders())]
    if base.parent.resolve() not in importable or not base.stem.isidentifier():
        raise ConfigError(
            f"--from: {base} cannot be imported from {file}; put the new recipe beside it, "
            "or start from one of hypvl's."
        )
    return base


def _found(name: str) -> Path:
    from hypvl.config.recipes import find_recipe

    found = find_recipe(name)
    if found is not None:
        return found
    try:
        base = find_config(name, prefix="train_")
    except ConfigError as error:
        raise ConfigError(str(error).replace("--config", "--from", 1)) from error
    if not base.is_file():
        raise ConfigError(f"--from: {name} does not exist; name a recipe (hypvl recipes lists them).")
    return base


def _command(file: Path, config: "DictConfig") -> str:
    """How the new recipe is run."""
    from hypvl.config.recipes import OWN_FOLDER

    name = file.stem if file.parent == Path(OWN_FOLDER) else file.as_posix()
    if "evaluate" in config:
        return f"hypvl evaluate --config {name} --checkpoint-path PATH"
    return f"hypvl train --config {name} --output-dir output/{file.stem}"


if __name__ == "__main__":
    raise SystemExit(run_main(main))

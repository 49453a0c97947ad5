"""Recipes: the configs that come with hypvl, and those of the folder one works in, found by their names.

In a checkout hypvl's own are the files of ``configs/``; the wheel holds the same files as ``hypvl/recipes/``. Python
configs import them from any folder by ``from hypvl.recipes.train_meru_vit_b import model``.
"""

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path

#: How Python configs name the folder of hypvl's recipes in absolute imports.
PACKAGE = "hypvl.recipes"
#: The folder of one's own recipes, in the working folder.
OWN_FOLDER = "configs"
_PACKAGE_FOLDER = Path(__file__).resolve().parents[1]


def shipped_folders() -> list[Path]:
    """Where hypvl's recipes lie: ``configs/`` of a checkout, ``hypvl/recipes/`` of an installed wheel."""
    checkout = _PACKAGE_FOLDER.parent
    folders = [checkout / OWN_FOLDER] if (checkout / "setup.py").is_file() else []
    return [folder for folder in (*folders, _PACKAGE_FOLDER / "recipes") if folder.is_dir()]


def recipe_folders() -> list[Path]:
    """Where a recipe's name is looked up, in this order: ``./configs``, the checkout's, the package's."""
    return [folder for folder in (Path(OWN_FOLDER), *shipped_folders()) if folder.is_dir()]


def find_recipe(name: str, *, prefixes: Sequence[str] = ("train_", "eval_")) -> Path | None:
    """The file of a recipe by its name, with or without one of the prefixes; None if no folder has it."""
    for folder in recipe_folders():
        for prefix in ("", *prefixes):
            if (file := folder / f"{prefix}{name}.py").is_file():
                return file
    return None


def recipes() -> dict[str, Path]:
    """Every recipe by the name of its file, sorted; one in ``./configs`` hides the shipped one of its name."""
    found: dict[str, Path] = {}
    for folder in recipe_folders():
        for file in _recipes_in(folder):
            found.setdefault(file.stem, file)
    return dict(sorted(found.items()))


def purpose(file: Path) -> str:
    """What a recipe is for: the first line of its docstring, without the command behind it; nothing is executed."""
    try:
        lines = (ast.get_docstring(ast.parse(file.read_bytes())) or "").splitlines()
    except (SyntaxError, ValueError):
        return "not valid Python"
    return "" if not lines else lines[0].partition(": hypvl ")[0].rstrip(".")


def _recipes_in(folder: Path) -> Iterator[Path]:
    return (file for file in sorted(folder.glob("*.py")) if not file.name.startswith("_"))

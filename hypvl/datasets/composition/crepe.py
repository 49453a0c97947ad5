"""Reader of CREPE's productivity part: captions of parts of Visual Genome's images against generated false ones."""

import ast
from pathlib import Path
from typing import Any, Literal, TypeAlias

from hypvl.allowlist import configurable
from hypvl.checks import one_of
from hypvl.datasets.composition.choices import Choice, Choices, ImageCollector
from hypvl.datasets.files import open_table, text_of
from hypvl.datasets.images import Box
from hypvl.errors import DataError, MissingDataError
from hypvl.io.files import is_file

Negatives: TypeAlias = Literal["atom", "swap", "negate"]
_FOLDERS = ("VG_100K", "VG_100K_2", "")


@configurable("evaluate")
def crepe(root: str | Path, *, negatives: Negatives, images: str | Path) -> Choices:
    """CREPE, productivity: ``root/prod_hard_negatives/prod_vg_hard_negs_<negatives>_all.csv``, also in ``root``.

    A row has ``image_id``, a box ``x, y, width, height`` in pixels, ``caption``, ``hard_negs`` (a list of texts,
    written as Python or JSON writes it) and ``complexity``, which is the kind (``complexity_4`` … ``complexity_12``;
    ``all`` where there is no such column). ``macro_accuracy`` is the plain mean over complexities.

    Args:
        negatives: How the false captions were made: an atom replaced, two atoms swapped, a negation.
        images: Folder of Visual Genome's images, ``<image id>.jpg`` in it or in its ``VG_100K`` and ``VG_100K_2``.

    Raises:
        MissingDataError: when the file or all images are not there.
        DataError: naming the row that cannot be used.

    Source: Ma et al. 2023 (arXiv 2212.07796), section 4.2.
    """
    one_of("negatives", negatives, Negatives)
    name = f"prod_vg_hard_negs_{negatives}_all.csv"
    places = [Path(root) / "prod_hard_negatives" / name, Path(root) / name]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise MissingDataError(
            f"{places[0]}: is not there (looked in {Path.cwd()}); put CREPE's prod_hard_negatives/ into {root} "
            "(github.com/RAIVNLab/CREPE)."
        )
    collector, choices = ImageCollector(), []
    for place, row in open_table(path).usable_rows():
        where = f"{path}, {place}"
        identity, *edges = (_whole(row, field, where) for field in ("image_id", "x", "y", "width", "height"))
        files = [Path(images, folder, f"{identity}.jpg") for folder in _FOLDERS]
        image = collector.add(
            next((file for file in files if is_file(file)), files[0]),
            key=f"{identity} {edges}",
            box=Box.from_xywh(*edges),
        )
        complexity = row.get("complexity")
        kind = "all" if complexity in (None, "") else f"complexity_{_whole(row, 'complexity', where)}"
        choices.append(Choice(image, text_of(row, "caption", where), _texts(row, where), kind))
    collector.require(source=path, what="Visual Genome's images")
    kinds = sorted({choice.kind for choice in choices})
    return Choices(collector.images, choices, collector.keys, {"macro_accuracy": kinds})


def _whole(row: dict[str, Any], field: str, where: str) -> int:
    try:
        value = float(row[field])
    except (KeyError, TypeError, ValueError):
        value = float("nan")
    if not value.is_integer():
        raise DataError(f"{where}: has no whole number {field!r}; got {row.get(field)!r}.")
    return int(value)


def _texts(row: dict[str, Any], where: str) -> tuple[str, ...]:
    """The false captions; a list that is written as text is read, never executed."""
    value = row.get("hard_negs")
    if isinstance(value, str):
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            value = None
    if not isinstance(value, list) or not value or not all(isinstance(text, str) for text in value):
        raise DataError(f"{where}: expected hard_negs, a list of texts; got {str(row.get('hard_negs'))[:80]}")
    return tuple(value)

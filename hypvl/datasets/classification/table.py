"""Labelled images listed in a table."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hypvl.allowlist import configurable
from hypvl.checks import natural_number
from hypvl.datasets.files import image_place, open_table, read_json, require_images
from hypvl.datasets.images import Images, LabelledImages
from hypvl.errors import DataError
from hypvl.io.table_text import TableText


@configurable("evaluate")
class LabelledTable(LabelledImages):
    """``{"image": path, "label": number or name}`` a line, or any other table with these columns.

    Args:
        path: The file: ``.jsonl``, a JSON list, or a CSV or TSV, see :class:`hypvl.io.table_text.TableText`.
        images_root: What the paths are relative to, and may not leave; None = the file's folder.
        classes: Names in the order of the labels, or a JSON file of them: a list, or
            ``{"classes": [...], "prompts": templates or prompts by class}``. None = the labels are names, and the
            classes those that occur, sorted.
        image_column: Column, or key, of the path.
        label_column: Column, or key, of the label.
        prompts: Templates or whole prompts by class name, in place of those of the file.

    Raises:
        MissingDataError: when the file, or all its images, are not there.
        DataError: when a line has another layout, or a label is not a class.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        images_root: str | Path | None = None,
        classes: Sequence[str] | str | Path | None = None,
        image_column: str = "image",
        label_column: str = "label",
        prompts: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        path = Path(path)
        names, own_prompts = _classes(classes)
        rows = _rows(open_table(path), image_column, label_column, names)
        if names is None:
            names = sorted({str(label) for _, _, label in rows})
        number = {name: i for i, name in enumerate(names)}
        twice = {name for i, name in enumerate(names) if number[name] != i}
        labels: list[int] = []
        for line, _, label in rows:
            if isinstance(label, str) and label in twice:
                raise DataError(
                    f"{path}, {line}: has the label {label!r}, the name of several classes; give labels as numbers."
                )
            place = number.get(label) if isinstance(label, str) else label
            if place is None or not 0 <= place < len(names):
                raise DataError(
                    f"{path}, {line}: has the label {label!r}; expected one of the {len(names)} classes, by "
                    f"name or 0 ... {len(names) - 1}."
                )
            labels.append(place)
        keys = [key for _, key, _ in rows]
        paths = [image_place(path, images_root, key) for key in keys]
        require_images(paths, source=path, what="its images (see images_root)")
        super().__init__(
            Images.from_files(paths),
            labels,
            classes=names,
            keys=keys,
            prompts=own_prompts if prompts is None else prompts,
        )


def _classes(classes: Sequence[str] | str | Path | None) -> tuple[list[str] | None, Any]:
    """(class names, prompts) of a list, or of a JSON file."""
    if classes is None:
        return None, None
    if not isinstance(classes, str | Path):
        return list(classes), None
    content = read_json(Path(classes))
    names = content.get("classes") if isinstance(content, dict) else content
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise DataError(
            f'{classes}: expected a list of class names, or {{"classes": [...], "prompts": ...}}.'
        )
    return names, content.get("prompts") if isinstance(content, dict) else None


def _rows(
    table: TableText, image_column: str, label_column: str, names: Sequence[str] | None
) -> list[tuple[str, str, int | str]]:
    """(where, path, label) of each row."""
    rows: list[tuple[str, str, int | str]] = []
    for place, fields in table.usable_rows():
        image, label = fields.get(image_column), fields.get(label_column)
        if isinstance(label, str) and not table.is_json and names is not None and label not in names:
            number = natural_number(label)  # a table has texts only
            label = label if number is None else number
        wrong = isinstance(label, bool) or (isinstance(label, int) and names is None)
        if not isinstance(image, str) or not isinstance(label, str | int) or wrong:
            kinds = "class name (or give classes for numbers)" if names is None else "class name or number"
            got = json.dumps(fields, ensure_ascii=False, default=str)
            raise DataError(
                f'{table.path}, {place}: expected {{"{image_column}": path, "{label_column}": {kinds}}}; got '
                f"{got[:80]}."
            )
        rows.append((place, image, label))
    return rows

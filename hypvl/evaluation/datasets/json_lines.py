"""Labelled pictures listed in a JSON-lines file."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from hypvl.errors import DataError
from hypvl.evaluation.datasets.classification import read_json, read_text, text_lines
from hypvl.evaluation.datasets.images import read_image
from hypvl.evaluation.protocol import MissingDataError


class JsonLinesSet:
    """``{"image": path, "label": number or name}`` a line.

    Args:
        path: The file.
        images_root: What the paths are relative to; None = the file's folder.
        classes: Names in the order of the labels, or a JSON file of them: a list, or
            ``{"classes": [...], "prompts": templates or prompts by class}``. None = the labels are names, and the
            classes those that occur, sorted.
        image_key: Field of the path.
        label_key: Field of the label.
        prompts: Templates or whole prompts by class name, in place of those of the file.

    Raises:
        MissingDataError: when the file, or all its pictures, are not there.
        DataError: when a line is not as described, or a label is no class.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        images_root: str | Path | None = None,
        classes: Sequence[str] | str | Path | None = None,
        image_key: str = "image",
        label_key: str = "label",
        prompts: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        path = Path(path)
        folder = path.parent if images_root is None else Path(images_root)
        names, own_prompts = _classes(classes)
        rows = _rows(path, image_key, label_key, numbered=names is not None)
        if names is None:
            names = sorted({str(label) for _, _, label in rows})
        self.classes = names
        self.prompts = own_prompts if prompts is None else prompts
        number = {name: i for i, name in enumerate(names)}
        twice = {name for i, name in enumerate(names) if number[name] != i}
        self.keys = [key for _, key, _ in rows]
        self.labels: list[int] = []
        for line, _, label in rows:
            if isinstance(label, str) and label in twice:
                raise DataError(
                    f"{path}, line {line}: has the label {label!r}, the name of several classes; give labels as numbers."
                )
            found = number.get(label) if isinstance(label, str) else label
            if found is None or not 0 <= found < len(names):
                raise DataError(
                    f"{path}, line {line}: has the label {label!r}; expected one of the {len(names)} classes, by "
                    f"name or 0 ... {len(names) - 1}."
                )
            self.labels.append(found)
        self.paths = [folder / key for key in self.keys]
        if not any(picture.is_file() for picture in self.paths):
            raise MissingDataError(
                f"{path}: none of its {len(self.paths)} pictures is there, such as {self.paths[0]}; give images_root."
            )
        self.ids = [str(picture) for picture in self.paths]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """(uint8 (3, h, w), label); raises DataError naming the file."""
        return read_image(self.paths[index]), self.labels[index]


def _classes(given: Sequence[str] | str | Path | None) -> tuple[list[str] | None, Any]:
    if given is None:
        return None, None
    if not isinstance(given, str | Path):
        return list(given), None
    content = read_json(Path(given))
    names = content.get("classes") if isinstance(content, dict) else content
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise DataError(f'{given}: expected a list of class names, or {{"classes": [...], "prompts": ...}}.')
    return names, content.get("prompts") if isinstance(content, dict) else None


def _rows(path: Path, image_key: str, label_key: str, *, numbered: bool) -> list[tuple[int, str, int | str]]:
    rows: list[tuple[int, str, int | str]] = []
    for number, line in enumerate(text_lines(read_text(path)), start=1):
        if not line.strip():
            continue
        try:
            content = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}, line {number}: is not valid JSON ({error}).") from error
        fields = content if isinstance(content, dict) else {}
        image, label = fields.get(image_key), fields.get(label_key)
        usable = isinstance(label, str) or (
            numbered and isinstance(label, int) and not isinstance(label, bool)
        )
        if not isinstance(image, str) or not usable:
            kinds = "class name or number" if numbered else "class name (or give classes for numbers)"
            raise DataError(
                f'{path}, line {number}: expected {{"{image_key}": path, "{label_key}": {kinds}}}; got {line[:80]}.'
            )
        rows.append((number, image, label))  # type: ignore[arg-type]  # checked by `usable`
    if not rows:
        raise DataError(f"{path}: names no pictures; expected one JSON object a line.")
    return rows

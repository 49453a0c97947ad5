"""Reader of WinoGAViL: a cue and images, some of which people associate with it."""

from pathlib import Path
from typing import Any

from hypvl.allowlist import configurable
from hypvl.datasets.composition.choices import ImageCollector, Selection, Selections
from hypvl.datasets.files import image_place, read_entries, text_of
from hypvl.errors import DataError


@configurable("evaluate")
def winogavil(
    root: str | Path, *, images: str | Path | None = None, template: str | None = None
) -> Selections:
    """WinoGAViL: ``root/winogavil_dataset.json``, and the images ``<candidate>.jpg``.

    The file is a list of ``{"cue": "werewolf", "candidates": ["moon", ...], "associations": ["moon", ...]}``;
    associations are among the candidates. A kind is the number of candidates.

    Args:
        root: Folder of the file.
        images: Folder of the images; None = ``root/winogavil_images``.
        template: The caption, with ``{}`` for the cue; None = the cue with its article, "A werewolf", "An owl".

    Raises:
        MissingDataError: when the file, or all images, are not there.
        DataError: naming the entry that cannot be used.
        ValueError: for a template without ``{}``.

    Source: Bitton et al. 2022 (arXiv 2207.12576).
    """
    if template is not None and "{}" not in template:
        raise ValueError(f"template: got {template!r}; expected a text with {{}}.")
    path = Path(root) / "winogavil_dataset.json"
    folder = Path(root) / "winogavil_images" if images is None else Path(images)
    collector, selections = ImageCollector(), []
    for where, entry in read_entries(path, list):
        cue = text_of(entry, "cue", where)
        candidates, associations = (_names(entry, name, where) for name in ("candidates", "associations"))
        if wrong := [name for name in associations if name not in candidates]:
            raise DataError(f"{where}: associations: {', '.join(wrong)}: not among the candidates.")
        positions = tuple(
            collector.add(image_place(path, folder, f"{name}.jpg"), key=name) for name in candidates
        )
        selections.append(
            Selection(
                _with_article(cue) if template is None else template.replace("{}", cue),
                positions,
                tuple(name in associations for name in candidates),
                str(len(candidates)),
            )
        )
    collector.require(source=path, what="winogavil_images")
    return Selections(collector.images, selections, collector.keys)


def _names(entry: Any, name: str, where: str) -> list[str]:
    value = entry.get(name)
    if (
        not isinstance(value, list)
        or not value
        or not all(isinstance(one, str) for one in value)
        or len(set(value)) < len(value)
    ):
        raise DataError(
            f"{where}: {name}: got {str(value)[:80]}; expected a list of different names, at least one."
        )
    return value


def _with_article(cue: str) -> str:
    return f"{'An' if cue[:1].lower() in 'aeiou' else 'A'} {cue}"

"""Reader of VL-CheckList: objects, attributes and relations, one word of a caption replaced."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from hypvl.allowlist import configurable
from hypvl.datasets.composition.choices import Choice, Choices, ImageCollector
from hypvl.datasets.files import read_entries, read_text, text_of
from hypvl.errors import DataError, MissingDataError

#: What a source's name begins with, and the folder of its images below ``images``.
_FOLDERS = {"vg": "vg", "vaw": "vg", "swig": "swig", "hake": "hake"}
_LONGEST = 100_000  # letters of a YAML file


class _Loader(yaml.SafeLoader):
    """YAML's safe loader without aliases (``*name``), which can make one value out of few letters that never ends."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.composer.ComposerError(None, None, "an alias", self.peek_event().start_mark)
        return super().compose_node(parent, index)


@configurable("evaluate")
def vl_checklist(
    root: str | Path,
    *,
    images: str | Path | None = None,
    types: Sequence[str] | None = None,
    limit: int | None = 1000,
) -> Choices:
    """VL-CheckList: every ``root/corpus/v1/<Type>/…/<source>.yaml`` with its list of images and texts.

    A YAML file is ``{ANNO_PATH, IMG_ROOT, TYPE: TUPLE_JSON}``; ``ANNO_PATH``, from ``root``, is a list of
    ``[image, {"POS": ["…"], "NEG": ["…"]}]``, of whose texts the first count. The kind of a file is its place,
    ``Object/Location/center/hake``. Published averages, plain means over files: ``accuracy_Object``,
    ``accuracy_Attribute``, ``accuracy_Relation``, each test within them (``accuracy_Object/Location/center``) and
    ``macro_accuracy`` of all.

    Args:
        images: Folder with ``vg``, ``swig`` and ``hake``, which the files of vg and vaw, swig and hake name their
            images from; None = the ``IMG_ROOT`` of each YAML file, from ``root``.
        types: Keep files whose place begins with one of these, such as ``Attribute/color``; None = all.
        limit: Keep the first so many entries of each file; None = all. The published run has 1,000.

    Raises:
        MissingDataError: when a file, or all images of one, are not there.
        DataError: naming the file or entry that cannot be used.

    Source: Zhao et al. 2022 (arXiv 2207.00221).
    """
    if limit is not None and limit < 1:
        raise DataError(f"limit: got {limit}; expected at least 1, or none for all entries.")
    corpus = Path(root) / "corpus" / "v1"
    files = {
        path.relative_to(corpus).with_suffix("").as_posix(): path for path in sorted(corpus.rglob("*.yaml"))
    }
    if not files:
        raise MissingDataError(
            f"{corpus}: holds no YAML files (looked in {Path.cwd()}); put VL-CheckList's corpus/ and data/ into {root} "
            "(github.com/om-ai-lab/VL-CheckList)."
        )
    kinds = [kind for kind in files if types is None or any(_is_within(kind, one) for one in types)]
    if not kinds:
        raise DataError(
            f"types: got {list(types or ())}; expected beginnings of places such as {next(iter(files))}."
        )
    collector, choices = ImageCollector(), []
    for kind in kinds:
        annotations, folder = _sources(Path(root), files[kind], None if images is None else Path(images))
        for where, entry in read_entries(annotations, list)[:limit]:
            name, true, false = _entry(entry, where)
            image = collector.add(folder / name, key=f"{folder.name}/{name}")
            choices.append(Choice(image, true, (false,), kind))
        collector.require(source=annotations, what="the images of its source (see hypvl docs evaluation)")
    groups = {kind.split("/")[0]: None for kind in kinds} | {kind.rpartition("/")[0]: None for kind in kinds}
    means = {f"accuracy_{group}": [kind for kind in kinds if _is_within(kind, group)] for group in groups}
    return Choices(
        collector.images, choices, collector.keys, means | {"macro_accuracy": kinds}, {"limit": limit}
    )


def _is_within(kind: str, place: str) -> bool:
    return kind == place or kind.startswith(f"{place.rstrip('/')}/")


def _sources(root: Path, path: Path, images: Path | None) -> tuple[Path, Path]:
    """The list of entries that a YAML file names, and the folder of its images."""
    text = read_text(path)
    try:
        if len(text) > _LONGEST:
            raise ValueError(f"{len(text)} letters, expected a few lines")
        content = yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise DataError(f"{path}: is not valid YAML ({' '.join(str(error).split())}).") from error
    annotations = root / text_of(content, "ANNO_PATH", str(path))
    if content.get("TYPE") != "TUPLE_JSON":
        raise DataError(f"{path}: has TYPE {content.get('TYPE')!r}; expected TUPLE_JSON.")
    if images is None:
        return annotations, root / text_of(content, "IMG_ROOT", str(path))
    source = path.stem.split("_")[0]
    if source not in _FOLDERS:
        raise DataError(
            f"{path}: is of a source {source!r}; expected one of {', '.join(_FOLDERS)}, or no images folder, so that "
            "its own IMG_ROOT counts."
        )
    return annotations, images / _FOLDERS[source]


def _entry(entry: Any, where: str) -> tuple[str, str, str]:
    """(image, true text, false text)."""
    match entry:
        case [str(name), {"POS": [str(true), *_], "NEG": [str(false), *_]}]:
            return name, true, false
    raise DataError(
        f'{where}: expected [image, {{"POS": [text, …], "NEG": [text, …]}}]; got {str(entry)[:120]}'
    )

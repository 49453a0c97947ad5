"""Readers of the demo's data, which scripts/make_demo_data.py writes."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypvl.allowlist import configurable
from hypvl.datasets.catalog.entries import check_name
from hypvl.datasets.classification.folders import ImageFolderSet
from hypvl.datasets.composition.choices import Choice, Choices
from hypvl.datasets.files import read_json, require_file, require_folder
from hypvl.datasets.hierarchy.boxes import BoxedImages, boxes_from_entries
from hypvl.datasets.hierarchy.caption_chains import CaptionChains
from hypvl.datasets.images import Images, LabelledImages
from hypvl.datasets.retrieval.captioned import CaptionedImages
from hypvl.datasets.retrieval.table import table
from hypvl.errors import DataError

_MAKE_IT = "make it with scripts/make_demo_data.py"
#: Names that :func:`demo_classification_set` takes: the folders that scripts/make_demo_data.py writes.
DEMO_CLASSIFICATION_SETS: tuple[str, ...] = (
    "digits", "scenes_color_seen", "scenes_color_heldout", "scenes_shape_seen", "scenes_shape_heldout",
)  # fmt: skip


@configurable("evaluate")
def demo_classification_set(name: str, *, root: str | Path = "./datasets/demo") -> ImageFolderSet:
    """A test set of the demo data: class folders and ``classes.json`` with names and prompts.

    Args:
        name: One of :data:`DEMO_CLASSIFICATION_SETS`.
        root: What scripts/make_demo_data.py wrote.

    Raises:
        ConfigError: for an unknown name.
        MissingDataError: when it has not been made.
        DataError: when ``classes.json`` is not what it should be.
    """
    check_name(name, DEMO_CLASSIFICATION_SETS)
    folder = Path(root) / "eval" / name
    require_folder(folder, "the demo data (python scripts/make_demo_data.py)")
    content = read_json(folder / "classes.json")
    try:
        classes, prompts = {str(name): str(name) for name in content["classes"]}, dict(content["prompts"])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{folder / 'classes.json'}: lacks {error}; expected classes and prompts by class."
        ) from error
    return ImageFolderSet(folder, class_names=classes, prompts=prompts)


@configurable("evaluate")
def demo_retrieval_set(*, root: str | Path = "./datasets/demo") -> CaptionedImages:
    """Demo scenes of two objects with their full captions.

    Args:
        root: What scripts/make_demo_data.py wrote.

    Raises:
        MissingDataError: when it has not been made.
    """
    folder = Path(root) / "eval" / "retrieval"
    require_folder(folder, "the demo data (python scripts/make_demo_data.py)")
    return table(folder / "scenes.jsonl")


def read_demo(path: Path, key: str, kind: type = list) -> Any:
    """An entry of one of the demo's JSON files.

    Args:
        path: The file.
        key: Of the entry.
        kind: What the entry is; not an empty one.

    Raises:
        MissingDataError: when the file is not there.
        DataError: when it is built differently.
    """
    require_file(path, _MAKE_IT)
    try:
        content = read_json(path)
    except DataError as error:
        raise DataError(f"{str(error).rstrip('.')}; {_MAKE_IT}.") from error
    value = content.get(key) if isinstance(content, dict) else None
    if not isinstance(value, kind) or not value:
        raise DataError(f'{path}: has no {{"{key}": ...}} with entries; {_MAKE_IT}.')
    return value


@contextmanager
def _scenes(path: Path) -> Iterator[list[dict[str, Any]]]:
    """The scenes of ``hierarchy.json``; what a scene lacks inside is a DataError."""
    scenes = read_demo(path, "scenes")
    try:
        yield scenes
    except (KeyError, TypeError, IndexError) as error:
        raise DataError(f"{path}: a scene without {error}; {_MAKE_IT}.") from error


@configurable("evaluate")
def demo_boxes(root: str | Path = "./datasets/demo") -> BoxedImages:
    """The demo's test scenes of two objects, with their boxes and phrases.

    Raises:
        MissingDataError: when they have not been made.
        DataError: when the file is built differently.
    """
    path = Path(root) / "eval" / "hierarchy.json"
    with _scenes(path) as scenes:
        entries = [scene for scene in scenes if len(scene["boxes"]) > 1]
    return boxes_from_entries(path, entries, None)


@configurable("evaluate")
def demo_chains(root: str | Path = "./datasets/demo") -> CaptionChains:
    """The demo's test scenes with their chains (``eval/hierarchy.json``).

    Raises:
        MissingDataError: when they have not been made.
        DataError: when the file is built differently.
    """
    path = Path(root) / "eval" / "hierarchy.json"
    with _scenes(path) as scenes:
        names = [str(scene["image"]) for scene in scenes]
        chains = [[str(text) for text in scene["chain"]] for scene in scenes]
    return CaptionChains(Images.from_files([path.parent / name for name in names]), chains, keys=names)


@configurable("evaluate")
def demo_choices(hierarchy: str | Path) -> Choices:
    """The demo's test scenes with their hard negatives.

    Args:
        hierarchy: ``datasets/demo/eval/hierarchy.json``: ``{"scenes": [{"image", "caption", "negatives":
            [{"type", "text"}]}, ...]}``, images relative to the file.

    Raises:
        MissingDataError: when the file is not there.
        DataError: when it is built differently.
    """
    path = Path(hierarchy)
    with _scenes(path) as scenes:
        choices = [
            Choice(image, scene["caption"], (negative["text"],), negative["type"])
            for image, scene in enumerate(scenes)
            for negative in scene["negatives"]
        ]
        names = [str(scene["image"]) for scene in scenes]
    return Choices(
        Images.from_files([path.parent / name for name in names]), choices, [Path(n).stem for n in names]
    )


@dataclass(frozen=True)
class LeveledScenes:
    """Scenes and a pool of texts that have levels, 1 = the most general.

    Attributes:
        images: The scenes.
        keys: Name of each scene.
        true_texts: Of each scene, the texts that are true of it.
        levels: Level of each text of the pool.
    """

    images: Images
    keys: list[str]
    true_texts: list[frozenset[str]]
    levels: dict[str, int]


def leveled_scenes(hierarchy: str | Path, levels: str | Path, *, limit: int) -> LeveledScenes:
    """At most ``limit`` scenes, evenly spread over ``hierarchy.json``, and the pool of ``levels`` (JSON).

    Raises:
        MissingDataError: when a file is not there.
        DataError: when it is built differently.
    """
    path = Path(hierarchy)
    level_of = read_demo(Path(levels), "levels", dict)
    wrong = next((text for text, n in level_of.items() if not isinstance(n, int) or n < 1), None)
    if wrong is not None:
        raise DataError(f"{levels}: the level of {wrong!r} is {level_of[wrong]!r}; expected 1, 2, ...")
    with _scenes(path) as scenes:
        count = min(limit, len(scenes))
        chosen = [scenes[i * len(scenes) // count] for i in range(count)]
        places = [path.parent / scene["image"] for scene in chosen]
        true_texts = [
            frozenset(
                [
                    *scene["chain"],
                    *(caption["text"] for caption in scene["captions"]),
                    *(box["phrase"] for box in scene["boxes"]),
                ]
            )
            for scene in chosen
        ]
    return LeveledScenes(Images.from_files(places), [place.stem for place in places], true_texts, level_of)


@configurable("evaluate")
def demo_objects(root: str | Path = "./datasets/demo") -> LabelledImages:
    """The demo's one-object test scenes, labelled with colour and shape together ("a red circle").

    Args:
        root: What scripts/make_demo_data.py wrote.

    Raises:
        MissingDataError: when it has not been made.
        DataError: when it is built differently.
    """
    path = Path(root) / "eval" / "hierarchy.json"
    with _scenes(path) as scenes:
        single = [scene for scene in scenes if str(scene["kind"]).startswith("single")]
        paths = [path.parent / scene["image"] for scene in single]
        names = [str(scene["chain"][2]) for scene in single]  # level 3: colour and shape
    classes = sorted(set(names))
    return LabelledImages(
        Images.from_files(paths),
        [classes.index(name) for name in names],
        classes=classes,
        keys=[image.stem for image in paths],
        prompts={name: [f"this is {name}", f"{name} on paper"] for name in classes},
    )

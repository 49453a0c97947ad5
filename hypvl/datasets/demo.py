"""Readers of the demo's data, which hypvl demo-data writes.

They raise MissingDataError where it has not been made, and DataError for a file that is built differently. ``root`` is
the folder that the script was given.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypvl.allowlist import configurable
from hypvl.data.demo.captions import DIGIT_WORDS
from hypvl.datasets.catalog.entries import check_name
from hypvl.datasets.classification.folders import ImageFolderSet
from hypvl.datasets.composition.choices import Choice, Choices
from hypvl.datasets.files import read_json, require_files, require_folder
from hypvl.datasets.hierarchy.boxes import BoxedImages, boxes_from_entries
from hypvl.datasets.hierarchy.caption_chains import CaptionChains
from hypvl.datasets.images import Images, LabelledImages, TarMembers
from hypvl.datasets.retrieval.captioned import CaptionedImages
from hypvl.datasets.retrieval.table import table
from hypvl.errors import DataError
from hypvl.io.json_text import expecting, parse_json

_MAKE_IT = "make it with hypvl demo-data"
_SCENES = "scenes as hypvl demo-data writes them"
#: Names that :func:`demo_classification_set` takes: the folders that hypvl demo-data writes.
DEMO_CLASSIFICATION_SETS: tuple[str, ...] = (
    "digits", "scenes_color_seen", "scenes_color_heldout", "scenes_shape_seen", "scenes_shape_heldout",
)  # fmt: skip


@configurable("evaluate", "dataset")
def demo_classification_set(name: str, *, root: str | Path = "./datasets/demo") -> ImageFolderSet:
    """A test set of the demo data: class folders and ``classes.json`` with names and prompts.

    Args:
        name: One of :data:`DEMO_CLASSIFICATION_SETS`.

    Raises:
        ConfigError: for an unknown name.
    """
    check_name(name, DEMO_CLASSIFICATION_SETS)
    folder = Path(root) / "eval" / name
    require_folder(folder, "the demo data (hypvl demo-data)")
    content = read_json(folder / "classes.json", _MAKE_IT)
    with expecting(folder / "classes.json", "classes and prompts by class"):
        classes, prompts = {str(name): str(name) for name in content["classes"]}, dict(content["prompts"])
    return ImageFolderSet(folder, class_names=classes, prompts=prompts)


@configurable("evaluate", "dataset")
def demo_training_set(name: str, *, root: str | Path = "./datasets/demo") -> LabelledImages:
    """The demo's training images with the classes of a test set, for probes: digits, or scenes of one object.

    Args:
        name: One of :data:`DEMO_CLASSIFICATION_SETS`; ``_seen`` and ``_heldout`` have the same training images.

    Raises:
        ConfigError: for an unknown name.
    """
    check_name(name, DEMO_CLASSIFICATION_SETS)
    task = name.split("_")[-2] if "_" in name else name  # digits, color or shape
    folder = Path(root)
    require_folder(folder / "train", "the demo data (hypvl demo-data)")
    path = folder / "eval" / name / "classes.json"
    with expecting(path, "classes and prompts by class"):
        classes = [str(name) for name in read_json(path, _MAKE_IT)["classes"]]
    kind = "digits" if task == "digits" else "scenes"
    members = TarMembers(sorted((folder / "train").glob(f"{kind}-*.tar")))
    places, labels = [], []
    for i in range(len(members)):
        with expecting(members.key(i), "the samples of hypvl demo-data"):
            notes = parse_json(members.read(i, "json"))
            if kind == "scenes" and len(notes["objects"]) > 1:
                continue
            value = DIGIT_WORDS[notes["digit"]] if kind == "digits" else notes["objects"][0][task]
            labels.append(classes.index(value))
        places.append(i)
    if not places:
        raise DataError(f"{folder / 'train'}: holds no {kind} with labels; {_MAKE_IT}.")
    return LabelledImages(
        Images(members, places), labels, classes=classes, keys=[members.key(i) for i in places]
    )


@configurable("evaluate")
def demo_retrieval_set(*, root: str | Path = "./datasets/demo") -> CaptionedImages:
    """Demo scenes of two objects with their full captions."""
    folder = Path(root) / "eval" / "retrieval"
    require_folder(folder, "the demo data (hypvl demo-data)")
    return table(folder / "scenes.jsonl")


def _entry(path: Path, key: str, kind: type = list) -> Any:
    """An entry of one of the demo's JSON files, of a kind and not empty."""
    require_files([path], _MAKE_IT)
    content = read_json(path, _MAKE_IT)
    value = content.get(key) if isinstance(content, dict) else None
    if not isinstance(value, kind) or not value:
        raise DataError(f'{path}: has no {{"{key}": ...}} with entries; {_MAKE_IT}.')
    return value


@configurable("evaluate")
def demo_boxes(root: str | Path = "./datasets/demo") -> BoxedImages:
    """The demo's test scenes of two objects, with their boxes and phrases."""
    path = Path(root) / "eval" / "hierarchy.json"
    with expecting(path, _SCENES):
        entries = [scene for scene in _entry(path, "scenes") if len(scene["boxes"]) > 1]
    return boxes_from_entries(path, entries, None)


@configurable("evaluate")
def demo_chains(root: str | Path = "./datasets/demo") -> CaptionChains:
    """The demo's test scenes with their chains of captions."""
    path = Path(root) / "eval" / "hierarchy.json"
    with expecting(path, _SCENES):
        scenes = [(str(scene["image"]), list(map(str, scene["chain"]))) for scene in _entry(path, "scenes")]
    names, chains = zip(*scenes, strict=True)
    return CaptionChains(Images.from_files([path.parent / name for name in names]), chains, keys=names)


@configurable("evaluate")
def demo_choices(hierarchy: str | Path) -> Choices:
    """The demo's test scenes with their hard negatives.

    Args:
        hierarchy: ``datasets/demo/eval/hierarchy.json``: ``{"scenes": [{"image", "caption", "negatives":
            [{"type", "text"}]}, ...]}``, images relative to the file.
    """
    path = Path(hierarchy)
    scenes = _entry(path, "scenes")
    with expecting(path, _SCENES):
        choices = [
            Choice(image, scene["caption"], (negative["text"],), negative["type"])
            for image, scene in enumerate(scenes)
            for negative in scene["negatives"]
        ]
        images = [path.parent / str(scene["image"]) for scene in scenes]
    return Choices(Images.from_files(images), choices, [image.stem for image in images])


@dataclass(frozen=True)
class LeveledScenes:
    """Scenes and a pool of texts that have levels, 1 = the most general."""

    images: Images  # the scenes
    keys: list[str]  # name of each scene
    true_texts: list[frozenset[str]]  # of each scene, the texts that are true of it
    levels: dict[str, int]  # of each text of the pool


def leveled_scenes(hierarchy: str | Path, levels: str | Path, *, limit: int) -> LeveledScenes:
    """At most ``limit`` scenes, evenly spread over ``hierarchy.json``, and the pool of ``levels`` (JSON)."""
    path = Path(hierarchy)
    level_of = _entry(Path(levels), "levels", dict)
    wrong = next((text for text, n in level_of.items() if not isinstance(n, int) or n < 1), None)
    if wrong is not None:
        raise DataError(f"{levels}: the level of {wrong!r} is {level_of[wrong]!r}; expected 1, 2, ...")
    scenes = _entry(path, "scenes")
    count = min(limit, len(scenes))
    places, true_texts = [], []
    for scene in (scenes[i * len(scenes) // count] for i in range(count)):
        with expecting(path, _SCENES):
            places.append(path.parent / scene["image"])
            captions = [caption["text"] for caption in scene["captions"]]
            phrases = [box["phrase"] for box in scene["boxes"]]
            true_texts.append(frozenset([*scene["chain"], *captions, *phrases]))
    return LeveledScenes(Images.from_files(places), [place.stem for place in places], true_texts, level_of)


@configurable("evaluate")
def demo_objects(root: str | Path = "./datasets/demo") -> LabelledImages:
    """The demo's one-object test scenes, labelled with colour and shape together ("a red circle")."""
    path = Path(root) / "eval" / "hierarchy.json"
    with expecting(path, _SCENES):
        single = [scene for scene in _entry(path, "scenes") if str(scene["kind"]).startswith("single")]
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

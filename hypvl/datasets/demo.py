"""Readers of the demo's data, which scripts/make_demo_data.py writes."""

from pathlib import Path

from hypvl.allowlist import configurable
from hypvl.datasets.catalog.entries import check_name
from hypvl.datasets.classification.folders import ImageFolderSet
from hypvl.datasets.files import read_json, require_folder
from hypvl.datasets.hierarchy.boxes import BoxedImages, _from_entries
from hypvl.datasets.hierarchy.caption_chains import CaptionChains
from hypvl.datasets.images import FileImages
from hypvl.datasets.retrieval.captioned import CaptionedImages
from hypvl.datasets.retrieval.table import jsonl
from hypvl.errors import DataError, MissingDataError
from hypvl.io.json_text import parse_json

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
    return jsonl(folder / "scenes.jsonl")


@configurable("evaluate")
def demo_boxes(root: str | Path = "./datasets/demo") -> BoxedImages:
    """The demo's test scenes of two objects, with their boxes and phrases.

    Raises:
        MissingDataError: when they have not been made.
        DataError: when the file is built differently.
    """
    path = Path(root) / "eval" / "hierarchy.json"
    if not path.is_file():
        raise MissingDataError(f"{path}: is not there; make it with scripts/make_demo_data.py.")
    content = read_json(path)
    try:
        entries = [scene for scene in content["scenes"] if len(scene["boxes"]) > 1]
    except (KeyError, TypeError) as error:
        raise DataError(f"{path}: lacks {error}; make it with scripts/make_demo_data.py.") from error
    return _from_entries(path, entries, None)


@configurable("evaluate")
def demo_chains(root: str | Path = "./datasets/demo") -> CaptionChains:
    """The demo's test scenes with their chains (``eval/hierarchy.json``).

    Raises:
        MissingDataError: when they have not been made.
        DataError: when the file is built differently.
    """
    path = Path(root) / "eval" / "hierarchy.json"
    if not path.is_file():
        raise MissingDataError(f"{path}: is not there; make it with scripts/make_demo_data.py.")
    try:
        scenes = parse_json(path.read_text(encoding="utf-8"))["scenes"]
        names = [str(scene["image"]) for scene in scenes]
        chains = [[str(text) for text in scene["chain"]] for scene in scenes]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: cannot be read as scenes with chains ({error}); make it with scripts/make_demo_data.py."
        ) from error
    return CaptionChains(FileImages([path.parent / name for name in names]), chains, keys=names)

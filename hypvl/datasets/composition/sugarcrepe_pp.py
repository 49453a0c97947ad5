"""Reader of SugarCrepe++: two captions that mean the same and a false one with nearly the same words."""

from collections.abc import Sequence
from pathlib import Path

from hypvl.allowlist import configurable
from hypvl.datasets.composition.choices import ImageCollector, Paraphrase, Paraphrases
from hypvl.datasets.files import read_json, text_of
from hypvl.errors import DataError, MissingDataError

#: Kinds, and what the file of each may be called, without ``.json``.
KINDS = {
    "swap_object": ("swap_object", "swap_obj"),
    "swap_attribute": ("swap_attribute", "swap_atribute", "swap_att"),
    "replace_object": ("replace_object", "replace_obj"),
    "replace_attribute": ("replace_attribute", "replace_att"),
    "replace_relation": ("replace_relation", "replace_rel"),
}


@configurable("evaluate")
def sugarcrepe_pp(
    root: str | Path, *, images: str | Path, kinds: Sequence[str] = tuple(KINDS)
) -> Paraphrases:
    """SugarCrepe++: ``root/data/<kind>.json``, also without ``data/``.

    A file is a list, or an object by number, of ``{"filename", "caption", "caption2", "negative_caption"}``. The short
    names of SugarCrepe (``swap_obj.json``) are read too.

    Args:
        images: Folder of COCO val2017's images.
        kinds: Which of the five, at least one.

    Raises:
        MissingDataError: when a file or all images are not there.
        DataError: naming the entry that cannot be used.

    Source: Dumpala et al. 2024 (arXiv 2406.11171).
    """
    if not kinds or not set(kinds) <= set(KINDS):
        raise DataError(f"kinds: got {list(kinds)}; expected some of {', '.join(KINDS)}.")
    folder = Path(root) / "data" if (Path(root) / "data").is_dir() else Path(root)
    collector, paraphrases = ImageCollector(), []
    for kind in kinds:
        path = _file(folder, kind)
        content = read_json(path)
        entries = list(content.values()) if isinstance(content, dict) else content
        if not isinstance(entries, list) or not entries:
            raise DataError(f"{path}: expected a list of at least one entry; got {str(content)[:80]}")
        for number, entry in enumerate(entries):
            where = f"{path}, entry {number}"
            name = text_of(entry, "filename", where)
            image = collector.add(Path(images) / name, key=name)
            captions = text_of(entry, "caption", where), text_of(entry, "caption2", where)
            paraphrases.append(Paraphrase(image, captions, text_of(entry, "negative_caption", where), kind))
    collector.require(source=folder, what="COCO's val2017 (images.cocodataset.org)")
    return Paraphrases(collector.images, paraphrases, collector.keys)


def _file(folder: Path, kind: str) -> Path:
    places = [folder / f"{name}.json" for name in KINDS[kind]]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise MissingDataError(
            f"{folder}: lacks {' or '.join(place.name for place in places)} (looked in {Path.cwd()}); put "
            "SugarCrepe++'s JSON files there (huggingface.co/datasets/Aman-J/SugarCrepe_pp), or leave the kind out of "
            "kinds."
        )
    return path

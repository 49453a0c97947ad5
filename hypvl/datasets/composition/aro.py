"""Readers of ARO: relations and attributes of Visual Genome, the order of words in COCO and Flickr30k captions.

``download`` fetches what is missing into the set's folder. The readers raise MissingDataError when files, or all
images, are not there, and DataError, naming the entry, for what cannot be used.

Source: Yuksekgonul et al. 2023, "When and why vision-language models behave like bags-of-words" (arXiv 2210.01936).
"""

import importlib.resources
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hypvl.allowlist import configurable
from hypvl.datasets.catalog.fetching import require_published
from hypvl.datasets.composition.choices import Choice, Choices, ImageCollector
from hypvl.datasets.composition.word_order import Tagger, plain_caption, shuffles
from hypvl.datasets.files import integer_of, read_entries, text_of
from hypvl.datasets.images import Box
from hypvl.errors import DataError, MissingDataError
from hypvl.io.json_text import parse_json
from hypvl.negatives.backends.base import BuiltinBackend
from hypvl.negatives.backends.taggers import SpacyTagger

RELATIONS, ATTRIBUTES = "visual_genome_relation.json", "visual_genome_attribution.json"
_ORDER_FILES = {"coco_karpathy_test.json": "coco_order", "flickr30k_test.json": "flickr30k_order"}


@configurable("evaluate")
def relations(root: str | Path, *, left_out: Sequence[str] | None = None, download: bool = False) -> Choices:
    """VG-Relation: "the horse is eating the grass" against "the grass is eating the horse".

    ``root/visual_genome_relation.json``, a list of ``{image_path, bbox_x, bbox_y, bbox_w, bbox_h, true_caption,
    false_caption, relation_name}``, and ``root/images/``. Images are cut to their box. ``macro_accuracy`` is the
    mean over relations.

    Args:
        left_out: Relations whose cases do not count, because they are symmetrical or rare; None = the published
            list, after which 48 relations are left.
    """
    excluded = set(published_left_out() if left_out is None else left_out)
    cases = [
        (where, entry, text_of(entry, "relation_name", where))
        for where, entry in _cases(Path(root), RELATIONS, download=download)
    ]
    retained = [case for case in cases if case[2] not in excluded]
    meta = {
        "left_out": len(cases) - len(retained),
        "left_out_relations": len({kind for _, _, kind in cases} & excluded),
        "published_cases": 23937,
        "published_kinds": 48,
    }
    return _choices(Path(root), RELATIONS, retained, minimum=1, meta=meta)


@configurable("evaluate")
def attributes(root: str | Path, *, min_cases: int = 25, download: bool = False) -> Choices:
    """VG-Attribution: "the paved road and the white house" against "the white road and the paved house".

    ``root/visual_genome_attribution.json``, a list as that of :func:`relations` with ``attributes: [a, b]``.
    ``macro_accuracy`` is the mean over pairs of attributes ``a_b`` that have enough cases.

    Args:
        min_cases: Cases a pair must have to count in the mean; those of other pairs count in ``accuracy`` only.
    """
    cases = []
    for where, entry in _cases(Path(root), ATTRIBUTES, download=download):
        pair = entry.get("attributes")
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(word, str) for word in pair):
            raise DataError(
                f"{where}: has no pair of attributes; got {pair!r}, expected a list of two texts."
            )
        cases.append((where, entry, "_".join(pair)))
    meta = {"min_cases": min_cases, "published_cases": 28748, "published_kinds": 117}
    return _choices(Path(root), ATTRIBUTES, cases, minimum=min_cases, meta=meta)


@configurable("evaluate")
def order(
    annotations: str | Path,
    *,
    root: str | Path | None = None,
    images: str | Path | None = None,
    seed: int = 0,
    tagger: Tagger | None = None,
    download: bool = False,
) -> Choices:
    """COCO order and Flickr30k order: a caption against its words in up to four wrong orders.

    The file is a list of ``{"image": "val2014/COCO_val2014_….jpg", "caption": ["…", …]}`` (Karpathy's test split as
    BLIP and ARO have it), whose captions are shuffled here, in the same way for the same seed; or a list of
    ``{"image_path" or "image", "caption_options": [the true one, false ones …]}``, already shuffled, which is read as
    it is.

    Args:
        root: Folder that images are named from; None = the folder of the file.
        images: Folder that holds the images by their base name, in place of ``root``; None = by ``root``.
        seed: Of the shuffles.
        tagger: Finds the nouns and adjectives; None = by hypvl's word lists, whose orders are not those of the
            published task: ``meta["approximate"]`` says so, and so does every table. For the published task give, in
            a Python config, :class:`hypvl.negatives.backends.taggers.SpacyTagger` of "en_core_web_sm".
        download: See the module; the file under one of its published names, no images.
    """
    path = Path(annotations)
    if not path.is_file():
        if path.name not in _ORDER_FILES:
            raise MissingDataError(
                f"{path}: is not there (looked in {Path.cwd()}); expected {' or '.join(_ORDER_FILES)}, or a file of "
                "your own."
            )
        require_published(_ORDER_FILES[path.name], path.parent, [path.name], download_missing=download)
    folder = path.parent if root is None else Path(root)
    collector = ImageCollector()
    asked: list[tuple[int, str, dict[str, str]]] = []  # image, caption, foils by kind
    plain: list[tuple[int, str]] = []
    for where, entry in read_entries(path, list):
        made = isinstance(entry, dict) and "caption_options" in entry
        name = text_of(entry, "image_path" if made and "image_path" in entry else "image", where)
        file = folder / name if images is None else Path(images) / Path(name).name
        image = collector.add(file, key=name)
        texts = entry.get("caption_options" if made else "caption")
        texts = [texts] if isinstance(texts, str) else texts
        if not isinstance(texts, list) or len(texts) < 1 + made or not all(isinstance(t, str) for t in texts):
            raise DataError(
                f"{where}: expected a list of texts as {'caption_options' if made else 'caption'}; got "
                f"{str(texts)[:80]}"
            )
        if made:
            asked.append((image, texts[0], {str(i): text for i, text in enumerate(texts[1:])}))
        else:
            plain += [(image, plain_caption(text)) for text in texts]
    tagged = (BuiltinBackend().tag if tagger is None else tagger)([text for _, text in plain])
    for position, ((image, text), words) in enumerate(zip(plain, tagged, strict=True)):
        asked.append((image, text, shuffles(text, words, seed=seed, position=position)))
    choices = [_order_choice(*one) for one in asked if one[2]]
    if not choices:
        raise DataError(f"{path}: has no caption that has another order; expected captions of several words.")
    collector.require(source=path, what="the images of the set")
    meta: dict[str, Any] = {"seed": seed, "without_foils": len(asked) - len(choices)}
    if plain and not isinstance(tagger, SpacyTagger):
        meta["approximate"] = "nouns and adjectives are not found by spaCy, so that the orders are others"
    return Choices(collector.images, choices, collector.keys, meta=meta)


def published_left_out() -> list[str]:
    """Relations that the published evaluation of VG-Relation does not count."""
    file = importlib.resources.files(__package__) / "aro_relations_left_out.json"
    names: list[str] = parse_json(file.read_text("utf-8"))["relations"]
    return names


def _order_choice(image: int, caption: str, foils: dict[str, str]) -> Choice:
    """A choice of a caption and its shuffles; of equal shuffles the first counts."""
    once = {text: kind for kind, text in reversed(foils.items())}
    texts = tuple(text for kind, text in foils.items() if once[text] == kind)
    named = not any(kind.isdigit() for kind in foils)
    return Choice(image, caption, texts, "order", tuple(once[text] for text in texts) if named else ())


def _cases(root: Path, name: str, *, download: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, entry) of each case of Visual Genome."""
    require_published("aro", root, [name, "images"], download_missing=download)
    for where, entry in read_entries(root / name, list):
        if not isinstance(entry, dict):
            raise DataError(f"{where}: expected an object; got {str(entry)[:80]}")
        yield where, entry


def _choices(
    root: Path,
    name: str,
    cases: Sequence[tuple[str, dict[str, Any], str]],
    *,
    minimum: int,
    meta: dict[str, Any],
) -> Choices:
    """Choices of cases (place, entry, kind), with the mean over the kinds that have ``minimum`` cases."""
    collector, choices = ImageCollector(), []
    for where, entry, kind in cases:
        file_name = text_of(entry, "image_path", where)
        x, y, w, h = (integer_of(entry, f"bbox_{side}", where) for side in "xywh")
        image = collector.add(
            root / "images" / file_name,
            key=f"{file_name} {x},{y},{w},{h}",
            box=Box.from_xywh(x, y, w, h),
        )
        foil = text_of(entry, "false_caption", where)
        choices.append(Choice(image, text_of(entry, "true_caption", where), (foil,), kind))
    counts = Counter(choice.kind for choice in choices)
    means = sorted(kind for kind, count in counts.items() if count >= minimum)
    if not means:
        raise DataError(
            f"{root / name}: has no kind with {minimum} cases among the {len(choices)} that count; expected the "
            "published file, or a smaller min_cases."
        )
    collector.require(source=root / name, what="ARO's images")
    meta |= {"kinds": len(counts), "kinds_in_mean": len(means)}
    if len(means) != meta["published_kinds"]:
        meta["approximate"] = (
            f"the mean is over {len(means)} kinds, the published one over {meta['published_kinds']}"
        )
    return Choices(collector.images, choices, collector.keys, {"macro_accuracy": means}, meta)

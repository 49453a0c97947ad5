"""Readers of captions to be scored: Flickr8k with the ratings of people, and your own captions of images.

They raise MissingDataError when files are not there, and DataError when they have another layout.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

from hypvl.allowlist import configurable
from hypvl.checks import one_of
from hypvl.datasets.files import read_json, read_lines, require_folder, require_images
from hypvl.datasets.images import Images, ImagesByStem
from hypvl.datasets.protocol import ImageSource
from hypvl.errors import DataError, MissingDataError
from hypvl.io.files import is_file
from hypvl.io.json_text import expecting

Ratings: TypeAlias = Literal["expert", "crowdflower"]

_JSON = {"expert": "flickr8k.json", "crowdflower": "crowdflower_flickr8k.json"}
_TEXT = {"expert": "ExpertAnnotations.txt", "crowdflower": "CrowdFlowerAnnotations.txt"}
_CAPTIONS = "Flickr8k.token.txt"


@dataclass(frozen=True)
class JudgedCaptions:
    """Captions of images with references and, for some sets, ratings; one caption a row."""

    images: ImageSource
    keys: Sequence[str]  # a name for each image
    image: Sequence[int]  # position of the image of each row
    captions: Sequence[str]  # of each row, to be scored
    # What people wrote about the image of each row, at least one text; None = there are none.
    references: Sequence[Sequence[str]] | None
    ratings: Sequence[float] | None  # of the caption of each row, higher = better; None = there are none
    # The name of the file, and how many rows were left out.
    notes: dict[str, Any] = field(default_factory=dict)


class _Judgement(NamedTuple):
    image_name: str
    caption: str
    references: tuple[str, ...]
    rating: float


@configurable("evaluate")
def flickr8k(root: str | Path, *, ratings: Ratings) -> JudgedCaptions:
    """Flickr8k-Expert or Flickr8k-CF, from either of its two published layouts; the JSON file where both are there.

    - ``flickr8k.json``, ``crowdflower_flickr8k.json`` (of CLIPScore and PAC-S): ``{id: {"image_path", "ground_truth":
      [references], "human_judgement": [{"caption", "rating"}]}}``;
    - the release itself: ``ExpertAnnotations.txt`` (image, caption id, three ratings), ``CrowdFlowerAnnotations.txt``
      (image, caption id, share of yes, yes, no), with ``Flickr8k.token.txt`` (caption id, caption), tabs between.

    Images lie in ``root/images`` or ``root/Flicker8k_Dataset``. One row per judgement: three for each caption of
    the experts (1 … 4), one for the crowd (the share of yes, 0 … 1). White space becomes single spaces. Ratings that
    are NaN are left out. A caption that is a reference of its image is left out of the experts' rows, and out of
    the references in the crowd's.

    Source: Hodosh et al. 2013; rules as CLIPScore (arXiv 2104.08718) and PAC-S (arXiv 2303.12112).
    """
    one_of("ratings", ratings, Ratings)
    root = Path(root)
    json_file = root / _JSON[ratings]
    texts = (root / _TEXT[ratings], root / _CAPTIONS)
    if json_file.is_file():
        rows, source = _from_json(json_file), json_file
    elif all(path.is_file() for path in texts):
        rows, source = _from_text(*texts), texts[0]
    else:
        raise MissingDataError(
            f"{root}: has neither {json_file.name} (data of the CLIPScore or PAC-S repository) nor {texts[0].name} "
            f"with {texts[1].name} (Flickr8k_text.zip); put either there, and the images into images/."
        )
    places = (root / "images", root / "Flicker8k_Dataset")
    folder = next((place for place in places if place.is_dir()), places[0])
    require_folder(folder, "the images of Flickr8k")
    retained: list[_Judgement] = []
    left_out = {"ratings_that_are_nan": 0, "captions_that_are_references": 0}
    for row in rows:
        if math.isnan(row.rating):
            left_out["ratings_that_are_nan"] += 1
        elif row.caption not in row.references:
            retained.append(row)
        elif ratings == "expert":
            left_out["captions_that_are_references"] += 1
        else:
            others = tuple(reference for reference in row.references if reference != row.caption)
            retained.append(row._replace(references=others))
    if not retained:
        raise DataError(f"{source}: has no judgement that can be used; expected at least one.")
    alone = next((row for row in retained if not row.references), None)
    if alone is not None:
        raise DataError(
            f"{source}: {alone.image_name} has no references beside the caption {alone.caption[:40]!r}; "
            "expected at least one."
        )
    return _captions(retained, folder, source, notes=left_out)


def _from_json(path: Path) -> list[_Judgement]:
    layout = "an object of images with image_path, ground_truth and human_judgement"
    content = read_json(path)
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds {type(content).__name__}; expected {layout}.")
    rows = []
    with expecting(path, layout):
        for entry in content.values():
            image_name = Path(entry["image_path"]).name
            references = tuple(_plain(text) for text in entry["ground_truth"])
            rows += [
                _Judgement(image_name, _plain(judged["caption"]), references, float(judged["rating"]))
                for judged in entry["human_judgement"]
            ]
    return rows


def _from_text(judgements: Path, captions: Path) -> list[_Judgement]:
    caption_of: dict[str, str] = {}
    references: dict[str, list[str]] = {}
    for number, (key, text) in enumerate(_columns(captions, 2), start=1):
        if caption_of.setdefault(key, _plain(text)) != _plain(text):
            raise DataError(
                f"{captions}, line {number}: has {key} twice, with another caption; copy the file again."
            )
        references.setdefault(key.rpartition("#")[0], []).append(caption_of[key])
    rows = []
    for number, (image_name, key, *numbers) in enumerate(_columns(judgements, 5), start=1):
        where = f"{judgements}, line {number}"
        if image_name not in references or key not in caption_of:
            raise DataError(
                f"{where}: {image_name} or {key} is not in {captions.name}; copy both files again."
            )
        # The experts gave three ratings; of the crowd there is the share of yes, then the counts.
        ratings = numbers if judgements.name == _TEXT["expert"] else numbers[:1]
        with expecting(where, "ratings"):
            rows += [
                _Judgement(image_name, caption_of[key], tuple(references[image_name]), float(rating))
                for rating in ratings
            ]
    return rows


def _columns(path: Path, count: int) -> list[list[str]]:
    rows = [line.split("\t") for line in read_lines(path)]
    for number, row in enumerate(rows, start=1):
        if len(row) != count:
            raise DataError(
                f"{path}, line {number}: has {len(row)} columns; expected {count} with tabs between."
            )
    return rows


@configurable("evaluate")
def captions_of(
    candidates: str | Path, *, images: str | Path, references: str | Path | None = None
) -> JudgedCaptions:
    """Captions to be scored: a JSON object of image name -> caption, and one of image name -> list of references.

    Args:
        candidates: ``{"image1": "a caption"}``; a name is a file in ``images``, with or without its extension.
        images: Folder of the images.
        references: ``{"image1": ["a reference", ...]}``, each candidate's image in it; None = there are none.
    """
    path, folder = Path(candidates), Path(images)
    content = read_json(path)
    texts = content.values() if isinstance(content, dict) else ()
    if not texts or not all(isinstance(text, str) for text in texts):
        raise DataError(f"{path}: expected an object of image names with a caption each, at least one.")
    require_folder(folder, f"the images of {path.name}")
    image_names = ImagesByStem(folder)
    known = {} if references is None else read_json(Path(references))
    rows: list[_Judgement] = []
    for name, caption in content.items():
        own = known.get(name) if isinstance(known, dict) else None
        if references is not None and (not isinstance(own, list) or not own):
            raise DataError(f"{references}: has no list of references for {name!r}, which {path.name} names.")
        by_stem = None if is_file(folder / name) else image_names.get(name)
        file = name if by_stem is None else by_stem.name
        rows.append(_Judgement(file, _plain(caption), tuple(_plain(text) for text in own or ()), math.nan))
    captions = _captions(rows, folder, path)
    return replace(captions, ratings=None, references=None if references is None else captions.references)


def _captions(
    rows: Sequence[_Judgement], folder: Path, source: Path, *, notes: Mapping[str, Any] | None = None
) -> JudgedCaptions:
    names = list(dict.fromkeys(row.image_name for row in rows))
    place = {name: i for i, name in enumerate(names)}
    paths = [folder / name for name in names]
    require_images(paths, source=source)
    return JudgedCaptions(
        images=Images.from_files(paths),
        keys=names,
        image=[place[row.image_name] for row in rows],
        captions=[row.caption for row in rows],
        references=[row.references for row in rows],
        ratings=[row.rating for row in rows],
        notes={"source": source.name, **(notes or {})},
    )


def _plain(text: str) -> str:
    return " ".join(text.split())

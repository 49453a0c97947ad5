"""Reader of SNLI-VE: hypotheses about images, with the captions that were the premises in SNLI."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from hypvl.allowlist import configurable
from hypvl.checks import one_of
from hypvl.datasets.files import open_table, require_files, require_images, text_of
from hypvl.datasets.images import Images
from hypvl.datasets.protocol import ImageSource
from hypvl.datasets.text.pairs import plain
from hypvl.errors import DataError

#: Labels, in the order of the classes.
LABELS = ("entailment", "neutral", "contradiction")


@dataclass(frozen=True)
class EntailmentSet:
    """Premises, in words and as an image, and hypotheses; one pair a row."""

    premises: Sequence[str]
    hypotheses: Sequence[str]
    labels: Sequence[int]  # position in LABELS
    images: ImageSource | None  # the premises as images; None = without
    keys: Sequence[str]  # names of the images
    image: Sequence[int]  # position of the image of each row
    notes: dict[str, Any] = field(default_factory=dict)  # how many rows were left out


@configurable("evaluate")
def snli_ve(
    root: str | Path, *, split: Literal["train", "dev", "test"], images: str | Path | None = None
) -> EntailmentSet:
    """SNLI-VE: ``root/snli_ve_test.jsonl``, lines with ``Flickr30K_ID``, ``sentence1``, ``sentence2``, ``gold_label``.

    ``sentence1`` is the caption (premise), ``sentence2`` the hypothesis. Rows whose label is ``-`` (no agreement) are
    left out.

    Args:
        root: Folder of the three files.
        split: Which file.
        images: Folder of Flickr30k's images, ``<Flickr30K_ID>.jpg``; None = premises are captions only.

    Raises:
        MissingDataError: when the file, or every image, is not there.
        DataError: for another layout.

    Source: Xie et al. 2019 (arXiv 1901.06706).
    """
    one_of("split", split, ("train", "dev", "test"))
    path = Path(root) / f"snli_ve_{split}.jsonl"
    require_files([path], "put the three files of SNLI-VE there")
    premises, hypotheses, labels, names, undecided = [], [], [], [], 0
    for place, entry in open_table(path).usable_rows():
        where = f"{path}, {place}"
        label = text_of(entry, "gold_label", where)
        if label == "-":
            undecided += 1
            continue
        if label not in LABELS:
            raise DataError(f"{where}: gold_label is {label[:40]!r}; expected one of {', '.join(LABELS)}.")
        premises.append(plain(text_of(entry, "sentence1", where)))
        hypotheses.append(plain(text_of(entry, "sentence2", where)))
        labels.append(LABELS.index(label))
        names.append(str(entry.get("Flickr30K_ID", "")))
    if not labels:
        raise DataError(f"{path}: has no rows with a label; expected some.")
    keys = list(dict.fromkeys(names))
    position = {name: i for i, name in enumerate(keys)}
    source = None
    if images is not None:
        if "" in position:
            raise DataError(f"{path}: has a row without Flickr30K_ID; copy the file again.")
        files = [
            Path(images) / name if name.endswith(".jpg") else Path(images) / f"{name}.jpg" for name in keys
        ]
        require_images(files, source=path, what="the images of Flickr30k")
        source = Images.from_files(files)
    return EntailmentSet(
        premises,
        hypotheses,
        labels,
        source,
        keys,
        [position[name] for name in names],
        notes={"rows_without_agreement": undecided},
    )

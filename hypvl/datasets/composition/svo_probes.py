"""Reader of SVO-Probes: a sentence, its image, and an image with another subject, verb or object."""

from pathlib import Path

from hypvl.allowlist import configurable
from hypvl.datasets.composition.choices import CaptionQueries, CaptionQuery, ImageCollector
from hypvl.datasets.files import open_table, require_folder, text_of
from hypvl.datasets.images import ImagesByStem
from hypvl.errors import DataError, MissingDataError

_KINDS = {"subj_neg": "subject", "verb_neg": "verb", "obj_neg": "object"}


@configurable("evaluate")
def svo_probes(root: str | Path, *, images: str | Path | None = None) -> CaptionQueries:
    """SVO-Probes: ``root/svo_probes.csv`` and the images ``<image id>.<extension>``, which everyone downloads alone.

    A row has ``sentence``, ``pos_image_id``, ``neg_image_id`` and ``subj_neg``, ``verb_neg``, ``obj_neg``, one of which
    is true: the kind. Rows one of whose images is not there are left out, because many addresses are gone;
    ``meta["left_out"]`` counts them.

    Args:
        root: Folder of the CSV.
        images: Folder of the images; None = ``root/images``.

    Raises:
        MissingDataError: when the file, or the images of all rows, are not there.
        DataError: naming the row that cannot be used.

    Source: Hendricks and Nematzadeh 2021 (arXiv 2106.09141). Differs: a sentence chooses between two images, as CLIP is
        usually evaluated; the paper classifies each image and sentence as matching or not.
    """
    path = Path(root) / "svo_probes.csv"
    folder = Path(root) / "images" if images is None else Path(images)
    table = open_table(path)
    require_folder(folder, "the images of SVO-Probes, <image id>.jpg (github.com/google-deepmind/svo_probes)")
    files = ImagesByStem(folder)
    collector, queries, left_out = ImageCollector(), [], 0
    for place, row in table.usable_rows():
        where = f"{path}, {place}"
        kinds = [kind for field, kind in _KINDS.items() if str(row.get(field)).lower() in ("true", "1")]
        if len(kinds) != 1:
            raise DataError(f"{where}: {len(kinds)} of {', '.join(_KINDS)} are true; expected one.")
        sentence = text_of(row, "sentence", where)
        names = [str(row.get(field)) for field in ("pos_image_id", "neg_image_id")]
        own, other = (files.get(name) for name in names)
        if own is None or other is None:
            left_out += 1
            continue
        image, false = (collector.add(file, key=file.name) for file in (own, other))
        queries.append(CaptionQuery(sentence, image, (false,), kinds[0]))
    if not queries:
        raise MissingDataError(
            f"{path}: none of its {left_out} rows has both images in {folder}; download them by the addresses of the "
            "file and call them <image id>.jpg."
        )
    return CaptionQueries(collector.images, queries, collector.keys, meta={"left_out": left_out})

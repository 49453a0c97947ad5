"""Reader of NegBench's multiple choices: captions that say what is, and what is not, in an image."""

from pathlib import Path

from hypvl.allowlist import configurable
from hypvl.checks import natural_number
from hypvl.datasets.composition.choices import Choice, Choices, ImageCollector
from hypvl.datasets.files import image_place, open_table, text_of
from hypvl.errors import DataError

_OPTIONS = tuple(f"caption_{i}" for i in range(4))


@configurable("evaluate")
def negbench(path: str | Path, *, images: str | Path) -> Choices:
    """NegBench-MCQ: a CSV with ``image_path, correct_answer, caption_0 … caption_3, correct_answer_template``.

    ``correct_answer`` is the number of the true caption, 0 to 3. The kind is ``correct_answer_template`` (positive,
    negative or hybrid) where there is such a column, else ``mcq``.

    Args:
        path: The CSV.
        images: Folder of the images, which are found by their file names.

    Raises:
        MissingDataError: when the file or all images are not there.
        DataError: naming the row that cannot be used.

    Source: Alhamoud et al. 2025 (arXiv 2501.09425), section 3.
    """
    path = Path(path)
    collector, choices = ImageCollector(), []
    for place, row in open_table(path).usable_rows():
        where = f"{path}, {place}"
        name = text_of(row, "image_path", where).rpartition("/")[2]
        captions = [text_of(row, option, where) for option in _OPTIONS]
        right = natural_number(str(row.get("correct_answer")))
        if right is None or right >= len(captions):
            raise DataError(f"{where}: has correct_answer {row.get('correct_answer')!r}; expected 0 … 3.")
        image = collector.add(image_place(path, images, name), key=name)
        foils = tuple(caption for i, caption in enumerate(captions) if i != right)
        choices.append(
            Choice(image, captions[right], foils, str(row.get("correct_answer_template") or "mcq"))
        )
    collector.require(source=path, what="the images of COCO or VOC 2007 that NegBench uses")
    return Choices(collector.images, choices, collector.keys)

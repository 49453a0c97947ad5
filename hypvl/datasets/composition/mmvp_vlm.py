"""Reader of MMVP-VLM: pairs of images that CLIP takes for alike, in nine visual patterns."""

from pathlib import Path

from hypvl.allowlist import configurable
from hypvl.checks import natural_number
from hypvl.datasets.classification.prompts import fill
from hypvl.datasets.composition.choices import Group, Groups, ImageCollector
from hypvl.datasets.files import image_place, open_table, text_of
from hypvl.datasets.images import IMAGE_EXTENSIONS
from hypvl.errors import DataError
from hypvl.io.files import is_file

_IMAGES = "MLLM_VLM Images"


@configurable("evaluate")
def mmvp_vlm(root: str | Path, *, prompt: str = "a photo of {}") -> Groups:
    """MMVP-VLM: ``root/Questions.csv`` with ``Question ID, Type, Statement``, two rows a pair, and the images.

    Images are ``root/MLLM_VLM Images/<Type>/<Question ID>.jpg``. A pair is two rows of one type, with numbers 2 k - 1
    and 2 k; the type is its kind. The published score is the ``image_score``: both statements prefer their image.

    Args:
        root: Folder of the CSV.
        prompt: Around a statement; ``{}`` is the place of it.

    Raises:
        MissingDataError: when the file or all images are not there.
        DataError: naming the row that cannot be used.

    Source: Tong et al. 2024 (arXiv 2401.06209), section 3.
    """
    path = Path(root) / "Questions.csv"
    rows: list[tuple[str, int, str, str]] = []
    for place, row in open_table(path).usable_rows():
        where = f"{path}, {place}"
        number = natural_number(text_of(row, "Question ID", where).strip())
        if number is None:
            raise DataError(f"{where}: has Question ID {row['Question ID']!r}; expected a number.")
        rows.append(
            (where, number, text_of(row, "Type", where).strip(), text_of(row, "Statement", where).strip())
        )
    collector, groups = ImageCollector(), []
    for i in range(0, len(rows), 2):
        pair = rows[i : i + 2]
        where, number, kind, _ = pair[0]
        if len(pair) < 2 or pair[1][1:3] != (number + 1, kind) or number % 2 == 0:
            raise DataError(
                f"{where}: has no partner; expected two rows of one type, numbered 2 k - 1 and 2 k, together."
            )
        first, second = (collector.add(_place(path, kind, one[1]), key=str(one[1])) for one in pair)
        groups.append(
            Group((first, second), (fill(prompt, pair[0][3]), fill(prompt, pair[1][3])), (kind,), str(number))
        )
    collector.require(
        source=path, what=f"the images of MMVP-VLM (huggingface.co/datasets/MMVP/MMVP_VLM, {_IMAGES!r})"
    )
    return Groups(collector.images, groups)


def _place(path: Path, kind: str, number: int) -> Path:
    places = [
        image_place(path, path.parent / _IMAGES, f"{kind}/{number}.{extension}")
        for extension in IMAGE_EXTENSIONS
    ]
    return next((place for place in places if is_file(place)), places[0])

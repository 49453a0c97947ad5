"""Whether a data set is there, complete and readable: the findings that hypvl doctor prints."""

from dataclasses import dataclass, field
from typing import Any, Literal

from hypvl.datasets.images import images_of
from hypvl.datasets.protocol import ImageSource
from hypvl.errors import DataError, MissingDataError, UserError

Status = Literal["ok", "missing", "incomplete", "damaged"]


@dataclass(frozen=True)
class Finding:
    """The state of one data set."""

    name: str
    # "missing": its files are not there; "incomplete": fewer than published; "damaged": cannot be read.
    status: Status
    items: int | None = None  # number of images (or samples); None where they could not be counted
    looked_at: int = 0  # number of them that were decoded
    detail: str = ""  # what is wrong, and what to do
    broken: list[str] = field(default_factory=list)  # keys of images that cannot be read, with the reason

    @property
    def ok(self) -> bool:
        """Whether the status is "ok"."""
        return self.status == "ok"


def inspect_error(name: str, error: UserError | ValueError) -> Finding:
    """The finding for a data set that could not be built."""
    return Finding(name, "missing" if isinstance(error, MissingDataError) else "damaged", detail=str(error))


def inspect_set(name: str, dataset: Any, *, look_at: int | None = 8, expected: int | None = None) -> Finding:
    """Decode some images of a data set.

    Args:
        dataset: A classification set (``dataset[i] -> (image, label)``), or one with ``images``; anything else
            counts as readable, because it could be built.
        look_at: How many images to decode, evenly spread; None = all.
        expected: How many there should be; None = not known.

    Returns:
        "damaged" when an image cannot be read, "incomplete" when there are fewer than expected.
    """
    images = _images(dataset)
    if images is None:
        return Finding(name, "ok")
    total = len(images)
    count = total if look_at is None else min(look_at, total)
    broken = []
    for position in [i * total // count for i in range(count)]:
        try:
            image = images[position]
            if image.ndim != 3:
                broken.append(f"image {position}: has {image.ndim} dimensions; expected 3.")
        except DataError as error:
            broken.append(str(error))
    status: Status = "ok"
    detail = ""
    if broken:
        status = "damaged"
        detail = f"{len(broken)} of {count} images that were looked at cannot be read, the first: {broken[0]}"
    elif expected is not None and total < expected:
        status = "incomplete"
        detail = (
            f"{name}: has {total:,} images; expected {expected:,}, as published: get the rest of the files."
        )
    elif total == 0:
        status, detail = "damaged", f"{name}: has no images."
    return Finding(name, status, items=total, looked_at=count, detail=detail, broken=broken)


def _images(dataset: Any) -> ImageSource | None:
    """The images of a data set of any kind; None where it has none."""
    if hasattr(dataset, "labels") and hasattr(dataset, "__getitem__"):
        return images_of(dataset)
    images: ImageSource | None = getattr(dataset, "images", None)
    return images if hasattr(images, "__getitem__") else None

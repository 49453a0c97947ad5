"""Images with captions: what the readers of retrieval sets return."""

from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path

from hypvl.datasets.files import require_images
from hypvl.datasets.images import Images
from hypvl.datasets.protocol import ImageSource, RetrievalSet, check_set
from hypvl.errors import DataError


class CaptionedImages:
    """Images and their captions.

    Args: those of :class:`~hypvl.datasets.protocol.RetrievalSet`, and
        image_ids: Id of each image, by which a file of further positives names it; None = there are none.
        caption_ids: The same of each caption.

    Raises:
        DataError: when the lengths do not fit, or there are no captions.
    """

    def __init__(
        self,
        images: ImageSource,
        captions: Sequence[str],
        caption_image: Sequence[int],
        *,
        keys: Sequence[str],
        image_ids: Sequence[str] | None = None,
        caption_ids: Sequence[str] | None = None,
    ) -> None:
        for name, ids, count in (("image", image_ids, len(images)), ("caption", caption_ids, len(captions))):
            if ids is not None and (len(ids) != count or len(set(ids)) != count):
                raise DataError(
                    f"retrieval set: has {len(set(ids))} different {name}_ids for {count} {name}s; expected one each."
                )
        if not captions:
            raise DataError("retrieval set: has no captions; expected at least one.")
        self.images = images
        self.captions = list(captions)
        self.caption_image = list(caption_image)
        self.keys = list(keys)
        self.image_ids = None if image_ids is None else list(image_ids)
        self.caption_ids = None if caption_ids is None else list(caption_ids)
        check_set(self, RetrievalSet, name="retrieval set")


def from_files(
    entries: Sequence[tuple[Path, str, Sequence[str]]],
    source: Path,
    *,
    image_ids: Iterable[Hashable] | None = None,
    caption_ids: Iterable[Hashable] | None = None,
) -> CaptionedImages:
    """A set from (path, key, captions) of each image.

    Args:
        entries: The images.
        source: The file that messages name.
        image_ids: Id of each image; where one is None or occurs twice, the set has no ids.
        caption_ids: The same of each caption.

    Raises:
        DataError: without captions.
        MissingDataError: when none of the images is there.
    """
    paths = [path for path, _, _ in entries]
    if not any(texts for _, _, texts in entries):
        raise DataError(f"{source}: has no captions; expected at least one.")
    require_images(paths, source=source)
    return CaptionedImages(
        Images.from_files(paths),
        [text for _, _, texts in entries for text in texts],
        [image for image, (_, _, texts) in enumerate(entries) for _ in texts],
        keys=[key for _, key, _ in entries],
        image_ids=_ids(image_ids),
        caption_ids=_ids(caption_ids),
    )


def _ids(values: Iterable[Hashable] | None) -> list[str] | None:
    """Ids as texts; None where one is missing or stands twice."""
    ids = None if values is None else list(values)
    if ids is None or None in ids or len(set(ids)) < len(ids):
        return None
    return [str(key) for key in ids]

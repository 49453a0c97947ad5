"""Downloads the captions of COCO 2014."""

from pathlib import Path

from hypvl.errors import DataError
from hypvl.io.archives import read_zip_member
from hypvl.io.files import file_digest, write_atomically
from hypvl.io.json_text import parse_json
from hypvl.io.remote import RemoteFile

COCO_URL = (
    "https://s3.us-east-1.amazonaws.com/images.cocodataset.org/annotations/annotations_trainval2014.zip"
)
_LARGEST = 1 << 28  # bytes of the captions; the published ones have a quarter


def fetch_coco_captions(
    folder: Path, *, split: str = "train", url: str = COCO_URL, sha256: str | None = None
) -> Path:
    """Download ``annotations/captions_<split>2014.json``, "train" or "val", into a folder, once; returns its path.

    The archive is downloaded to its full length (an interrupted download continues), and the checksum that it
    keeps of the file (CRC-32) must be that of what comes out of it. It stays in the folder and may be deleted.

    Args:
        url: Of the archive, for mirrors.
        sha256: Hex digest that the archive must have; None: not looked at.

    Raises:
        DataError: when it cannot be fetched, or is not what it should be.
    """
    member = f"annotations/captions_{split}2014.json"
    target = folder / member
    if target.exists():
        return target
    archive = RemoteFile(url).download(folder)
    try:
        if sha256 is not None:
            got = file_digest(archive, "sha256")
            if got != sha256.lower():
                raise ValueError(f"its SHA-256 is {got}, expected {sha256.lower()}")
        content = read_zip_member(archive, member, max_bytes=_LARGEST)
        parse_json(content)
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(target, content)
    except KeyError as error:
        raise DataError(
            f"{archive}: has no {member}; expected COCO's annotations_trainval2014.zip."
        ) from error
    except ValueError as error:
        raise DataError(f"{archive}: is damaged ({error}); delete it and try again.") from error
    except OSError as error:
        raise DataError(f"{target}: cannot be written ({error}); choose a folder with space.") from error
    return target

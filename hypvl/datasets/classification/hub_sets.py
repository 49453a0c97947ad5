"""Classification sets of CLIP_benchmark and DataComp in the WebDataset layout, from the Hugging Face hub."""

import re
from pathlib import Path

from hypvl.allowlist import configurable
from hypvl.datasets.catalog.fetching import can_write, fetch_webdataset
from hypvl.datasets.classification.webdataset import SampleGroups, WebDatasetSet, is_url
from hypvl.errors import DataError, MissingDataError
from hypvl.io.remote import DownloadError, only_one

_NAME = re.compile(r"\w[\w.-]*(?:/\w[\w.-]*)?", re.A)


@configurable("evaluate")
def hub_set(
    name: str,
    *,
    root: str | Path = "./datasets/eval",
    split: str = "test",
    organisation: str = "clip-benchmark",
    groups: SampleGroups | None = None,
    download: bool = False,
) -> WebDatasetSet:
    """The set ``<organisation>/wds_<name>`` of the hub, with its own class names and prompts.

    It lies in ``root/<name>``, or in ``root/wds_<name>`` where the repository was cloned, or DataComp fetched it.

    Args:
        name: As CLIP_benchmark and DataComp call it: ``imagenet-r``, ``vtab/svhn`` ... A ``/`` is ``-`` in the names
            of the repository and the folder.
        root: Folder of the sets, or the http(s) address of one.
        split: ``"test"``, ``"train"`` ...
        organisation: Whose repository it is.
        groups: How a sample says which group its image is of; None = the images have no groups.
        download: Fetch what is missing into ``root``.

    Raises:
        MissingDataError: when the set is not there (and could not be fetched).
        DataError: when it is there and cannot be read, or for a name that no repository can have.
    """
    if not _NAME.fullmatch(name) or not _NAME.fullmatch(organisation) or "/" in organisation:
        raise DataError(
            f"name, organisation: got {name!r}, {organisation!r}; expected names as imagenet-r or vtab/svhn, and "
            "clip-benchmark."
        )
    folder = name.replace("/", "-")
    if is_url(root):
        return WebDatasetSet(f"{str(root).rstrip('/')}/{folder}", split=split, groups=groups)
    address = f"https://huggingface.co/datasets/{organisation}/wds_{folder}/resolve/main"
    place = Path(root) / folder
    if (cloned := place.with_name(f"wds_{folder}")).is_dir():
        place = cloned
    try:
        return _read(place, split, groups)
    except MissingDataError as error:
        by_hand = f"{error} The set is {address.removesuffix('/resolve/main')}: put its files into {place}"
        if not download:
            raise MissingDataError(f"{by_hand}, or set download=true.") from error
        if not can_write(Path(root)):
            raise MissingDataError(
                f"{by_hand}; it cannot be fetched: {root} cannot be written to."
            ) from error
    with only_one(Path(root) / ".downloads" / folder):
        try:
            return _read(place, split, groups)  # another process has downloaded it while this one waited
        except MissingDataError:
            try:
                fetch_webdataset(address, place, [split])
            except DownloadError as error:
                raise MissingDataError(f"{name}: could not be downloaded: {error} {by_hand}.") from error
    return _read(place, split, groups)


def _read(place: Path, split: str, groups: SampleGroups | None) -> WebDatasetSet:
    # classnames.txt is fetched last: without it the set is not complete.
    if not (place / "classnames.txt").is_file():
        raise MissingDataError(
            f"{place}: has no classnames.txt (looked in {Path.cwd()}); expected classnames.txt, "
            f"zeroshot_classification_templates.txt and {split}/{{nshards.txt, 0.tar ...}}."
        )
    return WebDatasetSet(place, split=split, groups=groups)

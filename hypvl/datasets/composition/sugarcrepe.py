"""Reader of SugarCrepe: fluent and plausible false captions of COCO images, in seven kinds."""

from collections.abc import Sequence
from pathlib import Path

from hypvl.allowlist import configurable
from hypvl.datasets.composition.choices import Choice, Choices, ImageCollector
from hypvl.datasets.files import read_entries, require_files, text_of
from hypvl.errors import DataError

#: Kinds, and the file of each without ``.json``.
KINDS = ("add_obj", "add_att", "replace_obj", "replace_att", "replace_rel", "swap_obj", "swap_att")


@configurable("evaluate")
def sugarcrepe(root: str | Path, *, images: str | Path, kinds: Sequence[str] = KINDS) -> Choices:
    """SugarCrepe: ``root/data/<kind>.json``, each ``{"0": {"filename", "caption", "negative_caption"}, …}``.

    Published averages: ``accuracy_add``, ``accuracy_replace``, ``accuracy_swap`` and ``macro_accuracy``, the plain
    means of their kinds.

    Args:
        images: Folder of COCO val2017's images.
        kinds: Which of the seven, at least one.

    Raises:
        MissingDataError: when a file or all images are not there.
        DataError: naming the entry that cannot be used.

    Source: Hsieh et al. 2023 (arXiv 2306.14610).
    """
    if not kinds or not set(kinds) <= set(KINDS):
        raise DataError(f"kinds: got {list(kinds)}; expected some of {', '.join(KINDS)}.")
    folder = Path(root) / "data"
    require_files(
        [folder / f"{kind}.json" for kind in kinds],
        "put SugarCrepe's data/ there (github.com/RAIVNLab/sugar-crepe), or leave these out of kinds",
    )
    collector, choices = ImageCollector(), []
    for kind in kinds:
        for where, entry in read_entries(folder / f"{kind}.json", dict):
            name = text_of(entry, "filename", where)
            image = collector.add(Path(images) / name, key=name)
            foil = text_of(entry, "negative_caption", where)
            choices.append(Choice(image, text_of(entry, "caption", where), (foil,), kind))
    collector.require(source=folder, what="COCO's val2017 (images.cocodataset.org)")
    means = {
        f"accuracy_{group}": [kind for kind in kinds if kind.startswith(group)]
        for group in ("add", "replace", "swap")
    }
    return Choices(
        collector.images,
        choices,
        collector.keys,
        {name: own for name, own in means.items() if own} | {"macro_accuracy": list(kinds)},
    )

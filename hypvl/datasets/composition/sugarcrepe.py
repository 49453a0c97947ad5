"""Reader of SugarCrepe: fluent and plausible false captions of COCO images, in seven kinds."""

from collections.abc import Sequence
from pathlib import Path

from hypvl.allowlist import configurable
from hypvl.datasets.composition.choices import Choice, Choices, Gatherer, require_images, text_of
from hypvl.datasets.files import read_json
from hypvl.errors import DataError, MissingDataError

#: Kinds, and the file of each without ``.json``.
KINDS = ("add_obj", "add_att", "replace_obj", "replace_att", "replace_rel", "swap_obj", "swap_att")


@configurable("evaluate")
def sugarcrepe(root: str | Path, *, images: str | Path, kinds: Sequence[str] = KINDS) -> Choices:
    """SugarCrepe: ``root/data/<kind>.json``, each ``{"0": {"filename", "caption", "negative_caption"}, …}``.

    Published averages: ``accuracy_add``, ``accuracy_replace``, ``accuracy_swap`` and ``macro_accuracy``, the plain
    means of their kinds.

    Args:
        root: Folder of SugarCrepe.
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
    lost = [kind for kind in kinds if not (folder / f"{kind}.json").is_file()]
    if lost:
        raise MissingDataError(
            f"{folder}: lacks {', '.join(f'{kind}.json' for kind in lost)} (looked in {Path.cwd()}); put SugarCrepe's "
            "data/ there (github.com/RAIVNLab/sugar-crepe), or leave these out of kinds."
        )
    gathered, choices = Gatherer(), []
    for kind in kinds:
        path = folder / f"{kind}.json"
        content = read_json(path)
        if not isinstance(content, dict) or not content:
            raise DataError(f"{path}: expected an object of at least one entry; got {str(content)[:80]}")
        for key, entry in content.items():
            where = f"{path}, entry {key}"
            name = text_of(entry, "filename", where)
            image = gathered.position(Path(images) / name, key=name)
            foil = text_of(entry, "negative_caption", where)
            choices.append(Choice(image, text_of(entry, "caption", where), (foil,), kind))
    require_images(gathered.paths, source=folder, what="COCO's val2017 (images.cocodataset.org)")
    means = {
        f"accuracy_{group}": [kind for kind in kinds if kind.startswith(group)]
        for group in ("add", "replace", "swap")
    }
    return Choices(
        gathered.images(),
        choices,
        gathered.keys,
        {name: own for name, own in means.items() if own} | {"macro_accuracy": list(kinds)},
    )

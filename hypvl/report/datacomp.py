"""Results as DataComp's evaluation writes them: ``eval_results.jsonl``, one data set a line."""

from collections.abc import Mapping, Sequence
from typing import Any

from hypvl.errors import DataError
from hypvl.io.json_text import json_bytes
from hypvl.report.summary import by_checkpoint, main_metric
from hypvl.report.tables import CHANCE, PERCENT, unit_of

#: Key -> name of the 38 tasks of DataComp's leaderboard, which its tools look them up by.
#: Source: Gadre et al. 2023 (arXiv 2304.14108); keys and spelling from memory.
TASKS: dict[str, str] = {
    "imagenet1k": "ImageNet 1k",
    "cars": "Stanford Cars",
    "country211": "Country211",
    "fgvc_aircraft": "FGVC Aircraft",
    "food101": "Food-101",
    "gtsrb": "GTSRB",
    "imagenet-a": "ImageNet-A",
    "imagenet-o": "ImageNet-O",
    "imagenet-r": "ImageNet-R",
    "imagenet_sketch": "ImageNet Sketch",
    "imagenetv2": "ImageNet v2",
    "mnist": "MNIST",
    "objectnet": "ObjectNet",
    "renderedsst2": "Rendered SST2",
    "stl10": "STL-10",
    "sun397": "SUN397",
    "voc2007": "Pascal VOC 2007",
    "vtab/caltech101": "Caltech-101",
    "vtab/cifar10": "CIFAR-10",
    "vtab/cifar100": "CIFAR-100",
    "vtab/clevr_closest_object_distance": "CLEVR Distance",
    "vtab/clevr_count_all": "CLEVR Counts",
    "vtab/dtd": "Describable Textures",
    "vtab/eurosat": "EuroSAT",
    "vtab/flowers": "Oxford Flowers-102",
    "vtab/kitti_closest_vehicle_distance": "KITTI Vehicle Distance",
    "vtab/pcam": "PatchCamelyon",
    "vtab/pets": "Oxford-IIIT Pet",
    "vtab/resisc45": "RESISC45",
    "vtab/svhn": "SVHN",
    "wilds/camelyon17": "Camelyon17",
    "wilds/fmow": "FMoW",
    "wilds/iwildcam": "iWildCam",
    "dollar_street": "Dollar Street",
    "geode": "GeoDE",
    "retrieval/flickr_1k_test_image_text_retrieval": "Flickr",
    "retrieval/mscoco_2014_5k_test_image_text_retrieval": "MSCOCO",
    "misc/winogavil": "WinoGAViL",
}


def datacomp_lines(contents: Sequence[dict[str, Any]], *, metric: str | None = None) -> str:
    """Results files of one checkpoint as JSON lines of ``key``, ``dataset`` and ``metrics`` with ``main_metric``.

    The key is the name of the evaluation, and the data set what DataComp calls this task (:data:`TASKS`), else the key.
    Percentages become shares in [0, 1], as
    DataComp has them; metrics in units of their own stay as they are. Levels of chance, and evaluations without a
    result, are left out.

    Args:
        contents: As :func:`hypvl.report.summary.read_file` gives them.
        metric: The main metric of all; None = that of each evaluation.

    Raises:
        DataError: For results of several checkpoints, none at all, or an evaluation without the metric.
    """
    checkpoints = by_checkpoint(contents)
    if len(checkpoints) != 1:
        raise DataError(
            f"--datacomp: got results of {len(checkpoints)} checkpoints ({', '.join(checkpoints)}); expected those of "
            "one, since the file does not name it."
        )
    lines = []
    for name, entry in next(iter(checkpoints.values())).items():
        if entry.get("status") == "ok":
            metrics = {**_shares(entry["metrics"])}
            metrics["main_metric"] = metrics[main_metric(name, entry, metric)]
            lines.append(
                json_bytes({"key": name, "dataset": TASKS.get(name, name), "metrics": metrics})
                .decode()
                .strip()
                + "\n"
            )
    if not lines:
        raise DataError("--datacomp: no evaluation has a result; expected at least one.")
    return "".join(lines)


def _shares(metrics: Mapping[str, float]) -> dict[str, float]:
    return {
        name: value / 100 if unit_of(name) == PERCENT else value
        for name, value in metrics.items()
        if not name.endswith(CHANCE)
    }

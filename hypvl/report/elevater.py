"""ELEVATER submissions: predictions of all seeds of a set as one JSON file, all sets as one ZIP."""

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from hypvl.errors import DataError
from hypvl.io.files import write_output
from hypvl.io.json_text import read_object

#: What all seeds of a set have in common.
SAME = ("model_name", "dataset_name", "num_params", "num_visual_params", "num_backbone_params", "n_shot")
_MEAN = "num_trainable_params"
_LISTS = ("rnd_seeds", "predictions")
_DATE = (1980, 1, 1, 0, 0, 0)  # the same ZIP from the same files


@dataclass(frozen=True)
class Submission:
    """What went into a ZIP."""

    path: Path  # the ZIP
    seeds: dict[str, list[int]]  # set -> seeds
    missing: list[str]  # sets that were expected and are not there


def merge_seeds(contents: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Predictions of several seeds as one, in the order of the seeds.

    ``rnd_seeds`` and ``predictions`` are joined, ``num_trainable_params`` is averaged, everything else has to be equal.

    Args:
        contents: Name of a file -> its content, see :class:`hypvl.evaluation.prediction_files.PredictionFiles`.

    Raises:
        DataError: when a field is missing, differs, or a seed comes twice; naming the file.
    """
    first_name, first = next(iter(contents.items()))
    for name, content in contents.items():
        missing = [key for key in (*SAME, _MEAN, *_LISTS) if key not in content]
        if missing or not all(isinstance(content[key], list) for key in _LISTS):
            raise DataError(
                f"{name}: lacks {', '.join(missing) or 'lists of seeds and predictions'}; expected a prediction file."
            )
        if not content["predictions"] or len(content["rnd_seeds"]) != len(content["predictions"]):
            raise DataError(
                f"{name}: has {len(content['rnd_seeds'])} seeds and {len(content['predictions'])} predictions; "
                "expected one for each seed."
            )
        different = [key for key in SAME if content[key] != first[key]]
        if different:
            key = different[0]
            raise DataError(
                f"{name}: its {key} is {content[key]!r}; expected {first[key]!r}, as in {first_name}."
            )
    shapes = {
        (len(one), len(one[0]) if one else 0)
        for content in contents.values()
        for one in content["predictions"]
    }
    if len(shapes) > 1:
        raise DataError(
            f"{first_name} and others: predictions of {' and '.join(f'{n} x {c}' for n, c in sorted(shapes))} "
            "(images x classes); expected one size."
        )
    pairs = [
        pair for c in contents.values() for pair in zip(c["rnd_seeds"], c["predictions"], strict=True)
    ]  # (seed, (N, C))
    seeds = sorted(seed for seed, _ in pairs)
    if len(set(seeds)) < len(seeds):
        raise DataError(f"{first_name} and others: have the seeds {seeds}; expected each once.")
    by_seed = dict(pairs)
    return {
        **{key: first[key] for key in SAME[:2]},
        _MEAN: sum(content[_MEAN] for content in contents.values()) / len(contents),
        **{key: first[key] for key in SAME[2:]},
        "rnd_seeds": seeds,
        "predictions": [by_seed[seed] for seed in seeds],
    }


def write_submission(
    folder: Path,
    path: Path,
    *,
    model_name: str | None = None,
    expected: Sequence[str] = (),
) -> Submission:
    """Merge the seeds of every set in a folder and pack them: ``<dataset_name>.json`` each.

    Args:
        folder: Prediction files of one model and protocol, ``*.json``.
        path: The ZIP to write.
        model_name: In place of the files' own.
        expected: Sets a complete submission has.

    Raises:
        DataError: when there are no files, one is not a prediction file, or they do not belong together.
    """
    files = sorted(folder.glob("*.json"))
    if not files:
        raise DataError(
            f"{folder}: holds no prediction files; write them with predictions.folder=... of configs/eval_elevater.py."
        )
    groups: dict[str, dict[str, Any]] = {}
    for file in files:
        content = read_object(file, expected="a prediction file")
        groups.setdefault(str(content.get("dataset_name")), {})[str(file)] = content
    merged = {name: merge_seeds(group) for name, group in sorted(groups.items())}
    for key in ("model_name", "n_shot"):
        values = sorted({str(content[key]) for content in merged.values()})
        if len(values) > 1 and not (key == "model_name" and model_name is not None):
            raise DataError(
                f"{folder}: its files have the {key} {' and '.join(values)}; expected one, pack them apart."
            )

    def pack(file: BinaryIO) -> None:
        with zipfile.ZipFile(file, "w") as archive:
            for name, content in merged.items():
                if model_name is not None:
                    content["model_name"] = model_name
                entry = zipfile.ZipInfo(f"{name}.json", date_time=_DATE)
                archive.writestr(entry, json.dumps(content, allow_nan=False), zipfile.ZIP_DEFLATED)

    write_output(path, pack)
    return Submission(
        path,
        {name: content["rnd_seeds"] for name, content in merged.items()},
        [name for name in expected if name not in merged],
    )

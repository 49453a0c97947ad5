"""ELEVATER submissions: predictions of all seeds of a set as one JSON file, all sets as one ZIP."""

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypvl.errors import DataError
from hypvl.io.json_text import parse_json

#: What all seeds of a set have in common.
SAME = ("model_name", "dataset_name", "num_params", "num_visual_params", "num_backbone_params", "n_shot")
_MEAN = "num_trainable_params"
_LISTS = ("rnd_seeds", "predictions")
_DATE = (1980, 1, 1, 0, 0, 0)  # the same ZIP from the same files


@dataclass(frozen=True)
class Submission:
    """What went into a ZIP.

    Attributes:
        path: The ZIP.
        seeds: Set -> seeds.
        missing: Sets that were expected and are not there.
    """

    path: Path
    seeds: dict[str, list[int]]
    missing: list[str]


def merge_seeds(
    contents: Sequence[Mapping[str, Any]], *, names: Sequence[str] | None = None
) -> dict[str, Any]:
    """Predictions of several seeds as one, in the order of the seeds.

    ``rnd_seeds`` and ``predictions`` are joined, ``num_trainable_params`` is averaged, everything else has to be equal.

    Args:
        contents: Of the files, see :class:`hypvl.evaluation.prediction_files.PredictionFiles`.
        names: Of the files, for messages.

    Raises:
        DataError: when a field is missing, differs, or a seed comes twice; naming the file.
    """
    names = [f"file {i + 1}" for i in range(len(contents))] if names is None else names
    if not contents:
        raise DataError("predictions: got no files to merge; expected one per seed.")
    for name, content in zip(names, contents, strict=True):
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
        different = [key for key in SAME if content[key] != contents[0][key]]
        if different:
            key = different[0]
            raise DataError(
                f"{name}: its {key} is {content[key]!r}; expected {contents[0][key]!r}, as in {names[0]}."
            )
    shapes = {(len(one), len(one[0]) if one else 0) for content in contents for one in content["predictions"]}
    if len(shapes) > 1:
        raise DataError(
            f"{names[0]} and others: predictions of {' and '.join(f'{n} x {c}' for n, c in sorted(shapes))} "
            "(images x classes); expected one size."
        )
    pairs = [
        pair for c in contents for pair in zip(c["rnd_seeds"], c["predictions"], strict=True)
    ]  # (seed, (N, C))
    seeds = sorted(seed for seed, _ in pairs)
    if len(set(seeds)) < len(seeds):
        raise DataError(f"{names[0]} and others: have the seeds {seeds}; expected each once.")
    by_seed = dict(pairs)
    return {
        **{key: contents[0][key] for key in SAME[:2]},
        _MEAN: sum(content[_MEAN] for content in contents) / len(contents),
        **{key: contents[0][key] for key in SAME[2:]},
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
    groups: dict[str, list[tuple[str, Any]]] = {}
    for file in files:
        content = _read(file)
        groups.setdefault(str(content.get("dataset_name")), []).append((str(file), content))
    merged = {
        name: merge_seeds([content for _, content in group], names=[file for file, _ in group])
        for name, group in sorted(groups.items())
    }
    for key in ("model_name", "n_shot"):
        values = sorted({str(content[key]) for content in merged.values()})
        if len(values) > 1 and not (key == "model_name" and model_name is not None):
            raise DataError(
                f"{folder}: its files have the {key} {' and '.join(values)}; expected one, pack them apart."
            )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in merged.items():
                if model_name is not None:
                    content["model_name"] = model_name
                entry = zipfile.ZipInfo(f"{name}.json", date_time=_DATE)
                entry.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(entry, json.dumps(content, allow_nan=False))
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror}); name another folder.") from error
    return Submission(
        path,
        {name: content["rnd_seeds"] for name, content in merged.items()},
        [name for name in expected if name not in merged],
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        content = parse_json(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({error}); remove it or write it again.") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds a {type(content).__name__}; expected a prediction file.")
    return content

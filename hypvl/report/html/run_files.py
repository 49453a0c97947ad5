"""What the files of a run's folder hold for its page; a file that is not there leaves its part of the page out."""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypvl.errors import DataError
from hypvl.io.json_text import expecting, parse_json, read_object
from hypvl.io.redact import printable, redact_settings, redacted
from hypvl.report.figures import read_pixels
from hypvl.report.summary import read_file
from hypvl.report.tables import result_rows, unit_of
from hypvl.report.traversal import stretches

DATA_FILE, RESULTS, METRICS, CONFIG = "report_data.json", "results.json", "metrics.jsonl", "config.yaml"
FORMAT_VERSION = 1
_POINTS = 300  # of a curve
_TRAVERSALS = 4  # of the run's folder
_SIDE = 128  # pixels of their images
_CONFIG_LINES = 1000
# Columns of the metrics file that are no curve.
_COUNTERS = ("iteration", "epoch", "consumed", "eta_seconds")


@dataclass(frozen=True)
class RunFiles:
    """Plain data for the page."""

    name: str
    curves: list[dict[str, Any]]  # ``name``, ``steps``, ``values``
    results: list[dict[str, Any]]  # a metric a row
    failed: list[dict[str, str]]  # evaluations without a result: ``evaluation``, ``status``, ``reason``
    config: str
    about: dict[str, Any]  # versions, seed, command ...
    traversals: list[dict[str, Any]]  # of image_traversals, with ``thumbnail``
    model: dict[str, Any] | None  # the content of report_data.json


def check_run(folder: Path) -> None:
    """DataError for a folder without any file of a run."""
    known = (DATA_FILE, RESULTS, METRICS, CONFIG)
    if not any((folder / name).is_file() for name in known):
        raise DataError(f"{folder}: holds none of {', '.join(known)}; expected the folder of a training run.")


def read_run(folder: Path) -> RunFiles:
    """Read what is there. Raises DataError when a file cannot be read, or when there is none at all."""
    check_run(folder)
    results = results_of(folder)
    return RunFiles(
        name=printable(folder.resolve().name, limit=80),
        curves=curves(_lines(folder / METRICS)),
        results=_result_rows(results, folder / RESULTS),
        failed=[
            {"evaluation": name, "status": str(entry.get("status")), "reason": str(entry.get("reason", ""))}
            for name, entry in results.items()
            if entry.get("status") != "ok"
        ],
        config=_config(folder / CONFIG),
        about=_about(folder),
        traversals=_traversals(folder / "traversals"),
        model=_model(folder / DATA_FILE),
    )


def results_of(folder: Path) -> Mapping[str, Mapping[str, Any]]:
    """The evaluations in a run's ``results.json``, name -> entry; empty without the file. Raises DataError."""
    path = folder / RESULTS
    results: Mapping[str, Any] = read_file(path)["results"] if path.is_file() else {}
    with expecting(path, "evaluations by name"):
        return {name: dict(entry) for name, entry in results.items()}


def curves(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The columns of a metrics file that are numbers, by ``iteration``, at most 300 points each.

    Longer ones are averaged over stretches of equal length; values that are not finite become None.

    Example:
        >>> curves([{"iteration": 1, "loss": 2.0}, {"iteration": 2, "loss": 1.0}])
        [{'name': 'loss', 'steps': [1, 2], 'values': [2.0, 1.0]}]
    """
    columns: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        step = row.get("iteration")
        if not isinstance(step, int):
            continue
        for name, value in row.items():
            if name not in _COUNTERS and isinstance(value, int | float) and not isinstance(value, bool):
                columns.setdefault(name, []).append((step, _float(value)))
    result = []
    for name, pairs in columns.items():
        latest = dict(pairs)  # of a step that was run again after a resume, the last
        steps = sorted(latest)
        size = math.ceil(len(steps) / _POINTS)
        groups = [steps[i : i + size] for i in range(0, len(steps), size)]
        shown = [_mean([latest[step] for step in group]) for group in groups]
        result.append({"name": name, "steps": [group[-1] for group in groups], "values": shown})
    return result


def _mean(values: Sequence[float]) -> float | None:
    """None for values that are not all finite, or too large for a mean."""
    if not all(map(math.isfinite, values)):
        return None
    return math.fsum(value / len(values) for value in values)


def _float(value: float) -> float:
    """A number as a float; a whole number that is too large for one is infinite."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines; a last line that was cut off is left out."""
    if not path.is_file():
        return []
    rows = []
    lines = path.read_text("utf-8", "replace").splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            row = parse_json(line)
        except ValueError as error:
            if number == len(lines):
                break
            raise DataError(
                f"{path}, line {number}: is not JSON ({error}); expected one object a line."
            ) from error
        if isinstance(row, dict):
            rows.append(row)
    return rows


def _result_rows(results: Mapping[str, Mapping[str, Any]], path: Path) -> list[dict[str, Any]]:
    with expecting(path, "metrics by evaluation"):
        rows = result_rows({name: entry for name, entry in results.items() if entry.get("status") == "ok"})
        main = {name: entry.get("meta", {}).get("main_metric") for name, entry in results.items()}
    return [
        {
            "evaluation": row.evaluation,
            "metric": row.metric,
            "value": row.value if math.isfinite(row.value) else None,
            "interval": row.interval,
            "chance": row.chance,
            "unit": "%" if unit_of(row.metric) == "%" else "",
            "main": row.metric == main[row.evaluation],
            "approximate": row.approximate,
        }
        for row in rows
    ]


def _config(path: Path) -> str:
    if not path.is_file():
        return ""
    lines = path.read_text("utf-8", "replace").splitlines()
    more = (
        [f"# ... {len(lines) - _CONFIG_LINES} more lines in {path.name}"]
        if len(lines) > _CONFIG_LINES
        else []
    )
    return redact_settings("\n".join(lines[:_CONFIG_LINES] + more))


def _about(folder: Path) -> dict[str, Any]:
    path = folder / "provenance.json"
    if not path.is_file():
        return {}
    content = read_object(path, expected="the provenance of a run")
    kept = (
        "hypvl",
        "git_commit",
        "git_dirty",
        "python",
        "device",
        "world_size",
        "command",
        "started",
        "seed",
    )
    about: dict[str, Any] = redacted({key: content[key] for key in kept if key in content})
    if isinstance(about.get("command"), list):
        about["command"] = [redact_settings(str(word)) for word in about["command"]]
    packages = content.get("packages")
    if isinstance(packages, dict) and "torch" in packages:
        about["torch"] = packages["torch"]
    size = folder / "parameters.json"
    if size.is_file():
        about["trained_parameters"] = read_object(size, expected="numbers of parameters").get("trained")
    return about


def _traversals(folder: Path) -> list[dict[str, Any]]:
    """Traversals that were drawn before, where their images are still there."""
    found = []
    for path in sorted(folder.glob("*.json"))[:_TRAVERSALS] if folder.is_dir() else ():
        content = read_object(path, expected="a traversal")
        with expecting(path, "a traversal: image, steps"):
            image = Path(content["image"])
            steps = [
                {"text": s["text"], "radius": s["radius"], "score": s["score"]} for s in content["steps"]
            ]
            stretches(steps)
        if image.is_file():
            found.append(
                {"thumbnail": _thumbnail(image), "key": image.name, "caption": "", **_walk(content, steps)}
            )
    return found


def _walk(content: Mapping[str, Any], steps: list[dict[str, Any]]) -> dict[str, Any]:
    kept = ("texts", "root", "entailment_mask", "texts_in_reach", "pool_size")
    return {**{key: content.get(key) for key in kept}, "steps": steps}


def _thumbnail(path: Path) -> str:
    from PIL import Image

    content = io.BytesIO()
    Image.fromarray(read_pixels(path, longest_side=_SIDE)).save(content, format="WEBP", quality=80)
    return "data:image/webp;base64," + base64.b64encode(content.getvalue()).decode()


def _model(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    content = read_object(path, expected="the file of `hypvl report`")
    if content.get("format_version") != FORMAT_VERSION:
        raise DataError(
            f"{path}: has format_version {content.get('format_version')!r}; expected {FORMAT_VERSION}. Run hypvl "
            "report without --no-model to write it anew."
        )
    return content

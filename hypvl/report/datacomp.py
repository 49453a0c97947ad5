"""Results as DataComp's evaluation writes them: ``eval_results.jsonl``, one data set a line."""

from collections.abc import Mapping, Sequence
from typing import Any

from hypvl.errors import DataError
from hypvl.io.json_text import json_bytes
from hypvl.report.datacomp_tasks import TASKS
from hypvl.report.summary import by_checkpoint, main_metric
from hypvl.report.tables import CHANCE, PERCENT, unit_of


def datacomp_lines(contents: Sequence[dict[str, Any]], *, metric: str | None = None) -> str:
    """Results files of one checkpoint as JSON lines of ``key``, ``dataset`` and ``metrics`` with ``main_metric``.

    The key is the name of the evaluation, and the data set what DataComp calls this task
    (:data:`~hypvl.report.datacomp_tasks.TASKS`), else the key. Percentages become shares in [0, 1], as DataComp has
    them; metrics in units of their own stay as they are. Levels of chance, and evaluations without a result, are left
    out.

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

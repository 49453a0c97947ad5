"""What two runs have in common and what not: provenance, the last metrics, evaluation results with their intervals."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

#: Entries of a run's provenance that can change a number; its command and its time of start cannot.
PROVENANCE = (
    "hypvl", "git_commit", "git_dirty", "python", "platform", "packages", "device", "world_size", "seed",
    "data_fingerprint",
)  # fmt: skip
#: Entries of a line of metrics.jsonl that say how fast the machine was.
SPEED = frozenset(
    {"samples_per_second", "data_wait", "memory_gb", "peak_memory_gb", "eta_seconds", "evaluate/seconds"}
)
Verdict = Literal["equal", "within", "beyond", "unknown"]


@dataclass(frozen=True)
class Difference:
    """One entry that differs. ``None`` also stands for an entry that one side does not have."""

    key: str
    first: Any
    second: Any

    def as_data(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


@dataclass(frozen=True)
class MetricDifference:
    """One metric of one evaluation that differs.

    ``verdict`` is ``beyond`` where the two 95 % intervals do not overlap, ``within`` where they do, ``unknown`` where
    a side has no interval or no value. Two runs are usually evaluated on the same items, so that ``within`` does not
    prove them alike.
    """

    evaluation: str
    metric: str
    first: float | None
    second: float | None
    first_interval: tuple[float, float] | None
    second_interval: tuple[float, float] | None
    same_settings: bool  # False where both were measured, with other settings of the evaluation

    @property
    def verdict(self) -> Verdict:
        """Of :func:`interval_verdict`."""
        return interval_verdict(
            self.first,
            self.second,
            first_interval=self.first_interval,
            second_interval=self.second_interval,
        )

    def as_data(self) -> dict[str, Any]:
        """As plain data."""
        return {**asdict(self), "verdict": self.verdict}


def interval_verdict(
    first: float | None,
    second: float | None,
    *,
    first_interval: Sequence[float] | None,
    second_interval: Sequence[float] | None,
) -> Verdict:
    """Whether two values differ by more than their intervals.

    Examples:
        >>> interval_verdict(70.0, 74.0, first_interval=(68.0, 72.0), second_interval=(73.0, 75.0))
        'beyond'
        >>> interval_verdict(70.0, 71.0, first_interval=(68.0, 72.0), second_interval=(69.0, 73.0))
        'within'
    """
    if first is not None and first == second:
        return "equal"
    if first is None or second is None or first_interval is None or second_interval is None:
        return "unknown"
    apart = first_interval[1] < second_interval[0] or second_interval[1] < first_interval[0]
    return "beyond" if apart else "within"


def provenance_differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[Difference]:
    """Entries of ``PROVENANCE`` that differ; versions of packages are ``packages.<name>``."""
    one, two = ({key: side.get(key) for key in PROVENANCE} for side in (first, second))
    return list(_mapping_differences(one, two))


def metric_differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[Difference]:
    """Entries that differ between two lines of ``metrics.jsonl``, speed and memory aside."""
    one, two = ({key: side[key] for key in side if key not in SPEED} for side in (first, second))
    return list(_mapping_differences(one, two))


def record_differences(
    first: Sequence[Mapping[str, Any]], second: Sequence[Mapping[str, Any]]
) -> list[Difference]:
    """Entries that differ between two whole ``metrics.jsonl``, line by line, speed and memory aside.

    Their keys are ``<iteration of the first>.<name>``; another number of lines is ``records``.

    Example:
        >>> record_differences([{"iteration": 2, "loss": 1.5}], [{"iteration": 2, "loss": 1.25}])
        [Difference(key='2.loss', first=1.5, second=1.25)]
    """
    found = [
        Difference(f"{one.get('iteration')}.{difference.key}", difference.first, difference.second)
        for one, two in zip(first, second, strict=False)
        for difference in metric_differences(one, two)
    ]
    if len(first) != len(second):
        found.append(Difference("records", len(first), len(second)))
    return found


def result_differences(
    first: Mapping[str, Mapping[str, Any]], second: Mapping[str, Mapping[str, Any]]
) -> list[MetricDifference]:
    """Metrics that differ between two results files (name of the evaluation -> its entry)."""
    result = []
    for evaluation in dict.fromkeys([*first, *second]):
        entries = [side.get(evaluation, {}) for side in (first, second)]
        metrics = [entry.get("metrics") or {} for entry in entries]
        for metric in dict.fromkeys([*metrics[0], *metrics[1]]):
            values = [side.get(metric) for side in metrics]
            intervals = [_interval(entry, metric) for entry in entries]
            digests = {entry["settings_sha256"] for entry in entries if "settings_sha256" in entry}
            difference = MetricDifference(
                evaluation,
                metric,
                first=values[0],
                second=values[1],
                first_interval=intervals[0],
                second_interval=intervals[1],
                same_settings=len(digests) <= 1,
            )
            if difference.verdict != "equal":
                result.append(difference)
    return result


def _interval(entry: Mapping[str, Any], metric: str) -> tuple[float, float] | None:
    bounds = (entry.get("intervals") or {}).get(metric)
    return None if bounds is None else (float(bounds[0]), float(bounds[1]))


def _mapping_differences(
    first: Mapping[str, Any], second: Mapping[str, Any], prefix: str = ""
) -> Iterator[Difference]:
    for key in dict.fromkeys([*first, *second]):
        one, two = first.get(key), second.get(key)
        if isinstance(one, Mapping) and isinstance(two, Mapping):
            yield from _mapping_differences(one, two, prefix=f"{prefix}{key}.")
        elif one != two:
            yield Difference(f"{prefix}{key}", one, two)

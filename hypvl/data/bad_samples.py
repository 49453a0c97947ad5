"""The count of bad samples: how many, the first ones, and when there are too many."""

from collections.abc import Mapping, Sequence
from typing import Any

from hypvl.checks import number
from hypvl.errors import DataError

_KEPT_KEYS = 20
_SHOWN = 3  # in a message
_SHOWN_LENGTH = 100  # characters of each


class BadSamples:
    """Counts what was read and what had to be replaced.

    The share is bad reads over all reads: a replacement that is bad itself counts too, so the share estimates
    that of bad rows in the data.

    Args:
        max_fraction: More than this share is an error.
        warm_up: Good samples seen before a share means anything; until then only twice the share of that many
            is too much.
    """

    def __init__(self, *, max_fraction: float = 0.1, warm_up: int = 1000) -> None:
        self.max_fraction = number("max_bad_fraction", max_fraction, least=0, most=1)
        self.warm_up = warm_up
        self.good = 0
        self.bad = 0
        self.first: dict[str, str] = {}  # key -> reason, the first ones
        self._before = 0  # of the bad ones, those of all ranks before a resume
        self._where = ""  # of which rank they are, in a message
        self.unreported: list[tuple[str, str]] = []  # (key, reason) since the last report, in order

    @property
    def fraction(self) -> float:
        """Bad reads over all reads, in [0, 1]."""
        return self.bad / max(1, self.bad + self.good)

    def add(self, good: int, bad: Sequence[tuple[str, str]]) -> None:
        """Count a batch: its size, and the (key, reason) of what was replaced in it."""
        self.good += good
        self.bad += len(bad)
        self.unreported.extend(bad)
        self._remember(dict(bad))

    def check(self, *, final: bool = False) -> None:
        """DataError when there are too many; ``final``, when no more samples come, however few there were."""
        reads = self.good + self.bad
        if not final and self.good < self.warm_up:
            reads = max(reads, 2 * self.warm_up)
        if self.bad > self.max_fraction * reads:
            raise DataError(
                f"{self}; more than dataset.max_bad_fraction={self.max_fraction}: repair the data, or raise it."
            )

    def state_dict(self) -> dict[str, Any]:
        """Counts, first keys and what was not reported yet, for the checkpoint."""
        unreported = [list(entry) for entry in self.unreported]
        return {"good": self.good, "bad": self.bad, "first": dict(self.first), "unreported": unreported}

    def of_this_rank(self) -> dict[str, Any]:
        """For :meth:`merged`: the :meth:`state_dict`, and how many of the bad ones were before a resume."""
        return {**self.state_dict(), "before": self._before}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a checkpoint."""
        self.good, self.bad, self.first = int(state["good"]), int(state["bad"]), dict(state["first"])
        self._before = self.bad
        self.unreported = _entries(state)

    def merged(self, states: Sequence[Mapping[str, Any]]) -> "BadSamples":
        """The count over all ranks, from :meth:`of_this_rank` of each (this one's included), in rank order.

        The first bad ones are those of the rank with the most since the run was started or resumed.
        """
        total = BadSamples(max_fraction=self.max_fraction, warm_up=self.warm_up)
        for state in states:
            total.good += int(state["good"])
            total.bad += int(state["bad"])
            total.unreported += _entries(state)
        since = [int(state["bad"]) - int(state.get("before", 0)) for state in states]
        worst = since.index(max(since))
        if len(states) > 1 and since[worst]:
            total._where = f"most on rank {worst}: "
        for state in (states[worst], *states):
            total._remember(state["first"])
        return total

    def _remember(self, bad: Mapping[str, str]) -> None:
        for key, reason in bad.items():
            if len(self.first) < _KEPT_KEYS:
                self.first.setdefault(key, reason)

    def __str__(self) -> str:
        if not self.bad:
            return f"no bad samples among {self.good}"
        return (
            f"{self.bad} of {self.good + self.bad} samples ({self.fraction:.1%}) could not be read "
            f"({self._where}{_shown(list(self.first.items()))})"
        )

    def report(self) -> str:
        """What is new since the last report, for example "2 more bad samples (a: torn; b: empty), 7 of 900 in all"."""
        count = len(self.unreported)
        return (
            f"{count} more bad sample{'s' if count != 1 else ''} ({_shown(self.unreported)}), "
            f"{self.bad} of {self.good + self.bad} ({self.fraction:.1%}) so far"
        )


def _shown(entries: Sequence[tuple[str, str]]) -> str:
    return "; ".join(
        line if len(line) <= _SHOWN_LENGTH else line[: _SHOWN_LENGTH - 3] + "..."
        for line in (f"{key}: {reason}" for key, reason in entries[:_SHOWN])
    )


def _entries(state: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a state has not reported; earlier checkpoints do not say."""
    return [(str(key), str(reason)) for key, reason in state.get("unreported", ())]

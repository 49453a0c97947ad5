"""The count of bad samples: how many, which came first, and when it is too many."""

from collections.abc import Mapping, Sequence
from typing import Any

from hypvl.errors import DataError

_KEPT_KEYS = 20


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
        if not 0 <= max_fraction <= 1:
            raise ValueError(f"max_bad_fraction: got {max_fraction}; expected 0 to 1.")
        self.max_fraction = max_fraction
        self.warm_up = warm_up
        self.good = 0
        self.bad = 0
        self.first: dict[str, str] = {}  # key -> reason, the first ones

    @property
    def fraction(self) -> float:
        """Bad reads over all reads, in [0, 1]."""
        return self.bad / max(1, self.bad + self.good)

    def add(self, good: int, bad: Sequence[tuple[str, str]]) -> None:
        """Count a batch: its size, and the (key, reason) of what was replaced in it."""
        self.good += good
        self.bad += len(bad)
        self._remember(dict(bad))

    def check(self, *, final: bool = False) -> None:
        """Stop when there are too many.

        Args:
            final: No more samples come: judge by however few there were.

        Raises:
            DataError: with the share and the first keys.
        """
        reads = self.good + self.bad
        if not final and self.good < self.warm_up:
            reads = max(reads, 2 * self.warm_up)
        if self.bad > self.max_fraction * reads:
            raise DataError(
                f"{self}; more than dataset.max_bad_fraction={self.max_fraction}: repair the data, or raise it."
            )

    def state_dict(self) -> dict[str, Any]:
        """Counts and first keys, for the checkpoint."""
        return {"good": self.good, "bad": self.bad, "first": dict(self.first)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a checkpoint."""
        self.good, self.bad, self.first = int(state["good"]), int(state["bad"]), dict(state["first"])

    def merged(self, states: Sequence[Mapping[str, Any]]) -> "BadSamples":
        """The count over all ranks, from the :meth:`state_dict` of each (this one's included)."""
        total = BadSamples(max_fraction=self.max_fraction, warm_up=self.warm_up)
        for state in states:
            total.good += int(state["good"])
            total.bad += int(state["bad"])
            total._remember(state["first"])
        return total

    def _remember(self, bad: Mapping[str, str]) -> None:
        for key, reason in bad.items():
            if len(self.first) < _KEPT_KEYS:
                self.first.setdefault(key, reason)

    def __str__(self) -> str:
        if not self.bad:
            return f"no bad samples among {self.good}"
        shown = "; ".join(f"{key}: {reason}" for key, reason in list(self.first.items())[:3])
        return (
            f"{self.bad} of {self.good + self.bad} samples ({self.fraction:.1%}) could not be read ({shown})"
        )

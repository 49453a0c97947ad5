"""Random draws that depend on a seed and a caption's position only."""

import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Draws:
    """Draws of one decision about one caption: equal in every process, whatever was drawn before.

    Only ``random.Random.random`` is used, the one method whose numbers Python promises never to change.

    Args:
        seed, position: Of the whole run, and of the caption in its source, >= 0.
        decision: Which of the caption's independent decisions, in [0, 256).
    """

    def __init__(self, seed: int, position: int, decision: int) -> None:
        self._random = random.Random(((seed << 64) | position) << 8 | decision).random

    def below(self, count: int) -> int:
        """A whole number in [0, count)."""
        return int(self._random() * count)

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """The items in a random order."""
        shuffled = list(items)
        for i in range(len(shuffled) - 1, 0, -1):
            j = int(self._random() * (i + 1))
            shuffled[i], shuffled[j] = shuffled[j], shuffled[i]
        return shuffled

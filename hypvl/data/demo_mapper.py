"""Which caption of a demo sample a training step uses."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hypvl.data.demo_captions import LEVELS
from hypvl.data.mappers import find_image, read_json
from hypvl.data.sample import BadSample, caption_text


@dataclass(frozen=True)
class DemoMapper:
    """Draws the caption of a training step from those of a demo sample: first its level, then one of it.

    Args:
        level_weights: relative frequency of the levels 1 (general) to 4 (specific); a level the sample lacks
            (digits have no level 4) is left out and the others keep their proportions.

    Raises:
        ValueError: for weights that are not four non-negative numbers with a positive sum.
    """

    level_weights: tuple[float, float, float, float] = (0.05, 0.35, 0.35, 0.25)

    def __post_init__(self) -> None:
        weights = tuple(float(w) for w in self.level_weights)  # configs hand over lists
        if len(weights) != len(LEVELS) or min(weights) < 0 or not 0 < sum(weights) < float("inf"):
            raise ValueError(
                f"level_weights is {self.level_weights}; expected four numbers of 0 or more, one for each of the "
                "levels 1 to 4, with a positive sum."
            )
        object.__setattr__(self, "level_weights", weights)

    def __call__(
        self, key: str, members: Mapping[str, bytes], generator: np.random.Generator
    ) -> dict[str, Any]:
        """``image`` and ``caption``. Raises BadSample when image or captions are missing or broken."""
        notes = read_json(key, members)
        by_level: dict[int, list[str]] = {}
        try:
            for entry in notes["captions"]:
                by_level.setdefault(int(entry["level"]), []).append(entry["text"])
        except (KeyError, TypeError, ValueError) as error:
            raise BadSample(key, "captions is not a list of {text, level}") from error
        levels = [level for level in LEVELS if level in by_level and self.level_weights[level - 1] > 0]
        if not levels:
            raise BadSample(key, f"no caption of a level with weight, it has levels {sorted(by_level)}")
        weights = np.array([self.level_weights[level - 1] for level in levels])
        level = levels[int(generator.choice(len(levels), p=weights / weights.sum()))]
        return {
            "image": find_image(key, members),
            "caption": caption_text(key, by_level[level], "captions", generator),
        }

"""Which caption a training step sees."""

import json

import numpy as np
import pytest

from hypvl.data.demo_mapper import DemoMapper
from hypvl.data.sample import BadSample

CAPTIONS = [
    {"text": "a shape", "level": 1},
    {"text": "a circle", "level": 2},
    {"text": "there is a circle", "level": 2},
    {"text": "a red circle", "level": 3},
    {"text": "a large red circle", "level": 4},
]


def members(captions: object = CAPTIONS, **changes: bytes) -> dict[str, bytes]:
    return {"png": b"picture", "json": json.dumps({"captions": captions}).encode()} | changes


def shares(mapper: DemoMapper, notes: dict[str, bytes], draws: int = 4000) -> dict[str, float]:
    texts = [mapper("k", notes, np.random.default_rng(i))["caption"] for i in range(draws)]
    return {text: texts.count(text) / draws for text in set(texts)}


def test_levels_are_drawn_by_weight_and_captions_of_a_level_evenly() -> None:
    found = shares(DemoMapper(level_weights=(1, 4, 0, 5)), members())
    assert set(found) == {"a shape", "a circle", "there is a circle", "a large red circle"}
    # 4,000 draws: four standard deviations are at most 0.032
    assert found["a shape"] == pytest.approx(0.1, abs=0.032)
    assert found["a circle"] == pytest.approx(0.2, abs=0.032)
    assert found["a large red circle"] == pytest.approx(0.5, abs=0.032)


def test_a_level_the_sample_lacks_leaves_the_others_in_proportion() -> None:
    found = shares(DemoMapper(level_weights=(1, 0, 3, 96)), members(CAPTIONS[:4]))
    assert set(found) == {"a shape", "a red circle"}
    assert found["a red circle"] == pytest.approx(0.75, abs=0.032)


def test_a_sample_is_a_function_of_the_generator() -> None:
    mapper = DemoMapper()
    first, second = (mapper("k", members(), np.random.default_rng(3)) for _ in range(2))
    assert first == second
    assert first["image"] == b"picture"


@pytest.mark.parametrize(
    ("notes", "reason"),
    [
        (members("a circle"), "captions is not a list"),
        ({"png": b"", "json": b"{}"}, "captions is not a list"),
        (members([{"text": "a circle", "level": 9}]), r"levels \[9\]"),
        (members([{"text": "", "level": 2}]), "empty captions"),
        (members(json=b"{"), "broken json"),
        ({"json": members()["json"]}, "missing image"),
    ],
)
def test_unusable_samples_are_bad(notes: dict[str, bytes], reason: str) -> None:
    with pytest.raises(BadSample, match=reason):
        DemoMapper()("k", notes, np.random.default_rng(0))


@pytest.mark.parametrize("weights", [(1, 2, 3), (0, 0, 0, 0), (1, -1, 1, 1), (1, 1, 1, float("nan"))])
def test_weights_that_are_none_are_refused(weights: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="level_weights is"):
        DemoMapper(level_weights=weights)  # type: ignore[arg-type]


def test_weights_may_come_as_a_list() -> None:
    assert DemoMapper(level_weights=[1, 2, 3, 4]).level_weights == (1.0, 2.0, 3.0, 4.0)  # type: ignore[arg-type]

from pathlib import Path

import pytest

from hypvl.datasets.composition.choices import Choice, ImageCollector
from hypvl.datasets.images import Box
from tests.evaluation.fakes import RED, image as pil_image


@pytest.mark.parametrize("foils, kinds", [((), ()), ("text", ()), (("a", "b"), ("x",))])
def test_a_choice_needs_foils_and_a_kind_for_each_or_none(
    foils: tuple[str, ...], kinds: tuple[str, ...]
) -> None:
    with pytest.raises(ValueError, match="expected a tuple of at least one text"):
        Choice(0, "caption", foils, "kind", kinds)


def test_each_image_is_collected_once(tmp_path: Path) -> None:
    collector, path = ImageCollector(), pil_image(tmp_path / "a.png", RED)
    result = [
        collector.add(path, key="a"),
        collector.add(path, key="a box", box=Box.from_xywh(0, 0, 2, 2)),
        collector.add(path, key="a"),
        collector.add(path, key="a box", box=Box.from_xywh(0, 0, 2, 2)),
    ]
    assert result == [0, 1, 0, 1] and collector.keys == ["a", "a box"]
    assert [tuple(image.shape) for image in collector.images] == [(3, 7, 9), (3, 2, 2)]
    assert collector.images.ids == [str(path), f"{path}::0,0,2,2"]

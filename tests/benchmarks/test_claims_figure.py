"""The image of README.md, drawn for a small untrained model over a few scenes."""

import json
from pathlib import Path

from benchmarks.claims.figure import COLORS, draw
from hypvl.embedding.encode import Encoding
from tests.evaluation.test_traversal_levels import files
from tests.training.tiny import tiny_model


def test_texts_by_level_and_traversals_are_drawn(tmp_path: Path) -> None:
    hierarchy, levels = files(
        tmp_path / "eval", levels={"shape": 1, "red": 2, "green": 2, "a red shape": 3, "red one": 4}
    )
    levels.rename(tmp_path / "text_pool_levels.json")
    figure = draw(tiny_model("meru", vocab_size=49408), tmp_path, Encoding(num_workers=0))
    disk, *rows = figure.axes
    drawn = {entry.get_label(): len(entry.get_offsets()) for entry in disk.collections}
    scenes = json.loads(hierarchy.read_text())["scenes"]
    texts = {"“a shape”": 1, "“a circle, a red shape”": 2, "“a red circle”": 1, "“a small red circle”": 1}
    assert drawn == {"images": len(scenes), **texts}
    assert len(drawn) == len(COLORS)
    assert len(rows) == 4
    for row in rows:
        assert row.images
        assert row.texts[-1].get_text() == "[ROOT]"

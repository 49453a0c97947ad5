"""Images of rankings, histograms and ways, from their JSON alone."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hypvl.errors import DataError
from hypvl.report.figures import read_pixels
from hypvl.report.ordering import draw_histograms, draw_interpolation, draw_ranking, evenly_spaced
from tests.evaluation.fakes import BLUE, RED, broken, image as pil_image


def colors(path: Path) -> set[tuple[int, int, int]]:
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB")).astype(np.int64)
    packed = np.unique(pixels @ np.array([65536, 256, 1]))
    return {(int(p) >> 16, int(p) >> 8 & 255, int(p) & 255) for p in packed}


def saved(folder: Path, content: dict[str, Any]) -> Path:
    path = folder / "result.json"
    path.write_text(json.dumps(content))
    return path


def test_an_even_choice() -> None:
    assert evenly_spaced(3, 5) == [0, 1, 2]
    assert evenly_spaced(101, 5) == [0, 25, 50, 75, 100]
    assert (evenly_spaced(7, 1), evenly_spaced(7, 0), evenly_spaced(0, 4)) == ([0], [], [])


def test_a_thumbnail_is_what_the_model_sees(tmp_path: Path) -> None:
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    Image.fromarray(np.full((8, 8), 40_000, dtype=np.uint16)).save(tmp_path / "deep.png")
    assert (read_pixels(tmp_path / "clear.png", longest_side=256) == 255).all()
    assert (read_pixels(tmp_path / "deep.png", longest_side=256) == 156).all()  # 40,000 / 257


def test_a_sheet_shows_the_images(tmp_path: Path) -> None:
    files = [pil_image(tmp_path / f"{i}.png", color) for i, color in enumerate((RED, BLUE))]
    items = [{"name": "a $x^", "path": str(file), "radius": i / 2} for i, file in enumerate(files)]
    out = draw_ranking(
        saved(tmp_path, {"order": "radius", "modality": "image", "items": items * 7}), tmp_path / "sheet.png"
    )
    assert {RED, BLUE} <= colors(out)
    broken(files[0])
    with pytest.raises(DataError, match=r"0\.png: cannot be read as an image"):
        draw_ranking(
            saved(tmp_path, {"order": "radius", "modality": "image", "items": items}), tmp_path / "sheet.png"
        )


def test_texts_are_listed(tmp_path: Path) -> None:
    items = [{"name": f"a $text^ {'long ' * i}", "along": i - 3.0} for i in range(60)]
    result = saved(tmp_path, {"order": "along", "through": "$y^", "modality": "text", "items": items})
    svg = draw_ranking(result, tmp_path / "deep" / "list.svg")
    assert svg.stat().st_size > 1000


def test_histograms_are_drawn_in_their_colours(tmp_path: Path) -> None:
    group: dict[str, Any] = {
        "count": 3,
        "counts": [1, 2],
        "mean": 0.4,
        "quantiles": [0.0, 0.1, 0.5, 0.8, 1.0],
    }
    out = draw_histograms(
        saved(tmp_path, {"edges": [0.0, 0.5, 1.0], "groups": {"a_$b^": group, "c": group}}),
        tmp_path / "h.png",
    )
    assert (31, 78, 121) in colors(out)  # the first colour


def test_ways_between_images(tmp_path: Path) -> None:
    first, last = pil_image(tmp_path / "a.png", RED), pil_image(tmp_path / "b.png", BLUE)
    ends = {"image": str(first), "target": str(last)}
    steps = [{"weight": w, "names": ["x", "y"], "paths": [str(first), str(last)]} for w in (0.0, 0.5, 1.0)]
    assert {RED, BLUE} <= colors(
        draw_interpolation(saved(tmp_path, {**ends, "steps": steps}), tmp_path / "w.png")
    )
    texts = [{"weight": 0.5, "names": ["a $x^"]}]
    assert {RED, BLUE} <= colors(
        draw_interpolation(saved(tmp_path, {**ends, "steps": texts}), tmp_path / "t.png")
    )


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="lacks order, items, modality; it is of another command"):
        draw_ranking(saved(tmp_path, {"steps": []}), tmp_path / "x.png")
    with pytest.raises(DataError, match=r"none\.json: cannot be read"):
        draw_histograms(tmp_path / "none.json", tmp_path / "x.png")
    with pytest.raises(DataError, match="no ranking"):
        draw_ranking(
            saved(tmp_path, {"order": "radius", "modality": "text", "items": [{"name": "a"}]}),
            tmp_path / "x.png",
        )
    with pytest.raises(DataError, match="no histograms"):
        draw_histograms(saved(tmp_path, {"edges": [0, 1], "groups": {"a": {}}}), tmp_path / "x.png")
    with pytest.raises(DataError, match="no interpolation"):
        draw_interpolation(saved(tmp_path, {"image": "a", "target": "b", "steps": []}), tmp_path / "x.png")

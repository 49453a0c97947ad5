"""The image of a traversal, from its JSON alone."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hypvl.errors import DataError
from hypvl.io.images import read_image_file
from hypvl.report.figures import read_pixels
from hypvl.report.traversal import Stretch, draw_traversal, spread, stretches


def saved(folder: Path, content: dict[str, Any]) -> Path:
    path = folder / "saved.json"
    path.write_text(json.dumps(content))
    return path


def steps(*pairs: tuple[str, float]) -> list[dict[str, Any]]:
    return [{"text": text, "radius": radius, "score": 0.0, "weight": 0.0} for text, radius in pairs]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "red.png"
    Image.new("RGB", (30, 20), (250, 0, 0)).save(path)
    return path


def test_equal_neighbours_are_one_stretch() -> None:
    joined = stretches(steps(("a dog", 3.0), ("a dog", 2.0), ("dog", 1.5), ("a dog", 1.0), ("[ROOT]", 0.0)))
    assert joined == [
        Stretch("a dog", near=2.0, far=3.0, first=True),
        Stretch("dog", near=1.5, far=1.5, first=True),
        Stretch("a dog", near=1.0, far=1.0, first=False),
        Stretch("[ROOT]", near=0.0, far=0.0, first=True),
    ]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ([9.0, 5.0, 1.0], [9.0, 5.0, 1.0]),  # room enough
        ([5.0, 5.0, 5.0], [5.0, 4.0, 3.0]),  # pushed down
        ([1.0, 0.5, 0.0], [2.0, 1.0, 0.0]),  # the lowest stays, the others move up
        ([12.0], [10.0]),
        ([], []),
    ],
)
def test_labels_keep_their_distance(wanted: list[float], expected: list[float]) -> None:
    assert spread(wanted, gap=1.0, high=10.0) == pytest.approx(expected)


def test_too_many_labels_keep_their_distance_and_go_below() -> None:
    places = spread([1.0] * 5, gap=1.0, high=2.0)
    assert places == pytest.approx([2.0, 1.0, 0.0, -1.0, -2.0])


def test_the_image_shows_image_and_texts(tmp_path: Path, image: Path) -> None:
    result = tmp_path / "red.json"
    content = {"image": str(image), "root": "text pool", "texts": ["a $x^", "[ROOT]"]}
    content["steps"] = steps(("a $x^", 2.0), ("a $x^", 1.0), ("[ROOT]", 0.0))
    result.write_text(json.dumps(content))
    drawn = draw_traversal(result, tmp_path / "new" / "red.png")
    with Image.open(drawn) as pil_image:
        pixels = pil_image.convert("RGB")
        assert pil_image.width > 1000
        assert (250, 0, 0) in {color for _, color in pixels.getcolors(1 << 20)}  # the image itself
    assert draw_traversal(saved(tmp_path, content), tmp_path / "red.svg").read_text().count("<svg") == 1


def test_what_is_drawn_is_what_the_model_sees(tmp_path: Path) -> None:
    clear = Image.new("RGBA", (40, 40), (0, 0, 0, 0))
    clear.paste((0, 0, 200, 255), (0, 0, 20, 40))
    clear.save(tmp_path / "clear.png")
    content = {"image": str(tmp_path / "clear.png"), "root": "geometry"}
    content["steps"] = steps(("a", 1.0), ("[ROOT]", 0.0))
    shown = read_image_file(tmp_path / "clear.png").movedim(0, -1)
    assert shown[0, 39].tolist() == [255, 255, 255]
    assert (read_pixels(tmp_path / "clear.png") == shown.numpy()).all()
    with Image.open(draw_traversal(saved(tmp_path, content), tmp_path / "t.png")) as pil_image:
        drawn = np.asarray(pil_image.convert("RGB"))
    assert (drawn == (0, 0, 200)).all(axis=-1).sum() > 1000  # the left half
    assert (drawn == (0, 0, 0)).all(axis=-1).mean() < 0.05  # letters and lines only


def test_one_point_at_the_root_can_be_drawn(tmp_path: Path, image: Path) -> None:
    content = {"image": str(image), "root": "geometry", "steps": steps(("[ROOT]", 0.0), ("[ROOT]", 0.0))}
    assert draw_traversal(saved(tmp_path, content), tmp_path / "t.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read"),
        ("[]", "holds a list; expected a traversal"),
        ("{}", "lacks image, root, steps"),
        ('{"image": "x.png", "root": "geometry"}', "lacks steps; it is of another command"),
        ('{"image": "x.png", "root": "geometry", "steps": []}', "a traversal without steps"),
        ('{"image": "x.png", "root": "geometry", "steps": [{"text": "a", "radius": "far"}]}', "no traversal"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "result.json"
    path.write_text(content)
    with pytest.raises(DataError, match=rf"result\.json: {message}"):
        draw_traversal(path, tmp_path / "t.png")
    assert not (tmp_path / "t.png").exists()


def test_an_error_names_the_missing_image(tmp_path: Path) -> None:
    content = {"image": str(tmp_path / "gone.png"), "root": "geometry", "steps": steps(("[ROOT]", 0.0))}
    with pytest.raises(DataError, match=r"gone\.png: cannot be read"):
        draw_traversal(saved(tmp_path, content), tmp_path / "t.png")
    with pytest.raises(DataError, match=r"absent\.json: cannot be read"):
        draw_traversal(tmp_path / "absent.json", tmp_path / "t.png")


@pytest.mark.slow
def test_drawing_leaves_pyplot_alone(tmp_path: Path, image: Path) -> None:
    content = {"image": str(image), "root": "geometry", "steps": steps(("a", 1.0), ("[ROOT]", 0.0))}
    code = (
        "import sys, json; from hypvl.report.traversal import draw_traversal; "
        "assert 'matplotlib' not in sys.modules; "
        "draw_traversal(sys.argv[1], sys.argv[2]); assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(saved(tmp_path, content)), str(tmp_path / "t.png")], check=True
    )


def test_texts_that_no_font_has_are_drawn(tmp_path: Path) -> None:
    pil_image = tmp_path / os.fsdecode(b"a$b_\xff$.png")
    Image.new("RGB", (8, 8)).save(pil_image)
    steps = [{"text": "a\udcff $x_{$ \x1b[3m", "radius": 1.0}]
    content = {"steps": steps, "root": "geometry", "image": str(pil_image)}
    assert draw_traversal(saved(tmp_path, content), tmp_path / "out.png").stat().st_size > 0

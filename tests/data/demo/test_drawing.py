"""Shapes, colours and boxes of the drawn images."""

import numpy as np
import pytest

from hypvl.data.demo.drawing import COLORS, SHAPES, DrawnObject, draw_digit, draw_scene, unit_outline


def item(shape: str = "square", color: str = "blue", texture: str = "plain", **place: float) -> DrawnObject:
    where = {"x": 32.0, "y": 32.0, "radius": 20.0, "angle": 0.0} | place
    return DrawnObject(shape, color, "large", texture, **where)


def test_box_of_an_upright_square() -> None:
    # half a side is 0.86 x 20 = 17.2 pixels: from (32 - 17.2) / 64 to (32 + 17.2) / 64
    assert item().box() == [0.2313, 0.2313, 0.7688, 0.7688]


def test_box_follows_the_centre_and_stays_inside() -> None:
    left, top, right, bottom = item(x=10.0, y=40.0).box()
    assert (left, right) == (0.0, pytest.approx(27.2 / 64, abs=1e-4))
    assert (top, bottom) == (pytest.approx(22.8 / 64, abs=1e-4), pytest.approx(57.2 / 64, abs=1e-4))


@pytest.mark.parametrize("color", list(COLORS))
def test_a_plain_object_has_its_color_and_leaves_the_background_light(color: str) -> None:
    pixels = np.asarray(draw_scene([item(color=color)], np.random.default_rng(0))).astype(float)
    np.testing.assert_allclose(pixels[32, 32], COLORS[color], atol=11)  # drawn within 10 of the table
    assert pixels[:6].min() > 210


@pytest.mark.parametrize("shape", SHAPES)
def test_a_image_covers_the_area_of_its_shape(shape: str) -> None:
    # The border is 1.5 pixels wide, half of it outside; around the hole of a ring, all of it inside the hole.
    points = unit_outline(shape) * 20.0
    x, y = points.T
    area = 0.5 * abs(float(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1))))
    area += 0.75 * float(np.linalg.norm(points - np.roll(points, 1, axis=0), axis=1).sum())
    if shape == "ring":
        area -= np.pi * 8.5**2
    pixels = np.asarray(draw_scene([item(shape, "black")], np.random.default_rng(0))).astype(float)
    dark = (pixels.mean(axis=-1) < 140).sum()
    assert dark == pytest.approx(area, rel=0.08)


def test_a_ring_has_a_hole_and_a_circle_none() -> None:
    ring = np.asarray(draw_scene([item("ring", "black")], np.random.default_rng(0)))
    circle = np.asarray(draw_scene([item("circle", "black")], np.random.default_rng(0)))
    assert ring[32, 32].min() > 200
    assert circle[32, 32].max() < 80


@pytest.mark.parametrize("texture", ["striped", "dotted"])
def test_textures_have_two_tones(texture: str) -> None:
    pixels = np.asarray(draw_scene([item(texture=texture, color="black")], np.random.default_rng(0)))
    inside = pixels[20:44, 20:44].mean(axis=-1)
    light = (inside > 200).mean()
    assert 0.1 < light < 0.6
    assert (inside < 80).mean() > 0.2


def test_edges_are_smooth() -> None:
    pixels = np.asarray(draw_scene([item("circle", "black")], np.random.default_rng(0))).astype(float)
    row = pixels[32].mean(axis=-1)
    assert ((row > 90) & (row < 200)).sum() >= 2  # a half-covered pixel on either side


def test_an_object_at_the_border_is_cut_not_wrapped() -> None:
    pixels = np.asarray(draw_scene([item(x=0.0, color="black")], np.random.default_rng(0)))
    assert pixels[32, 2].max() < 80
    assert pixels[32, 40:].min() > 200


def test_a_digit_keeps_its_ink() -> None:
    scan = np.zeros((8, 8))
    scan[:, 3:5] = 16.0
    pixels = np.asarray(draw_digit(scan, np.random.default_rng(0))).astype(float)
    assert pixels.shape == (64, 64, 3)
    assert pixels[32, 32].max() < 110
    assert pixels[32, [4, 60]].min() > 225


def test_an_unknown_shape_is_named() -> None:
    with pytest.raises(ValueError, match="shape is 'blob'; expected one of circle, square"):
        unit_outline("blob")

"""What the report shows of a model, for geometries with and without curvature."""

import base64
import io
import math
from pathlib import Path

import pytest
import torch
from PIL import Image

from hypvl.datasets.text_pool import PoolText
from hypvl.embedding.encode import CachedEncoder, Encoding
from hypvl.errors import DataError
from hypvl.evaluation.report_data import report_data, thumbnail
from hypvl.geometry.product import Product
from hypvl.geometry.sphere import Sphere
from hypvl.io.images import read_image_file
from hypvl.io.json_text import json_bytes
from hypvl.report.html.answers import ABOVE, CURVED, FAILING, answers
from tests.evaluation.captioned import captioned
from tests.evaluation.fakes import FakeModel, FakeTokenizer
from tests.evaluation.hyperbolic import Hyperbolic

POOL = [PoolText("red", "red"), PoolText("shape", "shape")]


def encoder(model: FakeModel) -> CachedEncoder:
    return CachedEncoder(
        model, encoding=Encoding(num_workers=0, max_bad_fraction=0.5), tokenizer=FakeTokenizer()
    )


def opened(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


def test_everything_of_a_hyperbolic_model(tmp_path: Path) -> None:
    data = report_data(encoder(Hyperbolic()), captioned(tmp_path, bad=1), pool=POOL, traversals=1)
    json_bytes(data)  # plain, finite
    assert (data["pairs"], len(data["images"]), len(data["plane"]["points"])) == (4, 4, 8)
    assert data["geometry"]["curv"] == pytest.approx(1.0)
    points = data["plane"]["points"]
    assert [point["modality"] for point in points] == ["image"] * 4 + ["text"] * 4
    radii = [point["radius"] for point in points]
    assert radii == pytest.approx([2, 2, 2, 2 * 0.9929, 1, 0.3464, 1, 0.9899], abs=0.01)
    caption = [data["images"][point["image"]]["caption"] for point in points]
    assert caption[4:] == ["red", "shape", "blue", "yellow"]
    red, shape, *_ = data["cones"]
    assert (red["apex"], shape["apex"]) == (4, 5)
    assert red["holds"] == [0]  # its own image, behind it
    assert red["own_angle"] == pytest.approx(0.0, abs=1e-3)
    assert red["half_aperture"] == pytest.approx(math.asin(2 * 0.5 / math.sinh(1.0)), abs=1e-3)
    assert {0, 1, 2, 3} <= set(shape["holds"])
    assert sum(data["radii"]["image"]) == sum(data["radii"]["text"]) == 4
    for point in data["sphere"]["points"]:
        assert sum(x * x for x in point) == pytest.approx(1.0)
    (walk,) = data["traversals"]
    assert walk["texts"] == ["red", "shape", "[ROOT]"]
    assert opened(data["images"][0]["thumbnail"]).convert("RGB").getpixel((4, 3))[0] > 240


class OnSphere(FakeModel):
    """The colour model on the unit sphere."""

    def __init__(self) -> None:
        super().__init__()
        self.geometry = Sphere()

    def encode_image(self, images: torch.Tensor, stage: str = "embeddings") -> torch.Tensor:
        return self.geometry.lift(super().encode_image(images))

    def encode_text(self, tokens: torch.Tensor, stage: str = "embeddings") -> torch.Tensor:
        return self.geometry.lift(super().encode_text(tokens) + 0.1)


def test_a_sphere_has_a_plain_projection_and_no_cones(tmp_path: Path) -> None:
    data = report_data(encoder(OnSphere()), captioned(tmp_path), pool=POOL, traversals=0, points=3)
    json_bytes(data)
    assert data["geometry"] == {
        "curv": None, "factors": 0, "cones": False, "root": False,
        "radius": "distance to the mean embedding", "dim": 3,
    }  # fmt: skip
    assert (data["cones"], data["traversals"], data["plane"]["centre"]) == (None, [], "mean")
    assert (len(data["plane"]["points"]), data["audit"]["verdict"]) == (6, "no curvature")
    with pytest.raises(ValueError, match="horopca"):
        report_data(encoder(OnSphere()), captioned(tmp_path), pool=POOL, projection="horopca")


def test_two_pairs_are_too_few(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="2 readable images with a caption; expected at least 3"):
        report_data(encoder(Hyperbolic()), captioned(tmp_path), pool=POOL, limit=2)


def test_a_thumbnail_lies_over_white_as_the_model_sees_it(tmp_path: Path) -> None:
    Image.new("RGBA", (400, 200), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    small = opened(thumbnail(read_image_file(tmp_path / "clear.png"), side=80))
    assert small.size == (80, 40)
    assert min(small.convert("RGB").getpixel((40, 20))) > 250


class InAProduct(FakeModel):
    """The colour model with a factor for each colour."""

    def __init__(self) -> None:
        super().__init__()
        self.geometry = Product(3, 1, min_radius=0.05)

    def encode_image(self, images: torch.Tensor, stage: str = "embeddings") -> torch.Tensor:
        return self.geometry.lift(2.0 * super().encode_image(images))

    def encode_text(self, tokens: torch.Tensor, stage: str = "embeddings") -> torch.Tensor:
        return self.geometry.lift(super().encode_text(tokens))


def test_a_product_has_cones_but_no_disk(tmp_path: Path) -> None:
    data = report_data(encoder(InAProduct()), captioned(tmp_path), pool=POOL, traversals=1)
    json_bytes(data)
    geometry = data["geometry"]
    assert (geometry["curv"], geometry["factors"], geometry["cones"], geometry["root"]) == (
        None,
        3,
        True,
        True,
    )
    assert [answer.question for answer in answers(data)] == [CURVED, ABOVE, FAILING]
    assert len(data["cones"]) == 4 and data["plane"]["centre"] == "root"

"""Geometries and scorers as plain data, and back."""

import json

import pytest
import torch
from torch import nn

from hypvl.errors import CheckpointError
from hypvl.geometry.base import Geometry
from hypvl.geometry.euclidean import Euclidean
from hypvl.geometry.lorentz import Lorentz
from hypvl.geometry.product import Product
from hypvl.geometry.scorers import Cosine, ExteriorAngle, NegativeDistance, Scorer
from hypvl.geometry.sphere import Sphere
from hypvl.models.parts import describe, rebuild

GEOMETRIES = [
    Lorentz(curv_init=0.3, learn_curv=False, pooling="direction", clamp="value"),
    Product(2, 4, metric="l2"),
    Euclidean(min_radius=0.2),
    Sphere(),
]
SCORERS = [NegativeDistance(ranking="published"), ExteriorAngle(ranking="published"), Cosine(bias_init=-1.0)]


@pytest.mark.parametrize("part", [*GEOMETRIES, *SCORERS], ids=lambda part: type(part).__name__)
def test_a_part_comes_back_from_json(part: nn.Module) -> None:
    kind: type[nn.Module] = Scorer if part in SCORERS else Geometry
    with torch.no_grad():
        for parameter in part.parameters():
            parameter.add_(0.1)
    record = json.loads(json.dumps(describe(part)))
    again = rebuild(record, kind, source="image.onnx")
    assert type(again) is type(part)
    assert {**describe(again), "state": None} == {**record, "state": None} or isinstance(part, Cosine)
    for name, value in again.state_dict().items():
        assert torch.equal(value, part.state_dict()[name])


def test_other_classes_and_arguments_are_refused_before_anything_is_built() -> None:
    record = describe(Lorentz())
    with pytest.raises(
        CheckpointError, match=r"image.onnx: its geometry is 'os.system', which is not on the allow-list"
    ):
        rebuild({**record, "class": "os.system"}, Geometry, source="image.onnx")
    with pytest.raises(CheckpointError, match="Cosine is no Geometry"):
        rebuild({**record, "class": "hypvl.geometry.scorers.Cosine"}, Geometry, source="image.onnx")
    with pytest.raises(CheckpointError, match="curv_init: got -1"):
        rebuild({**record, "arguments": {"curv_init": -1}}, Geometry, source="image.onnx")

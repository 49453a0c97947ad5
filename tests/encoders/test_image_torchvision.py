"""torchvision's classifiers without their last layer: width, features, weights with their own pixels, errors."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torchvision import models

from hypvl.encoders.image import without_pretrained_weights
from hypvl.encoders.image_base import IMAGENET_MEAN
from hypvl.encoders.image_torchvision import TorchvisionImageEncoder, list_torchvision_archs
from hypvl.errors import ConfigError, UserError

# Architecture: width, the layer that goes, side of the test image.
SMALL = {
    "mobilenet_v3_small": (1024, "classifier.3", 64),
    "squeezenet1_0": (512, "classifier.1", 64),
}
LARGE = {
    "regnet_y_400mf": (440, "fc", 64),
    "shufflenet_v2_x0_5": (1024, "fc", 64),
    "mnasnet0_5": (1280, "classifier.1", 64),
    "efficientnet_b0": (1280, "classifier.1", 64),
    "resnet50": (2048, "fc", 64),
    "alexnet": (4096, "classifier.6", 224),
    "convnext_tiny": (768, "classifier.2", 64),
    "wide_resnet50_2": (2048, "fc", 64),
    "vgg11": (4096, "classifier.6", 64),
    "inception_v3": (2048, "fc", 96),
    "googlenet": (1024, "fc", 64),
    "mobilenet_v3_large": (1280, "classifier.3", 64),
    "mobilenet_v2": (1280, "classifier.1", 64),
    "vit_b_16": (768, "heads.head", 64),
    "densenet121": (1024, "classifier", 64),
    "swin_t": (768, "head", 64),
    "maxvit_t": (512, "classifier.5", 224),
}
CASES = [pytest.param(name, id=name) for name in SMALL] + [
    pytest.param(name, id=name, marks=pytest.mark.slow) for name in LARGE
]


@torch.no_grad()
@pytest.mark.parametrize("arch", CASES)
def test_features_are_the_input_of_the_last_layer(arch: str) -> None:
    width, layer, size = (SMALL | LARGE)[arch]
    torch.manual_seed(0)
    encoder = TorchvisionImageEncoder(arch, image_size=size).eval()
    args: dict[str, Any] = {"init_weights": False} if arch in ("inception_v3", "googlenet") else {}
    if arch == "vit_b_16":
        args["image_size"] = size
    whole = models.get_model(arch, weights=None, **args).eval()
    own = encoder.trunk.state_dict()
    assert [name for name in whole.state_dict() if name.startswith(layer)]  # what goes
    gone = {name for name in whole.state_dict() if name not in own}
    assert {name for name in gone if not name.startswith(("AuxLogits", "aux"))} == {
        name for name in whole.state_dict() if name.startswith(layer)
    }
    whole.load_state_dict(own, strict=False)
    seen: list[torch.Tensor] = []
    whole.get_submodule(layer).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    images = torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8)
    whole((images / 255 - encoder.pixel_mean) / encoder.pixel_std)
    expected = seen[0].mean(dim=(2, 3)) if seen[0].ndim == 4 else seen[0]
    assert encoder.width == width == expected.shape[1]
    torch.testing.assert_close(encoder(images), expected, rtol=1e-5, atol=1e-5)


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """Random weights where torch.hub keeps those of SqueezeNet 1.1 that it has downloaded."""
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    torch.manual_seed(3)
    state = models.squeezenet1_1().state_dict()
    file = tmp_path / "checkpoints" / models.SqueezeNet1_1_Weights.DEFAULT.url.rpartition("/")[2]
    file.parent.mkdir()
    torch.save(state, file)
    return state


def test_weights_come_with_their_pixels_and_size(cached: dict[str, torch.Tensor]) -> None:
    encoder = TorchvisionImageEncoder("squeezenet1_1", weights="IMAGENET1K_V1")
    name = "features.3.squeeze.weight"
    assert torch.equal(encoder.trunk.state_dict()[name], cached[name])
    size, mean, std, interpolation = encoder.preprocessing
    assert (size, interpolation) == (224, "bilinear")
    assert mean == pytest.approx(IMAGENET_MEAN) and std == pytest.approx((0.229, 0.224, 0.225))
    said = TorchvisionImageEncoder(
        "squeezenet1_1", weights="DEFAULT", pixel_mean=[0.5, 0.5, 0.5], image_size=64
    )
    assert said.image_size == 64 and said.preprocessing.mean == (0.5, 0.5, 0.5)
    assert said.asked_pixels == {"pixel_mean"}


def test_a_checkpoint_needs_no_weights_of_torchvision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    with without_pretrained_weights():
        encoder = TorchvisionImageEncoder("squeezenet1_1", weights="DEFAULT", image_size=64)
    assert encoder.interpolation == "bilinear" and not list(tmp_path.iterdir())


def test_weights_that_cannot_be_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_: Any, **__: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    with pytest.raises(
        UserError, match=r"weights .* of visual\.arch 'squeezenet1_1' could not be fetched \(no network\)"
    ):
        TorchvisionImageEncoder("squeezenet1_1", weights="DEFAULT")


def test_all_but_the_sized_ones_take_any_image() -> None:
    encoder = TorchvisionImageEncoder("squeezenet1_1", image_size=64)
    assert encoder(torch.zeros(2, 3, 48, 80, dtype=torch.uint8)).shape == (2, 512)
    assert encoder.training and encoder.trunk.training
    assert isinstance(encoder.trunk.classifier[1], nn.Identity)


def test_arguments_of_the_builder() -> None:
    encoder = TorchvisionImageEncoder("squeezenet1_1", image_size=64, torchvision_args={"dropout": 0.25})
    assert encoder.trunk.classifier[0].p == 0.25


def test_every_classifier_is_known() -> None:
    names = list_torchvision_archs()
    assert {*SMALL, *LARGE} <= {*names} and len(names) >= 80
    assert not [name for name in names if "segmentation" in name or "rcnn" in name or "raft" in name]


@pytest.mark.parametrize(
    ("arch", "options", "message"),
    [
        ("resnet51", {}, r"visual\.arch is 'resnet51', which is not .*; the closest names are .*resnet50"),
        ("raft_large", {}, "which is not an image classifier of torchvision"),
        (
            "resnet18",
            {"weights": "V3"},
            r"visual\.weights is 'V3', but torchvision's weights of resnet18 are IMAGENET1K_V1",
        ),
        (
            "resnet18",
            {"torchvision_args": {"num_classes": 5}},
            r"torchvision_args has num_classes, but may only hold",
        ),
        ("squeezenet1_1", {"torchvision_args": {"depth": 5}}, r"'squeezenet1_1' does not take .*'depth': 5"),
    ],
)
def test_what_cannot_be_built(arch: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TorchvisionImageEncoder(arch, **options)


def test_sizes_that_do_not_fit() -> None:
    with pytest.raises(
        ValueError, match="image_size: got 8, with which torchvision's squeezenet1_1 cannot run"
    ):
        TorchvisionImageEncoder("squeezenet1_1", image_size=8)
    with pytest.raises(ValueError, match=r"image_size: got 100, .*torchvision cannot build vit_b_16"):
        TorchvisionImageEncoder("vit_b_16", image_size=100)
    with pytest.raises(
        ValueError, match=r"torchvision_args.dropout: got -1; expected a number of at least 0"
    ):
        TorchvisionImageEncoder("squeezenet1_1", torchvision_args={"dropout": -1})

"""Normalisation and checks that all image encoders share."""

import math

import pytest
import torch
from PIL import Image
from torch import Tensor

from hypvl.encoders.image_base import IMAGENET_MEAN, IMAGENET_STD, ImageEncoder, normalize_pixels, sincos_2d


class Pixels(ImageEncoder):
    """Returns what its network would see."""

    def encode(self, pixels: Tensor) -> Tensor:
        return pixels


def encoder(**options: object) -> Pixels:
    settings: dict = {"pixel_mean": IMAGENET_MEAN, "pixel_std": IMAGENET_STD, "fixed_size": True} | options
    return Pixels(4, **settings)


def test_values_by_hand() -> None:
    image = torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
    image[:, 0], image[:, 1], image[:, 2] = 0, 255, 51
    seen = encoder(pixel_mean=(0.5, 0.25, 0.1), pixel_std=(0.5, 0.25, 0.2))(image)
    torch.testing.assert_close(seen[0, :, 0, 0], torch.tensor([-1.0, 3.0, 0.5]))


def test_bytes_and_floats_agree() -> None:
    image = torch.arange(96, dtype=torch.uint8).view(2, 3, 4, 4) * 2
    assert torch.equal(encoder()(image), encoder()(image / 255))


def test_buffers_are_saved_and_win_over_the_arguments() -> None:
    source, target = encoder(pixel_mean=(0.229, 0.224, 0.225)), encoder()
    assert source.pixel_mean.shape == source.pixel_std.shape == (3, 1, 1)
    target.load_state_dict(source.state_dict())
    image = torch.rand(1, 3, 4, 4)
    assert torch.equal(source(image), target(image))


def test_precision() -> None:
    image = torch.arange(0, 256, 16, dtype=torch.uint8).view(1, 1, 4, 4).expand(1, 3, 4, 4)
    exact = encoder().double()(image)
    assert exact.dtype == torch.float64
    # 16-bit models: computed in fp32 and rounded once, which is at most 2^-8 relative; 1e-5 is for fp32
    # where bytes near the mean cancel.
    half = encoder().bfloat16()
    mean, std = half.pixel_mean.double(), half.pixel_std.double()
    assert half(image).dtype == torch.bfloat16
    expected = (image.double() / 255 - mean) / std
    torch.testing.assert_close(half(image).double(), expected, rtol=2**-8, atol=1e-5)


def test_wrong_images_are_named() -> None:
    with pytest.raises(TypeError, match=r"images have dtype torch.int64, but uint8 or floats"):
        encoder()(torch.zeros(1, 3, 4, 4, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"images have shape \(1, 4, 4, 3\), but \(B, 3, H, W\)"):
        encoder()(torch.zeros(1, 4, 4, 3))
    with pytest.raises(ValueError, match=r"images are 4 x 5, but this encoder takes 4 x 4"):
        encoder()(torch.zeros(1, 3, 4, 5))
    assert encoder(fixed_size=False)(torch.zeros(1, 3, 4, 5)).shape == (1, 3, 4, 5)
    with pytest.raises(ValueError, match="three numbers each"):
        encoder(pixel_mean=(0.5,))
    for wrong in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match=r"pixel_std: got .*; expected a number above 0"):
            encoder(pixel_std=(1.0, wrong, 1.0))


def test_pure_function_follows_the_dtype_of_the_mean() -> None:
    mean, std = torch.zeros(3, 1, 1, dtype=torch.float16), torch.ones(3, 1, 1, dtype=torch.float16)
    assert normalize_pixels(torch.rand(1, 3, 2, 2), mean, std).dtype == torch.float16


@pytest.mark.parametrize(
    ("images", "ends"),
    [
        (torch.tensor([-1.8, 2.1]), "-1.8 to 2.1"),  # ToTensor and Normalize, as open_clip's transforms end
        (torch.tensor([0.0, 255.0]), "0 to 255"),  # bytes made floats, not divided
        (torch.tensor([0.2, 1.01]), "0.2 to 1.01"),  # what a bicubic resize overshoots
        (torch.tensor([-0.01, 0.3]), "-0.01 to 0.3"),
        (torch.tensor([0.5, float("nan")]), "nan to nan"),
    ],
)
@pytest.mark.parametrize("training", [False, True])
def test_floats_outside_0_to_1_are_no_pixels(images: Tensor, ends: str, training: bool) -> None:
    images = images.repeat(24).view(1, 3, 4, 4)
    model = encoder().train(training)
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        if training and images.isnan().any():  # the step is skipped, and its samples are named
            assert model(images.to(dtype)).isnan().any()
            continue
        with pytest.raises(
            ValueError, match=r"images are floats from .*subtracts pixel_mean itself"
        ) as caught:
            model(images.to(dtype))
        if dtype == torch.float32:
            assert f"from {ends}, but uint8, or floats in [0, 1]" in str(caught.value)
    for fine in (images.clamp(0, 1).nan_to_num(), torch.tensor([-1e-3, 1.001]).repeat(24).view(1, 3, 4, 4)):
        assert model(fine).isfinite().all()
    assert len(model(images[:0])) == 0


def test_a_device_is_waited_for_once_in_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step of training costs no wait for the device; evaluation looks at every batch."""
    looked: list[int] = []
    monkeypatch.setattr(
        "hypvl.encoders.image_base.check_range", lambda images, **how: looked.append(len(images))
    )

    class Elsewhere(Tensor):
        """On a device, as far as it says."""

        @property
        def device(self) -> torch.device:  # type: ignore[override]
            return torch.device("cuda")

    def batch(count: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.zeros(count, 3, 4, 4).to(dtype).as_subclass(Elsewhere)

    model = encoder().train()
    for count in (1, 2, 3):
        model(batch(count))
    assert looked == [1]
    model.eval()
    model(batch(4))
    model(batch(5))
    model(batch(6, torch.uint8))
    assert looked == [1, 4, 5]


def test_what_is_no_tensor_is_named() -> None:
    with pytest.raises(TypeError, match=r"images are a Image, but a tensor .*create_model_and_transforms"):
        encoder()(Image.new("RGB", (4, 4)))
    with pytest.raises(TypeError, match=r"images are a str"):
        encoder()("cat.jpg")


def test_sincos_values_by_hand() -> None:
    table = sincos_2d(8, (2, 3))[0]  # q = 2, w = (1, 1/100)
    assert table.shape == (7, 8)
    assert not table.requires_grad
    assert table[0].tolist() == [0.0] * 8
    # Patch in row 1, column 2 is token 1 + 3 * 1 + 2; the row comes first.
    row = [math.sin(1), math.sin(0.01), math.cos(1), math.cos(0.01)]
    column = [math.sin(2), math.sin(0.02), math.cos(2), math.cos(0.02)]
    torch.testing.assert_close(table[6], torch.tensor([*row, *column]), rtol=0, atol=2e-7)


def test_first_half_is_the_row_second_half_the_column() -> None:
    table = sincos_2d(16, (3, 5), prefix_tokens=0)[0].view(3, 5, 16)
    assert (table[..., :8] == table[:, :1, :8]).all()  # the same along a row
    assert (table[..., 8:] == table[:1, :, 8:]).all()  # the same along a column
    assert not torch.equal(table[0, 0, :8], table[1, 0, :8])
    # Turning the image by its diagonal swaps the halves.
    turned = sincos_2d(16, (5, 3), prefix_tokens=0)[0].view(5, 3, 16).transpose(0, 1)
    assert torch.equal(turned.roll(8, -1), table)


def test_prefix_tokens_have_no_position() -> None:
    many, none = sincos_2d(8, (2, 2), prefix_tokens=3), sincos_2d(8, (2, 2), prefix_tokens=0)
    assert torch.equal(many[:, 3:], none)
    assert many[:, :3].abs().sum() == 0


@pytest.mark.parametrize("width", [0, 2, 6, -4])
def test_width_is_a_multiple_of_four(width: int) -> None:
    with pytest.raises(ValueError, match=rf"width is {width}, .* multiple of 4"):
        sincos_2d(width, (2, 2))

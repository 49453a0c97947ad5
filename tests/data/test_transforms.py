import io
import math
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms as v1
from torchvision.transforms import InterpolationMode, v2

from hypvl.data import transforms as module
from hypvl.data.transforms import RandomResizedCrop, ResizeCenterCrop, Squeeze
from hypvl.errors import ConfigError
from hypvl.io.images import decode_image
from tests.data.helpers import encode, jpeg


def pixels(image: torch.Tensor) -> np.ndarray:
    return image.permute(1, 2, 0).numpy()


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


IMAGE = Image.open(io.BytesIO(jpeg(3, 33, 21)))


def test_crop_areas_and_ratios_are_distributed_as_asked():
    crop = RandomResizedCrop(8, scale=(0.5, 1.0), ratio=(0.75, 4 / 3))
    boxes = np.array([crop.crop(3000, 4000, seeded(s)) for s in range(1500)], dtype=float)
    top, left, h, w = boxes.T
    area, ratio = h * w / 12e6, w / h
    assert (top >= 0).all() and (left >= 0).all() and (top + h <= 3000).all() and (left + w <= 4000).all()
    assert 0.4999 < area.min() < 0.51 and area.max() < 1.0001
    assert 0.7495 < ratio.min() < 0.78 and 1.3 < ratio.max() < 1.334
    with torch.random.fork_rng():
        torch.manual_seed(0)
        canvas = torch.empty(3, 3000, 4000, device="meta")
        theirs = np.array(
            [v1.RandomResizedCrop.get_params(canvas, [0.5, 1.0], [0.75, 4 / 3]) for _ in range(1500)],
            dtype=float,
        )
    for ours, other in ((area, theirs[:, 2] * theirs[:, 3] / 12e6), (ratio, theirs[:, 3] / theirs[:, 2])):
        spread = 4 * math.sqrt((ours.var() + other.var()) / 1500)  # four standard errors
        assert ours.mean() == pytest.approx(other.mean(), abs=spread)
    assert (top[h < 3000] / (3000 - h[h < 3000])).mean() == pytest.approx(0.5, abs=0.03)


def test_crop_fallback_is_the_largest_centred_one():
    crop = RandomResizedCrop(8, scale=(1.0, 1.0))
    assert crop.crop(5000, 1, seeded()) == (2499, 0, 1, 1)
    assert crop.crop(100, 1000, seeded()) == (0, 433, 100, 133)
    assert crop.crop(1000, 100, seeded()) == (433, 0, 133, 100)
    assert crop.crop(1, 1, seeded()) == (0, 0, 1, 1)


def test_crop_pixels_are_pils_resize_of_that_part():
    image = decode_image(encode(IMAGE, "PNG"))
    transform = RandomResizedCrop(16)
    top, left, h, w = transform.crop(21, 33, seeded(4))
    expected = IMAGE.resize((16, 16), Image.Resampling.BICUBIC, box=(left, top, left + w, top + h))
    # PIL rounds between its two passes and sees pixels beyond the box's edge
    assert np.abs(pixels(transform(image, seeded(4))).astype(int) - np.asarray(expected)).mean() < 1.5


def test_crops_draw_from_their_generator_only():
    image, transform = decode_image(jpeg(1)), RandomResizedCrop(16)
    state = torch.random.get_rng_state()
    first = transform(image, seeded(1))
    assert torch.equal(first, transform(image, seeded(1)))
    assert not torch.equal(first, transform(image, seeded(2)))
    assert torch.equal(state, torch.random.get_rng_state())
    with pytest.raises(ValueError, match="got no generator"):
        transform(image, None)


@pytest.mark.parametrize("shape", [(40, 30), (30, 40), (17, 17), (9, 31), (301, 97)])
def test_resize_center_crop_is_torchvisions(shape):
    image = decode_image(encode(Image.open(io.BytesIO(jpeg(5, *shape))), "PNG"))
    resize = v2.Resize(16, interpolation=InterpolationMode.BICUBIC, antialias=True)
    assert torch.equal(ResizeCenterCrop(16)(image), v2.CenterCrop(16)(resize(image)))


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (5000, 1), (2, 3), (1, 9), (5000, 3)])
def test_degenerate_shapes_work(shape):
    image = torch.full((3, *shape), 77, dtype=torch.uint8)
    for transform in (RandomResizedCrop(24), ResizeCenterCrop(24), Squeeze(24)):
        out = transform(image, seeded())
        assert out.shape == (3, 24, 24) and out.dtype == torch.uint8
        assert (out == 77).all()


def test_no_step_of_resizing_is_larger_than_image_and_result(monkeypatch):
    steps = []
    resize = module.F.resize

    def watched(image, size, **options):
        steps.append(image.shape[-2] * size[1])  # torch begins with the width
        return resize(image, size, **options)

    monkeypatch.setattr(module.F, "resize", watched)
    monkeypatch.setattr(module, "_LARGEST_STEP", 10_000)
    long = torch.arange(9000).div(9000 / 250).to(torch.uint8).expand(3, 1, -1).mT.contiguous()  # (3, 9000, 1)
    out = Squeeze(8)(long)
    assert max(steps) == 9000 and out.shape == (3, 8, 8)
    assert out[0, :, 0].tolist() == pytest.approx([250 * (i + 0.5) / 8 for i in range(8)], abs=2)
    assert (RandomResizedCrop(8, ratio=(1e-4, 1e4))(long, seeded()) >= 0).all() and max(steps) <= 10_000


def test_squeeze_takes_the_whole_image():
    image = torch.zeros(3, 10, 40, dtype=torch.uint8)
    image[:, :, 20:] = 200
    out = Squeeze(8)(image)[0].float().mean(dim=0)
    assert (out[:3] < 12).all() and (out[5:] > 188).all()


@pytest.mark.parametrize("transform", [RandomResizedCrop(224), ResizeCenterCrop(224), Squeeze(160)])
def test_transforms_travel_and_show_their_parameters(transform):
    assert repr(pickle.loads(pickle.dumps(transform))) == repr(transform)
    assert f"size={transform.size}" in repr(transform) and " at 0x" not in repr(transform)


def test_parameters_from_a_config_are_lists():
    transform = RandomResizedCrop(size=8, scale=[0.2, 1.0], ratio=[1, 1])
    _, _, h, w = transform.crop(100, 100, seeded())
    assert h == w
    assert transform.scale == (0.2, 1.0) and math.isclose(transform.ratio[0], 1.0)


@pytest.mark.parametrize(
    "make", [lambda: RandomResizedCrop(0), lambda: RandomResizedCrop(8, scale=(1, 0.5)), lambda: Squeeze(0)]
)
def test_wrong_parameters(make):
    with pytest.raises(ValueError, match="expected"):
        make()


def test_interpolation_is_that_of_the_weights():
    image = decode_image(jpeg(5, 40, 30))
    linear = v2.Resize(16, interpolation=InterpolationMode.BILINEAR, antialias=True)
    assert torch.equal(
        ResizeCenterCrop(16, interpolation="bilinear")(image), v2.CenterCrop(16)(linear(image))
    )
    assert torch.equal(Squeeze(16, interpolation="bicubic")(image), Squeeze(16)(image))
    with pytest.raises(
        ValueError, match="interpolation: got 'nearest'; expected 'bicubic', 'bilinear' or None"
    ):
        RandomResizedCrop(8, interpolation="nearest")


def test_bicubic_goes_without_saying():
    """Stores and runs know transforms by these names."""
    assert (
        repr(ResizeCenterCrop(8))
        == repr(ResizeCenterCrop(8, interpolation="bicubic"))
        == "ResizeCenterCrop(size=8)"
    )
    assert repr(Squeeze(8, interpolation="bilinear")) == "Squeeze(size=8, interpolation='bilinear')"
    assert (
        repr(RandomResizedCrop(8, ratio=(1, 2)))
        == "RandomResizedCrop(size=8, scale=(0.5, 1.0), ratio=(1.0, 2.0))"
    )


def test_transforms_of_a_model_take_its_size_and_interpolation():
    plain = SimpleNamespace(image_size=12)
    assert (ResizeCenterCrop.of(plain).size, ResizeCenterCrop.of(plain).interpolation) == (12, None)
    linear = SimpleNamespace(image_size=8, interpolation="bilinear")
    assert repr(Squeeze.of(linear)) == "Squeeze(size=8, interpolation='bilinear')"


def test_without_a_size_there_is_nothing_to_do():
    with pytest.raises(
        ConfigError, match=r"Squeeze: size is None, the size of the image encoder.*give a number"
    ):
        Squeeze(None)(decode_image(jpeg(5, 40, 30)))


def test_in_evaluation_a_model_says_how_its_images_become_squares():
    squeezed = SimpleNamespace(image_size=8, interpolation="bilinear", resize_mode="squash")
    assert repr(ResizeCenterCrop.of(squeezed)) == repr(Squeeze.of(squeezed))
    assert repr(Squeeze.of(squeezed)) == "Squeeze(size=8, interpolation='bilinear')"
    assert isinstance(RandomResizedCrop.of(squeezed), RandomResizedCrop)  # training draws its own parts
    own = SimpleNamespace(image_size=8, image_transform=abs)
    assert ResizeCenterCrop.of(own) is abs and Squeeze.of(own) is abs
    assert isinstance(RandomResizedCrop.of(own), RandomResizedCrop)

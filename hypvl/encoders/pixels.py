"""What every image encoder does before its network: check the batch and normalise the pixels."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def normalize_pixels(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """``(images - mean) / std`` per channel, of images in [0, 1] or of bytes divided by 255.

    Args:
        images: (B, 3, H, W), uint8 or a floating dtype.
        mean: (3, 1, 1), in units of [0, 1] pixels.
        std: (3, 1, 1), positive.

    Returns:
        (B, 3, H, W) in the dtype of ``mean``, computed in fp32 or better.

    Raises:
        TypeError: When the images are of another integer dtype.
    """
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise TypeError(f"images have dtype {images.dtype}, but uint8 or floats in [0, 1] are expected.")
    working = torch.promote_types(mean.dtype, torch.float32)
    pixels = images.to(working)
    if images.dtype == torch.uint8:
        pixels = pixels / 255
    return ((pixels - mean.to(working)) / std.to(working)).to(mean.dtype)


class ImageEncoder(nn.Module, ABC):
    """Base of the image encoders: pixels in, one feature vector per image out.

    Args:
        image_size: Height and width in pixels.
        pixel_mean: Mean per channel, of pixels in [0, 1].
        pixel_std: Standard deviation per channel.
        fixed_size: Whether the network takes no other size than ``image_size``.
    """

    pixel_mean: Tensor
    pixel_std: Tensor
    width: int

    def __init__(
        self, image_size: int, *, pixel_mean: Sequence[float], pixel_std: Sequence[float], fixed_size: bool
    ) -> None:
        super().__init__()
        self.image_size = image_size
        self.fixed_size = fixed_size
        if len(pixel_mean) != 3 or len(pixel_std) != 3 or min(pixel_std) <= 0:
            raise ValueError(
                f"pixel_mean is {list(pixel_mean)} and pixel_std is {list(pixel_std)}, but three numbers "
                f"each are expected, the deviations positive."
            )
        self.register_buffer("pixel_mean", torch.tensor([float(v) for v in pixel_mean]).view(3, 1, 1))
        self.register_buffer("pixel_std", torch.tensor([float(v) for v in pixel_std]).view(3, 1, 1))

    @abstractmethod
    def encode(self, pixels: Tensor) -> Tensor:
        """The network: normalised pixels (B, 3, H, W) -> trunk features (B, width)."""

    def forward(self, images: Tensor) -> Tensor:
        """Encode images.

        Args:
            images: (B, 3, H, W), uint8 or floats in [0, 1]; they are normalised here.

        Returns:
            Trunk features (B, width).

        Raises:
            ValueError: When the shape is not one this encoder takes.
            TypeError: When the dtype is neither uint8 nor a floating one.
        """
        size = self.image_size
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"images have shape {tuple(images.shape)}, but (B, 3, H, W) is expected.")
        if self.fixed_size and tuple(images.shape[2:]) != (size, size):
            raise ValueError(
                f"images are {images.shape[2]} x {images.shape[3]}, but this encoder takes {size} x {size}: "
                f"resize them or build it with another image_size."
            )
        return self.encode(normalize_pixels(images, self.pixel_mean, self.pixel_std))

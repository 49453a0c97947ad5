"""The public face that needs both models and data: a model with the transforms of its pictures."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import torch
from omegaconf import DictConfig
from PIL import Image
from torch import Tensor

from hypvl.data.transforms import RandomResizedCrop, ResizeCenterCrop
from hypvl.io.images import decode_image, image_tensor, read_image_file
from hypvl.models.dual_encoder import DualEncoder
from hypvl.models.hub import create_model

AnyImage: TypeAlias = Tensor | Image.Image | bytes | str | Path


class TensorTransform(Protocol):
    """What hypvl/data/transforms.py offers."""

    def __call__(self, image: Tensor, generator: torch.Generator | None) -> Tensor:
        """uint8 (3, H, W) -> uint8 (3, h, w)."""


class ImageTransform:
    """A picture in any form -> what ``encode_image`` takes, but for the batch axis.

    Args:
        transform: uint8 (3, H, W), generator -> uint8 (3, S, S).
    """

    def __init__(self, transform: TensorTransform) -> None:
        self.transform = transform
        self._generator: torch.Generator | None = None

    def __call__(self, image: AnyImage, generator: torch.Generator | None = None) -> Tensor:
        """Transform one picture.

        Args:
            image: uint8 tensor (3, H, W), PIL image, content of an image file, or its path.
            generator: Where a random transform draws from; None = its own one, which starts at a random seed.

        Returns:
            uint8 (3, S, S); the model itself makes floats of it and normalises.

        Raises:
            ValueError: Not a picture.
        """
        if generator is None:
            if self._generator is None:
                self._generator = torch.Generator()
                self._generator.seed()
            generator = self._generator
        return self.transform(_pixels(image), generator)

    def __repr__(self) -> str:
        return f"ImageTransform({self.transform!r})"


def create_model_and_transforms(
    name_or_config: str | Path | Mapping[str, Any] | DictConfig,
    checkpoint: str | Path | None = None,
    *,
    device: str | torch.device = "cpu",
) -> tuple[DualEncoder, ImageTransform, ImageTransform]:
    """A model, the transform of its training pictures and that of its evaluation pictures.

    Both are the published ones at the model's image size: a random crop of at least half the area, and the
    shorter side resized with the central square cut out. Arguments and errors are those of ``create_model``.

    Example:
        >>> model, train_transform, eval_transform = create_model_and_transforms("meru_vit_b")  # doctest: +SKIP
        >>> model.encode_image(eval_transform("cat.jpg")[None])  # doctest: +SKIP
    """
    model = create_model(name_or_config, checkpoint, device=device)
    size = model.image_size
    return (
        model,
        ImageTransform(RandomResizedCrop(size, scale=(0.5, 1.0))),
        ImageTransform(ResizeCenterCrop(size)),
    )


def _pixels(image: AnyImage) -> Tensor:
    """uint8 (3, H, W), RGB and upright, transparency over white."""
    if isinstance(image, Tensor):
        if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] != 3:
            raise ValueError(
                f"image: got {image.dtype} {tuple(image.shape)}; expected torch.uint8 (3, H, W)."
            )
        return image
    if isinstance(image, Image.Image):
        return image_tensor(image)
    return decode_image(image) if isinstance(image, bytes) else read_image_file(Path(image))

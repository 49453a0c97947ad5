"""Transforms of other libraries, without their normalisation: an image becomes the bytes that their models see."""

import functools
import hashlib
import json
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hypvl.checks import one_of
from hypvl.data.transforms import without_far_ends

#: As open_clip names them; "longest" fills the rest of the square with one colour.
OpenClipResize: TypeAlias = Literal["shortest", "squash", "longest"]
# What a processor of transformers may hold that changes no pixel.
_NOT_PIXELS = frozenset(
    {"_name_or_path", "_processor_class", "processor_class", "image_processor_type", "auto_map"}
)


class OpenClipTransform:
    """The transform that open_clip evaluates a model with: its own resizing, by Pillow, then a square.

    Args:
        size: Side of the result in pixels.
        resize_mode: "shortest" side and the centre, "squash" into a square, or the "longest" side and filled.
        interpolation: As open_clip names it: "bicubic" or "bilinear".
        fill_color: Of what "longest" fills, 0 to 255.
    """

    def __init__(
        self,
        size: int,
        *,
        resize_mode: OpenClipResize = "shortest",
        interpolation: str = "bicubic",
        fill_color: int = 0,
    ) -> None:
        self.size = size
        self.resize_mode = one_of("resize_mode", resize_mode, OpenClipResize)
        self.interpolation = interpolation
        self.fill_color = fill_color

    @functools.cached_property
    def _steps(self) -> list[Any]:
        """open_clip's steps before pixels become floats."""
        from open_clip.transform import MaybeConvertMode, PreprocessCfg, image_transform_v2

        config = PreprocessCfg(
            size=self.size,
            resize_mode=self.resize_mode,
            interpolation=self.interpolation,
            fill_color=self.fill_color,
        )
        steps = list(image_transform_v2(config, is_train=False).transforms)
        return steps[: next(i for i, step in enumerate(steps) if isinstance(step, MaybeConvertMode))]

    def __call__(self, image: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """uint8 (3, H, W) -> uint8 (3, size, size); nothing is random."""
        if self.resize_mode == "shortest":
            image = without_far_ends(image)
        made = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
        for step in self._steps:
            made = step(made)
        return torch.from_numpy(np.array(made)).permute(2, 0, 1).contiguous()

    def __repr__(self) -> str:
        fill = f", fill_color={self.fill_color}" if self.resize_mode == "longest" else ""
        return (
            f"OpenClipTransform(size={self.size}, resize_mode={self.resize_mode!r}, "
            f"interpolation={self.interpolation!r}{fill})"
        )


class HuggingFaceTransform:
    """What an image processor of transformers makes of an image before it scales and normalises it.

    Args:
        processor: Of ``AutoImageProcessor.from_pretrained``.
    """

    def __init__(self, processor: Any) -> None:
        self.processor = processor

    def __call__(self, image: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """uint8 (3, H, W) -> uint8 (3, size, size); nothing is random."""
        if getattr(self.processor, "do_center_crop", False):
            image = without_far_ends(image)
        made = self.processor(
            images=[image],
            do_rescale=False,
            do_normalize=False,
            input_data_format="channels_first",
            return_tensors="pt",
        )
        pixels: Tensor = made["pixel_values"][0]
        return pixels if pixels.dtype == torch.uint8 else pixels.round().clamp(0, 255).to(torch.uint8)

    def __repr__(self) -> str:
        settings = {key: value for key, value in self.processor.to_dict().items() if key not in _NOT_PIXELS}
        settings["backend"] = str(getattr(self.processor, "backend", ""))
        text = json.dumps(settings, sort_keys=True, default=str)
        digest = hashlib.sha256(text.encode()).hexdigest()[:12]
        shown = {
            key: settings.get(key)
            for key in ("size", "crop_size", "resample")
            if settings.get(key) is not None
        }
        said = ", ".join(f"{key}={value}" for key, value in shown.items())
        return f"HuggingFaceTransform({type(self.processor).__name__}, {said}, {digest})"

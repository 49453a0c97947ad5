"""The two halves of image-text models of transformers: CLIP, SigLIP, BLIP and BLIP-2, each an encoder of ours."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from hypvl.data.tokenizer_huggingface import UNLOADABLE, HuggingFaceTokenizer, require_transformers
from hypvl.data.transforms_library import HuggingFaceTransform
from hypvl.encoders.image_base import ImageEncoder
from hypvl.encoders.text_base import TextEncoder
from hypvl.errors import CheckpointError

#: A tower and its normalised pixels (B, 3, S, S) -> (B, width).
EncodePixels = Callable[[nn.Module, Tensor], Tensor]
#: A tower, its ids (B, L) and a mask, int64 (B, L), 1 on texts -> (B, width).
EncodeIds = Callable[[nn.Module, Tensor, Tensor], Tensor]
_BYTE = 1 / 255
_BILINEAR = 2  # as Pillow counts


class HuggingFaceImageTower(ImageEncoder):
    """The image half of a model of transformers, before its projection.

    Args:
        trunk: The module; its names in the state dict follow ``trunk.``.
        encode: Pools what it gives.
        width: Of that.
        image_size: Side of the images in pixels that the model's config says.
        processor: The model's image processor, which resizes images and says how they are normalised.
        source: Place of the model, for messages.

    Raises:
        CheckpointError: when the processor makes other images than the model takes.
    """

    def __init__(
        self,
        trunk: nn.Module,
        encode: EncodePixels,
        *,
        width: int,
        image_size: int,
        processor: Any,
        source: str,
    ) -> None:
        mean, std = _normalisation(processor, source)
        super().__init__(image_size, pixel_mean=mean, pixel_std=std, fixed_size=True)
        self.trunk = trunk
        self.width = width
        self.image_transform = HuggingFaceTransform(processor)
        self.interpolation = "bilinear" if processor.resample == _BILINEAR else "bicubic"
        self._encode = encode
        made = tuple(
            self.image_transform(torch.zeros(3, image_size + 8, image_size + 24, dtype=torch.uint8)).shape
        )
        if made != (3, image_size, image_size):
            raise CheckpointError(
                f"{source}: its image processor makes {' x '.join(map(str, made[1:]))} pixels, its config says "
                f"{image_size} x {image_size}; expected a preprocessor_config.json of this model."
            )

    def encode(self, pixels: Tensor) -> Tensor:
        """Normalised pixels (B, 3, S, S) -> (B, width)."""
        return self._encode(self.trunk, pixels)


class HuggingFaceTextTower(TextEncoder):
    """The text half of a model of transformers, before its projection.

    Args:
        trunk: The module; its names in the state dict follow ``trunk.``.
        encode: Pools what it gives.
        width: Of that.
        tokenizer: The model's own.
        vocab_size: Number of ids that the model knows.
        full_rows: Whether texts are filled to the context length, on the tokenizer's side, as SigLIP was trained: its
            read-out is at the end.

    Raises:
        CheckpointError: when the tokenizer has more ids than the model.
    """

    def __init__(
        self,
        trunk: nn.Module,
        encode: EncodeIds,
        *,
        width: int,
        tokenizer: HuggingFaceTokenizer,
        vocab_size: int,
        full_rows: bool = False,
    ) -> None:
        ids = int(tokenizer.tokenizer.vocab_size)  # without added ones: BLIP-2's has a mark of images
        if ids > vocab_size:
            raise CheckpointError(
                f"{tokenizer.name}: its tokenizer has {ids} ids, the model knows {vocab_size}; expected the tokenizer "
                "of this model."
            )
        fill = tokenizer.tokenizer.pad_token_id
        super().__init__(
            context_length=tokenizer.context_length,
            vocab_size=vocab_size,
            pad_token=tokenizer.pad_token,
            vocabulary=tokenizer.vocabulary,
            fill_id=0 if fill is None else int(fill),
        )
        self.trunk = trunk
        self.width = width
        self.full_rows = full_rows
        self.fills_left = tokenizer.tokenizer.padding_side == "left"  # as some files of SigLIP 2 say
        self._encode = encode
        self._tokenizer = tokenizer

    @property
    def tokenizer(self) -> HuggingFaceTokenizer:
        """The tokenizer whose ids this encoder takes."""
        return self._tokenizer

    def encode(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Ids and mask (B, L) -> (B, width)."""
        if self.full_rows:
            free = self.context_length - ids.shape[1]
            ids = nn.functional.pad(ids, (0, free), value=self.fill_id)
            if self.fills_left:
                ids = _moved_to_the_end(ids, mask.sum(dim=1))
            mask = torch.ones_like(ids, dtype=torch.bool)
        return self._encode(self.trunk, ids, mask.long())


def _moved_to_the_end(ids: Tensor, lengths: Tensor) -> Tensor:
    """Rows (B, L) with texts of these lengths (B,) at their beginning, filled at their beginning instead."""
    places = torch.arange(ids.shape[1], device=ids.device) + lengths[:, None]  # (B, L)
    return ids.gather(1, places % ids.shape[1])


def _normalisation(processor: Any, source: str) -> tuple[list[float], list[float]]:
    """Mean and deviation per channel of pixels in [0, 1]."""
    if not getattr(processor, "do_rescale", True) or abs(float(processor.rescale_factor) - _BYTE) > 1e-9:
        raise CheckpointError(
            f"{source}: its image processor does not divide bytes by 255 (do_rescale "
            f"{getattr(processor, 'do_rescale', None)}, rescale_factor {processor.rescale_factor}); expected a model "
            "of pixels in [0, 1]."
        )
    if not processor.do_normalize:
        return [0.0] * 3, [1.0] * 3
    mean, std = ([float(value) for value in values] for values in (processor.image_mean, processor.image_std))
    return mean, std


def load_tokenizer(name: str, *, context_length: int) -> HuggingFaceTokenizer:
    """The tokenizer of a folder or hub id; code in it is never run. DataError when there is none."""
    return HuggingFaceTokenizer(name, context_length)


def load_processors(folder: str, *, context_length: int) -> tuple[Any, HuggingFaceTokenizer]:
    """The image processor and the tokenizer in a folder; code in it is never run.

    Raises:
        CheckpointError: when there is no image processor.
        DataError: when there is no tokenizer.
    """
    transformers = require_transformers()
    tokenizer = HuggingFaceTokenizer(folder, context_length)
    try:
        return transformers.AutoImageProcessor.from_pretrained(folder, trust_remote_code=False), tokenizer
    except UNLOADABLE as error:
        raise CheckpointError(
            f"{folder}: no image processor can be loaded from it ({' '.join(str(error).split())[:200]}); expected "
            "preprocessor_config.json beside config.json."
        ) from error

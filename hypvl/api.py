"""Public functions that need more than models: a model with the transforms of its images, sharing a model."""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import torch
from omegaconf import DictConfig
from torch import Tensor

from hypvl.data.transforms import RandomResizedCrop, ResizeCenterCrop
from hypvl.io.hub import upload_folder
from hypvl.io.images import AnyImage, pixels_of
from hypvl.models.dual_encoder import DualEncoder
from hypvl.models.hub import create_model, save_pretrained
from hypvl.report.model_card import model_card

#: A transform of hypvl/data/transforms.py, uint8 (3, H, W) -> uint8 (3, S, S).
TensorTransform: TypeAlias = Callable[[Tensor, torch.Generator | None], Tensor]


class ImageTransform:
    """Turns any kind of image into the input of ``encode_image``, without the batch axis.

    Example:
        >>> from PIL import Image
        >>> transform = ImageTransform(ResizeCenterCrop(32))
        >>> transform(Image.new("RGB", (50, 40))).shape
        torch.Size([3, 32, 32])
    """

    def __init__(self, transform: TensorTransform) -> None:
        self.transform = transform

    def __call__(self, image: AnyImage, generator: torch.Generator | None = None) -> Tensor:
        """Transform one image.

        Args:
            image: PIL image, content of an image file, or its path; a uint8 array (H, W), (H, W, 1), (H, W, 3) or
                (H, W, 4); a tensor (3, H, W), uint8 or floats in [0, 1], not normalised.
            generator: Where a random transform draws from; None = torch's own, which ``torch.manual_seed`` sets and
                which differs between the workers of a DataLoader.

        Returns:
            uint8 (3, S, S); the model itself makes floats of it and normalises.

        Raises:
            ValueError: Not an image, or floats outside [0, 1].
            TypeError: Of another type.
        """
        return self.transform(pixels_of(image), torch.default_generator if generator is None else generator)

    def __repr__(self) -> str:
        return f"ImageTransform({self.transform!r})"


def create_model_and_transforms(
    name_or_config: str | Path | Mapping[str, Any] | DictConfig,
    checkpoint: str | Path | None = None,
    *,
    device: str | torch.device = "cpu",
) -> tuple[DualEncoder, ImageTransform, ImageTransform]:
    """A model, the transform of its training images and that of its evaluation images.

    Both are the published ones, with the model's image size and interpolation: a random crop of at least half the area,
    and the shorter side resized with the central square cut out. Arguments and errors are those of ``create_model``.

    Example:
        >>> from PIL import Image
        >>> model, train_transform, eval_transform = create_model_and_transforms("clip_vit_s")  # random weights
        >>> with torch.no_grad():
        ...     model.encode_image(eval_transform(Image.new("RGB", (50, 40)))[None]).shape
        torch.Size([1, 512])
    """
    model = create_model(name_or_config, checkpoint, device=device)
    train, evaluate = RandomResizedCrop.of(model), ResizeCenterCrop.of(model)
    return model, ImageTransform(train), ImageTransform(evaluate)


def push_to_hub(
    model: DualEncoder,
    config: str | Path | Mapping[str, Any] | DictConfig,
    *,
    repo_id: str,
    results: str | Path | None = None,
    licence: str | None = None,
    card: str | None = None,
    root: Tensor | None = None,
    private: bool | None = None,
    revision: str | None = None,
    message: str = "Upload a model of hypvl",
    token: str | None = None,
) -> str:
    """Put a model with its config and card into a repository of the Hugging Face hub; returns the commit's address.

    Args:
        model: The model.
        config: The config it was built from, as for ``save_pretrained``.
        repo_id: ``owner/name``; made if there is none.
        results: ``results.json`` of an evaluation, or a folder with such files: its metrics stand in the card.
        licence: Of the weights, as the hub names it (``"apache-2.0"``).
        card: Text of the card, in place of the one that ``model_card`` makes of ``results`` and ``licence``.
        root: Mean training embedding of a model whose geometry has no root, (D,).
        private: Of a new repository; None = as its owner has chosen.
        revision: Branch; None = the main one.
        message: Of the commit.
        token: None = that of ``hf auth login`` or ``HF_TOKEN``.

    Raises:
        ValueError: ``card`` beside ``results`` or ``licence``.
        ConfigError, CheckpointError: As ``save_pretrained``. DataError: The results cannot be read.
        RemoteError: The hub does not take the files.

    Example:
        >>> push_to_hub(model, config, repo_id="me/meru", results="output/run")  # doctest: +SKIP
        'https://huggingface.co/me/meru/commit/...'
    """
    if card is not None and (results is not None or licence is not None):
        raise ValueError("card: got one beside results or licence; give the card, or what it is made of.")
    text = model_card(repo_id, results=results, licence=licence) if card is None else card
    with tempfile.TemporaryDirectory() as folder:
        save_pretrained(model, config, folder, root=root, card=text)
        return upload_folder(
            Path(folder), repo_id, message=message, private=private, revision=revision, token=token
        )

"""What harnesses of cosines ask of a model: images of PIL and texts in, vectors out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from PIL import Image
from torch import Tensor

from hypvl.checks import number, one_of
from hypvl.data.transforms import ResizeCenterCrop, Squeeze
from hypvl.embedding.protocol import EvaluableModel, Modality, Stage, evaluating, own_tokenizer
from hypvl.errors import ConfigError
from hypvl.geometry.base import Side
from hypvl.integrations.cosine_form import cosine_form, fitting_bound, has_unit_form
from hypvl.io.images import image_tensor

Resize: TypeAlias = Literal["crop", "squeeze"]


@dataclass(frozen=True)
class Pixels:
    """An image of PIL as a model takes it, uint8 (3, size, size)."""

    fit: Callable[[Tensor], Tensor]  # uint8 (3, h, w) -> uint8 (3, size, size)

    def __call__(self, image: Image.Image) -> Tensor:
        return self.fit(image_tensor(image))


class CosineModel:
    """A model as a harness of cosines sees it.

    Args:
        model: Any geometry with an inner-product form, and a scorer that ranks by it.
        bound: See :func:`hypvl.integrations.cosine_form.cosine_form`; None = 1 on a sphere, else 64.
        resize: ``crop`` the centre of the resized image, as the harnesses do with other models, or ``squeeze`` the
            whole image to a square, as MERU's retrieval does.

    Raises:
        ConfigError: For a bound that is not above 0.
        UserError: For a model whose scores are not inner products.
    """

    def __init__(self, model: EvaluableModel, *, bound: float | None = None, resize: Resize = "crop") -> None:
        one_of("resize", resize, Resize)
        if bound is not None:
            try:
                number("bound", bound, above=0)
            except ValueError as error:
                raise ConfigError(f"{error}") from error
        self.model = model
        self.sides_matter = not has_unit_form(model)  # whether queries and keys have different vectors
        self.bound = fitting_bound(model) if bound is None else bound
        self.tokenizer = own_tokenizer(model)
        self.pixels = Pixels(ResizeCenterCrop.of(model) if resize == "crop" else Squeeze.of(model))

    def encode_images(self, images: Sequence[Image.Image], stage: Stage) -> Tensor:
        """Images as rows (N, D) of a stage, on the model's device."""
        one_of("stage", stage, Stage)
        with evaluating(self.model) as device:
            return self.model.encode_image(torch.stack(list(map(self.pixels, images))).to(device), stage)

    def encode_texts(self, texts: Sequence[str], stage: Stage) -> Tensor:
        """Texts as rows (N, D) of a stage, on the model's device."""
        one_of("stage", stage, Stage)
        with evaluating(self.model) as device:
            return self.model.encode_text(self.tokenizer(texts).to(device), stage)

    def pooled(self, features: Tensor, modality: Modality) -> Tensor:
        """Embeddings (N, D) of features (N, P, D) of P views of each item."""
        one_of("modality", modality, Modality)
        with evaluating(self.model):
            return self.model.pool(features, modality=modality)

    def vectors(self, embeddings: Tensor, *, side: Side, modality: Modality, other: Modality) -> Tensor:
        """The cosine form of embeddings, (N, E) fp64 on the CPU."""
        one_of("side", side, Side)
        one_of("modality", modality, Modality)
        one_of("other", other, Modality)
        return cosine_form(
            self.model, embeddings, side=side, modality=modality, other=other, bound=self.bound
        )

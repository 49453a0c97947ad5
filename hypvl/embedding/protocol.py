"""A model as evaluation sees it, and what is refused of its embeddings and scores."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, Protocol, TypeAlias

import torch
from torch import Tensor, nn

from hypvl.checks import one_of
from hypvl.data.tokenizer import get_tokenizer
from hypvl.errors import UserError
from hypvl.geometry.base import Geometry

Modality: TypeAlias = Literal["image", "text"]
Stage: TypeAlias = Literal["trunk", "features", "embeddings"]


class EvaluableModel(Protocol):
    """A model as evaluation sees it; every recipe of hypvl is one, and so may be anything else."""

    geometry: Geometry

    @property
    def image_size(self) -> int: ...

    @property
    def context_length(self) -> int: ...

    training: bool

    def encode_image(self, images: Tensor, stage: Stage = "embeddings") -> Tensor:
        """uint8 (B, 3, H, W) -> (B, width) for the trunk, (B, D) for features and embeddings."""

    def encode_text(self, tokens: Tensor, stage: Stage = "embeddings") -> Tensor:
        """int64 (B, L) padded at the end -> (B, width) for the trunk, (B, D) for features and embeddings."""

    def scores(
        self, query: Tensor, key: Tensor, *, query_modality: Modality, key_modality: Modality
    ) -> Tensor:
        """Embeddings (Q, D), (K, D) -> (Q, K); higher = closer."""

    def class_scores(self, image_embeddings: Tensor, prompt_features: Sequence[Tensor]) -> Tensor:
        """Images (Q, D) and the prompt features of C classes, C times (P_c, D) -> (Q, C)."""

    def pool(self, features: Tensor, *, modality: Modality) -> Tensor:
        """Features of several views of one image or text, (..., P, D) -> one embedding (..., D)."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """Inputs go to the device of the first one."""

    def train(self, mode: bool = True) -> Any:
        """Switch dropout and the like on or off, as ``nn.Module.train``."""


class Tokenizer(Protocol):
    """Texts -> int64 (B, L), filled at the end with its ``pad_token``, or with 0 where it has no such attribute."""

    def __call__(self, texts: Sequence[str]) -> Tensor: ...


def own_tokenizer(model: EvaluableModel) -> Tokenizer:
    """The ``tokenizer`` of a model where it has one, else CLIP's, with the model's context length."""
    own: Tokenizer | None = getattr(model, "tokenizer", None)
    return get_tokenizer(model.context_length) if own is None else own


class HasModes(Protocol):
    """What can be switched between training and evaluation: models, and scorers of pairs."""

    training: bool

    def parameters(self) -> Iterator[nn.Parameter]: ...

    def train(self, mode: bool = True) -> Any: ...


@contextmanager
def evaluating(model: HasModes) -> Iterator[torch.device]:
    """Inference mode and evaluation mode inside, the mode of before afterwards; yields the model's device."""
    was_training = model.training
    model.train(False)
    try:
        with torch.inference_mode():
            yield next((p.device for p in model.parameters()), torch.device("cpu"))
    finally:
        model.train(was_training)


def check_embeddings(*embeddings: Tensor) -> None:
    """Refuse NaN and infinity in embeddings (..., D), as the model has diverged: UserError with the number affected."""
    rows = [block.reshape(-1, block.shape[-1]).isfinite().all(dim=-1) for block in embeddings]
    bad = sum(int((~finite).sum()) for finite in rows)
    if bad:
        raise UserError(
            f"the model's embeddings: {bad} of {sum(map(len, rows))} hold NaN or infinity; expected numbers. "
            "Its weights have probably diverged: use an earlier checkpoint."
        )


def check_scores(scores: Tensor) -> None:
    """Refuse NaN in scores, which would otherwise come out as some accuracy: UserError with their number."""
    bad = int(scores.isnan().sum())
    if bad:
        raise UserError(
            f"the model's scores: {bad} of {scores.numel()} in a block are NaN; expected numbers. "
            "Its weights have probably diverged: evaluate an earlier checkpoint."
        )


def count_parameters(model: EvaluableModel, *, stage: Stage = "trunk") -> tuple[int, int]:
    """How many parameters a model has, and on how many of them the output of an image up to a stage depends.

    The latter are found by a gradient through one black image, so that any model can be asked. The model is left as
    it was.
    """
    one_of("stage", stage, Stage)
    parameters = [p for p in model.parameters() if p.is_floating_point()]
    flags = [p.requires_grad for p in parameters]
    was_training = model.training
    model.train(False)
    try:
        for parameter in parameters:
            parameter.requires_grad_(True)
        device = parameters[0].device if parameters else torch.device("cpu")
        image = torch.zeros(1, 3, model.image_size, model.image_size, dtype=torch.uint8, device=device)
        with torch.enable_grad():
            out = model.encode_image(image, stage=stage)
            used = (
                torch.autograd.grad(out.float().sum(), parameters, allow_unused=True)
                if out.requires_grad
                else [None] * len(parameters)
            )
    finally:
        for parameter, flag in zip(parameters, flags, strict=True):
            parameter.requires_grad_(flag)
        model.train(was_training)
    seen = sum(p.numel() for p, gradient in zip(parameters, used, strict=True) if gradient is not None)
    return sum(p.numel() for p in model.parameters()), seen

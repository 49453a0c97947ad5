"""Means of the two modalities: computed on a data set, stored in a file, subtracted from embeddings (I0T_post).

Means are of flat embeddings (``geometry.flatten``): of the unit vectors on the sphere, of tangent vectors at the root
on a hyperboloid.

Source: I0T_post, An et al. 2024 (arXiv 2412.14384), section 3.
"""

import pickle
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from hypvl.checks import one_of
from hypvl.embedding.identity import model_fingerprint as model_fingerprint
from hypvl.embedding.protocol import EvaluableModel, Modality, Stage, check_embeddings
from hypvl.errors import CheckpointError, ConfigError, DataError
from hypvl.evaluation.protocol import Evaluator
from hypvl.geometry.base import Geometry
from hypvl.io.tensors import write_safetensors, write_torch

FORMAT_VERSION = 1
_SAFETENSORS, _TORCH = (".safetensors",), (".pt", ".pth")


@dataclass(frozen=True)
class ModalityMeans:
    """Means of the image and the text embeddings of a model."""

    image_mean: Tensor  # of flat image embeddings, (D,)
    text_mean: Tensor  # of flat text embeddings, (D,)
    images: int  # how many
    texts: int  # how many
    model: str  # :func:`model_fingerprint` of the model
    set_name: str  # name of the data set

    def __post_init__(self) -> None:
        shapes = [tuple(mean.shape) for mean in (self.image_mean, self.text_mean)]
        if len(shapes[0]) != 1 or shapes[0] != shapes[1]:
            raise ValueError(f"means: got shapes {shapes[0]} and {shapes[1]}; expected one shape (D,).")

    def mean(self, modality: Modality) -> Tensor:
        """The mean of a modality, (D,)."""
        one_of("modality", modality, Modality)
        return self.image_mean if modality == "image" else self.text_mean

    def meta(self) -> dict[str, Any]:
        """All but the means, JSON-serialisable."""
        return {"model": self.model, "set": self.set_name, "images": self.images, "texts": self.texts}


def centre(embeddings: Tensor, mean: Tensor, *, geometry: Geometry) -> Tensor:
    """``lift(flatten(x) - mean)``: (..., D) -> (..., D), the mean (D,) of flat embeddings subtracted.

    On the sphere this is ``normalise(x - mean)``.
    """
    flat = geometry.flatten(embeddings)
    return geometry.lift(flat - mean.to(flat))


@torch.no_grad()
def flat_mean(embeddings: Tensor, *, geometry: Geometry) -> Tensor:
    """Mean of flat embeddings, (N, D) -> (D,), summed in fp64 on the CPU."""
    return geometry.flatten(embeddings).cpu().double().mean(0)


def fit(evaluator: Evaluator, model: EvaluableModel, *, fingerprint: str, set_name: str) -> ModalityMeans:
    """Means over everything that an evaluator encodes in one run; its result is not used.

    Prompts count once per class, as one pooled embedding each. Fingerprint and name of the set are for the file.

    Raises:
        DataError: when it encodes no images, or no texts.
        UserError: when embeddings hold NaN.
    """
    recorder = MeanRecorder(model)
    evaluator(cast(EvaluableModel, recorder))
    return recorder.result(fingerprint=fingerprint, set_name=set_name)


@dataclass
class _Sum:
    total: Tensor | None = None
    count: int = 0

    def add(self, flat: Tensor) -> None:
        rows = flat.detach().reshape(-1, flat.shape[-1]).cpu().double()
        self.total = rows.sum(0) if self.total is None else self.total + rows.sum(0)
        self.count += len(rows)


@dataclass
class MeanRecorder:
    """Wraps a model and sums up every embedding that it returns."""

    model: EvaluableModel
    _sums: dict[Modality, _Sum] = field(default_factory=lambda: {"image": _Sum(), "text": _Sum()})
    _classes: Any = None

    def encode_image(self, images: Tensor, stage: Stage = "embeddings") -> Tensor:
        """As the model; embeddings are summed up."""
        one_of("stage", stage, Stage)
        return self._recorded(self.model.encode_image(images, stage=stage), "image", stage)

    def encode_text(self, tokens: Tensor, stage: Stage = "embeddings") -> Tensor:
        """As the model; embeddings are summed up."""
        one_of("stage", stage, Stage)
        return self._recorded(self.model.encode_text(tokens, stage=stage), "text", stage)

    def class_scores(self, image_embeddings: Tensor, prompt_features: Sequence[Tensor]) -> Tensor:
        """As the model; the same list of classes is summed up once."""
        if self._classes is not prompt_features:
            for features in prompt_features:
                self._recorded(self.model.pool(features, modality="text")[None], "text", "embeddings")
            self._classes = prompt_features
        return self.model.class_scores(image_embeddings, prompt_features)

    def result(self, *, fingerprint: str, set_name: str) -> ModalityMeans:
        """The means so far. Raises DataError for a modality without embeddings."""
        means: dict[str, Tensor] = {}
        for modality, embeddings in self._sums.items():
            if embeddings.total is None:
                raise DataError(
                    f"{set_name}: its evaluation encodes no {modality}s, so they have no mean; use a data set "
                    "with images and texts."
                )
            means[modality] = embeddings.total / embeddings.count
        return ModalityMeans(
            image_mean=means["image"],
            text_mean=means["text"],
            images=self._sums["image"].count,
            texts=self._sums["text"].count,
            model=fingerprint,
            set_name=set_name,
        )

    def _recorded(self, encoded: Tensor, modality: Modality, stage: Stage) -> Tensor:
        if stage == "embeddings":
            check_embeddings(encoded)
            self._sums[modality].add(self.model.geometry.flatten(encoded))
        return encoded

    def parameters(self) -> Iterator[nn.Parameter]:
        """The model's parameters."""
        return self.model.parameters()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)


def save(means: ModalityMeans, path: Path) -> None:
    """Write means to a ``.safetensors`` or ``.pt`` file, whole or not at all.

    Raises:
        ConfigError: for another suffix.
        OSError: when it cannot be written.
    """
    check_suffix(path)
    tensors = {name: getattr(means, name).contiguous() for name in ("image_mean", "text_mean")}
    meta = {"format_version": FORMAT_VERSION, **means.meta()}
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix in _SAFETENSORS:
        write_safetensors(path, tensors, metadata=meta)
    else:
        write_torch(path, {**tensors, "meta": meta})


def load(path: Path) -> ModalityMeans:
    """Read what :func:`save` wrote; nothing in the file is executed.

    Raises:
        CheckpointError: for no file, another kind of file, or one of a later version.
        ConfigError: for another suffix than ``.safetensors`` and ``.pt``.
    """
    check_suffix(path)
    if not path.is_file():
        raise CheckpointError(
            f"{path}: no such file; expected what hypvl fit-standardization writes, or the word transductive."
        )
    try:
        content, meta = _read(path)
        version = int(meta["format_version"])
        if version > FORMAT_VERSION:
            raise CheckpointError(f"{path}: format_version {version}; install a later hypvl.")
        means = ModalityMeans(
            image_mean=content["image_mean"],
            text_mean=content["text_mean"],
            images=int(meta["images"]),
            texts=int(meta["texts"]),
            model=str(meta["model"]),
            set_name=str(meta["set"]),
        )
    # Errors of torch and safetensors, and those of a file with other content.
    except (
        SafetensorError, pickle.UnpicklingError, KeyError, TypeError, ValueError, AttributeError, RuntimeError,
        EOFError, OSError, IndexError, OverflowError, MemoryError, struct.error,
    ) as error:  # fmt: skip
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CheckpointError(
            f"{path}: holds no means ({reason[:120]}); expected what hypvl fit-standardization writes."
        ) from error
    if not all(bool(mean.isfinite().all()) for mean in (means.image_mean, means.text_mean)):
        raise CheckpointError(f"{path}: its means are not finite; fit them anew.")
    return means


def check_suffix(path: Path) -> None:
    """Raises ConfigError for another suffix than ``.safetensors``, ``.pt`` and ``.pth``."""
    if path.suffix not in (*_SAFETENSORS, *_TORCH):
        raise ConfigError(f"{path}: ends in {path.suffix!r}; expected .safetensors or .pt.")


def _read(path: Path) -> tuple[Mapping[str, Tensor], Mapping[str, Any]]:
    if path.suffix in _SAFETENSORS:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    content = torch.load(path, map_location="cpu", weights_only=True)
    return content, content["meta"]

"""Models of hypvl as models of sentence-transformers, for images and texts, ranked by the model's own similarity."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from omegaconf import DictConfig
from torch import Tensor

from hypvl.data.transforms import ResizeCenterCrop
from hypvl.embedding.protocol import Modality, own_tokenizer
from hypvl.embedding.search_index import search_vectors
from hypvl.errors import ConfigError, UserError
from hypvl.geometry.base import Side
from hypvl.integrations.cosine_form import has_unit_form
from hypvl.io.images import pixels_of
from hypvl.models.dual_encoder import DualEncoder
from hypvl.models.hub import from_pretrained, load_config, save_pretrained

try:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import InputModule
except ImportError as error:
    raise UserError(
        "sentence-transformers 6 is not installed: pip install 'hypvl[sentence-transformers]'."
    ) from error

_SIDES: Mapping[str | None, Side] = {"query": "query", "document": "key"}


class HypvlModule(InputModule):
    """Texts and images as vectors whose inner products rank as the model's scores do.

    In a hyperbolic or Euclidean space a query's vector is not a document's: call ``encode_query`` and
    ``encode_document``. On a sphere they are the same, and ``encode`` will do.

    Args:
        model: Any geometry with an inner-product form, and a scorer that ranks by it; put into evaluation mode.
        config: The config it was built from, for ``save``; as :func:`hypvl.save_pretrained` takes it.

    Raises:
        UserError: For a model whose scores are not inner products (products of spaces; ATMG).
    """

    forward_kwargs = {"task"}  # noqa: RUF012  # as the base class has it
    save_in_root = True

    def __init__(
        self, model: DualEncoder, config: str | Path | Mapping[str, Any] | DictConfig | None = None
    ) -> None:
        super().__init__()
        self.sides_matter = not has_unit_form(model)
        self.model = model.eval()
        self.config = config
        self.max_seq_length = model.context_length
        self._tokenize = own_tokenizer(model)
        self._fit = ResizeCenterCrop.of(model)
        text = search_vectors(
            model, torch.zeros(1, model.embed_dim) + 0.1, side="query", modality="text", other="image"
        )
        self._width = text.shape[1]

    @property
    def modalities(self) -> list[Any]:
        """What ``encode`` takes."""
        return ["text", "image"]

    def get_embedding_dimension(self) -> int:
        """Numbers in a vector: those of an embedding, and those that the geometry adds, such as time."""
        return self._width

    def preprocess(self, inputs: Sequence[Any], prompt: str | None = None, **_: Any) -> dict[str, Any]:
        """Texts as tokens (B, L), or images (PIL, arrays, tensors, bytes, paths) as uint8 (B, 3, S, S).

        Raises:
            ValueError: For texts and images in one batch.
        """
        texts = [item for item in inputs if isinstance(item, str)]
        if len(texts) == len(inputs):
            return {"input_ids": self._tokenize([f"{prompt or ''}{text}" for text in texts])}
        if texts:
            raise ValueError("inputs: got texts and images in one list; encode them one after the other.")
        pixels = [self._fit(pixels_of(item)) for item in inputs]
        return {"pixel_values": torch.stack(pixels)}

    def forward(self, features: dict[str, Any], task: str | None = None, **_: Any) -> dict[str, Any]:
        """Add ``sentence_embedding``, (B, E) fp32, for a ``task``: ``"query"`` or ``"document"``.

        Raises:
            UserError: Where no task says which, and the two are different.
        """
        if task not in _SIDES and self.sides_matter:
            raise UserError(
                f"{type(self.model.geometry).__name__}: the vector of a query is not that of a document here; call "
                "encode_query for the one and encode_document for the other, not encode."
            )
        modality: Modality = "text" if "input_ids" in features else "image"
        inputs: Tensor = features["input_ids" if modality == "text" else "pixel_values"]
        with torch.inference_mode():
            encode = self.model.encode_text if modality == "text" else self.model.encode_image
            embeddings = encode(inputs)
        vectors = search_vectors(
            self.model,
            embeddings,
            side=_SIDES.get(task, "query"),
            modality=modality,
            other="image" if modality == "text" else "text",
        )
        features["sentence_embedding"] = vectors.to(inputs.device)
        return features

    def save(self, output_path: str, *args: Any, **kwargs: Any) -> None:
        """Write ``config.json`` and ``model.safetensors``, as :func:`hypvl.save_pretrained`.

        Raises:
            ConfigError: Without a config.
        """
        if self.config is None:
            raise ConfigError(
                "config: is None; give HypvlModule(model, config) the config of the model to save it."
            )
        save_pretrained(self.model, self.config, output_path)

    @classmethod
    def load(
        cls,
        model_name_or_path: str,
        subfolder: str = "",
        token: bool | str | None = None,
        cache_folder: str | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        init_defaults: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Self:
        """A module of a folder, or of a repository of the hub, that :meth:`save` wrote."""
        place = cls.load_dir_path(
            model_name_or_path,
            subfolder,
            token=token,
            cache_folder=cache_folder,
            revision=revision,
            local_files_only=local_files_only,
        )
        if place is None:
            raise ConfigError(f"{model_name_or_path}: has no {subfolder or 'files'}.")
        return cls(from_pretrained(place), load_config(place))


def sentence_transformer(
    model: DualEncoder, config: str | Path | Mapping[str, Any] | DictConfig | None = None
) -> SentenceTransformer:
    """A ``SentenceTransformer`` of a model, whose ``similarity`` ranks as the model does; see :class:`HypvlModule`.

    Example:
        >>> import hypvl
        >>> from PIL import Image
        >>> encoder = sentence_transformer(hypvl.create_model("meru_vit_s"), "meru_vit_s")
        >>> queries = encoder.encode_query(["a cat"])
        >>> documents = encoder.encode_document([Image.new("RGB", (40, 40)), Image.new("RGB", (9, 9))])
        >>> encoder.similarity(queries, documents).shape
        torch.Size([1, 2])
    """
    return SentenceTransformer(modules=[HypvlModule(model, config)], similarity_fn_name="dot")

"""The encoder that mteb calls; :func:`hypvl.integrations.mteb.load_encoder` makes one of a checkpoint."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hypvl.embedding.protocol import Modality, Stage
from hypvl.errors import UserError
from hypvl.geometry.base import Side
from hypvl.integrations.wrapping import CosineModel

if TYPE_CHECKING:
    from mteb.types import PromptType

#: Kinds of tasks whose embeddings go into a classifier or a clustering, not into a comparison.
PROBES = frozenset({
    "Classification", "MultilabelClassification", "Clustering", "Regression", "ImageClassification", "ImageClustering",
})  # fmt: skip
# Kinds that compare an image with texts, and tell no sides.
_ACROSS = frozenset({"ZeroShotClassification", "Compositionality"})


def make_encoder(wrapped: CosineModel, *, name: str, revision: str) -> "MtebEncoder":
    """An encoder of mteb's own kind (``AbsEncoder``), for which mteb has to be installed; see :class:`MtebEncoder`."""
    from mteb.models.abs_encoder import AbsEncoder

    class Encoder(MtebEncoder, AbsEncoder):
        """With what mteb gives to all of its encoders."""

    return Encoder(wrapped, name=name, revision=revision)


class MtebEncoder:
    """Images and texts as vectors whose cosines rank as the model's scores do; features for probes.

    A query's vector is not a key's, except on a sphere. What mteb says decides (queries and documents); else texts are
    queries and images are keys. Where mteb says nothing and both inputs are of one kind (STS), give it the tasks
    through :func:`hypvl.integrations.mteb.with_sides`.

    An image with a text is pooled as the prompts of a class are; other wrappers of mteb add the two features.

    Args:
        wrapped: The model.
        name: ``organisation/name`` for mteb's results.
        revision: Which weights they are; results of another revision are another model's.
    """

    def __init__(self, wrapped: CosineModel, *, name: str, revision: str) -> None:
        from mteb.models.model_meta import ModelMeta, ScoringFunction

        self.model = wrapped.model
        self._wrapped = wrapped
        parameters = sum(p.numel() for p in wrapped.model.parameters())
        self.mteb_model_meta: Any = ModelMeta(
            loader=None,
            name=name,
            revision=revision,
            release_date=None,
            languages=None,
            n_parameters=parameters,
            memory_usage_mb=None,
            max_tokens=wrapped.model.context_length,
            embed_dim=None,
            license=None,
            open_weights=None,
            public_training_code=None,
            public_training_data=None,
            framework=["PyTorch"],
            similarity_fn_name=ScoringFunction.COSINE,
            use_instructions=False,
            training_datasets=None,
            modalities=["image", "text"],
        )

    def encode(
        self,
        inputs: Any,
        *,
        task_metadata: Any,
        hf_split: str,
        hf_subset: str,
        prompt_type: "PromptType | None" = None,
        **_: Any,
    ) -> Tensor:
        """Batches of inputs (``image``: PIL, ``text``) as rows: (N, E) fp64 vectors, or (N, D) features, on the CPU.

        Raises:
            UserError: When mteb does not say which side the inputs are on and it cannot be told.
        """
        is_probe = task_metadata.type in PROBES
        rows = []
        for batch in inputs:
            modality, encoded = self._encoded(batch, "features" if is_probe else "embeddings")
            if is_probe:
                rows.append(encoded.cpu())
                continue
            side = self._side(task_metadata, modality, prompt_type)
            other: Modality = "text" if modality == "image" else "image"
            rows.append(self._wrapped.vectors(encoded, side=side, modality=modality, other=other))
        return torch.cat(rows).clone()  # not an inference tensor

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """Inner products of all pairs of a query (or key) with a key (or query), (N, E), (M, E) -> (N, M) fp64."""
        one, two = self._opposite(embeddings1, embeddings2)
        return one @ two.T

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """Inner products of a query and a key in each row, (N, E), (N, E) -> (N,) fp64."""
        one, two = self._opposite(embeddings1, embeddings2)
        return (one * two).sum(-1)

    def _encoded(self, batch: Any, stage: Stage) -> tuple[Modality, Tensor]:
        """What the inputs are, and their rows (B, D); an image with a text counts as an image."""
        wrapped = self._wrapped
        if "image" in batch and "text" in batch:
            images = wrapped.encode_images(batch["image"], "features")
            both = torch.stack((images, wrapped.encode_texts(batch["text"], "features")), dim=1)  # (B, 2, D)
            return "image", both.mean(1) if stage == "features" else wrapped.pooled(both, "image")
        if "image" in batch:
            return "image", wrapped.encode_images(batch["image"], stage)
        if "text" in batch:
            return "text", wrapped.encode_texts(batch["text"], stage)
        raise UserError(f"mteb: gives {', '.join(batch)}; hypvl encodes image and text.")

    def _side(self, task_metadata: Any, modality: Modality, prompt_type: "PromptType | None") -> Side:
        if prompt_type is not None:
            return "query" if prompt_type.value == "query" else "key"
        across = task_metadata.type in _ACROSS and {"image", "text"} <= set(task_metadata.modalities)
        if self._wrapped.sides_matter and not across:
            raise UserError(
                f"{task_metadata.name}: mteb does not say which inputs are compared with which, and this geometry has "
                "other vectors for the two; give the task through hypvl.integrations.mteb.with_sides (a task of type "
                f"{task_metadata.type} without input1_prompt_type cannot be run)."
            )
        return "query" if modality == "text" else "key"

    def _opposite(self, one: Any, two: Any) -> tuple[Tensor, Tensor]:
        """Both as fp64 rows; ValueError where queries are compared with queries, or keys with keys."""
        first, second = (torch.atleast_2d(torch.as_tensor(rows, dtype=torch.float64)) for rows in (one, two))
        if self._wrapped.sides_matter and first.numel() and second.numel():
            is_query = [bool((rows[:, -1] == 0).all()) for rows in (first, second)]
            if is_query[0] == is_query[1]:
                raise ValueError("similarity: both are queries, or both are keys; expected one of each.")
        return first, second

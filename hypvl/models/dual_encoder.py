"""Image and text encoders, their heads, a geometry and a scorer: every model of hypvl is one of these."""

from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from hypvl.geometry.base import Geometry
from hypvl.geometry.scoring import Scorer

Modality: TypeAlias = Literal["image", "text"]
Stage: TypeAlias = Literal["trunk", "features", "embeddings"]
STAGES: tuple[Stage, ...] = ("trunk", "features", "embeddings")


class DualEncoder(nn.Module):
    """Encoders -> features -> embeddings -> scores.

    Args:
        visual: Images (B, 3, H, W), uint8 or float in [0, 1] -> (B, visual.width).
        textual: Tokens (B, L) int64 -> (B, textual.width).
        visual_head: Makes the image head: ``in_features -> nn.Module``, whose output is the features.
        textual_head: Likewise for texts.
        geometry: Lifts features onto its manifold.
        scorer: Similarity as the model is trained.
    """

    def __init__(
        self,
        visual: nn.Module,
        textual: nn.Module,
        *,
        visual_head: Callable[[int], nn.Module],
        textual_head: Callable[[int], nn.Module],
        geometry: Geometry,
        scorer: Scorer,
    ) -> None:
        super().__init__()
        self.visual = visual
        self.textual = textual
        self.visual_head = visual_head(_width(visual))
        self.textual_head = textual_head(_width(textual))
        self.geometry = geometry
        self.scorer = scorer
        dims = [int(head.out_features) for head in (self.visual_head, self.textual_head)]  # type: ignore[arg-type]  # nn.Module attributes are typed Tensor | Module
        if dims[0] != dims[1]:
            raise ValueError(
                f"visual_head and textual_head: out_features {dims[0]} and {dims[1]} differ; "
                "give both the same embedding size."
            )
        self.embed_dim = dims[0]
        self.image_size = int(visual.image_size)  # type: ignore[arg-type]
        self.context_length = int(textual.context_length)  # type: ignore[arg-type]

    def encode_image(self, images: Tensor, stage: Stage = "embeddings") -> Tensor:
        """Images (B, 3, H, W) -> trunk features (B, width), features (B, D) or embeddings (B, D)."""
        return self._encode("image", images, stage)

    def encode_text(self, tokens: Tensor, stage: Stage = "embeddings") -> Tensor:
        """Tokens (B, L), padded with 0 -> trunk features (B, width), features (B, D) or embeddings (B, D)."""
        return self._encode("text", tokens, stage)

    def _encode(self, modality: Modality, inputs: Tensor, stage: Stage) -> Tensor:
        if stage not in STAGES:
            raise ValueError(f"stage: got {stage!r}; expected one of {', '.join(STAGES)}.")
        trunk = (self.visual if modality == "image" else self.textual)(inputs)
        if stage == "trunk":
            return trunk
        features = self.project(trunk, modality=modality)
        return features if stage == "features" else self.embed(features, modality=modality)

    def project(self, trunk: Tensor, *, modality: Modality) -> Tensor:
        """Trunk features (B, width) -> features (B, D), through the head of the modality."""
        return (self.visual_head if modality == "image" else self.textual_head)(trunk)

    def embed(self, features: Tensor, *, modality: Modality) -> Tensor:
        """Features (..., D) -> embeddings (..., D)."""
        return self.geometry.lift(features)

    def pool(self, features: Tensor, *, modality: Modality) -> Tensor:
        """Features of several views of one thing, (..., P, D) -> one embedding (..., D)."""
        return self.geometry.pool(features)

    def scores(
        self, query: Tensor, key: Tensor, *, query_modality: Modality, key_modality: Modality
    ) -> Tensor:
        """Ranking scores of embeddings: (Q, D), (K, D) -> (Q, K); higher = closer."""
        return self.scorer.scores(
            self.geometry, query, key, query_modality=query_modality, key_modality=key_modality
        )

    def class_scores(self, image_embeddings: Tensor, prompt_features: Sequence[Tensor]) -> Tensor:
        """Scores of images (Q, D) against C classes given by prompt features, C times (P_c, D) -> (Q, C)."""
        return self.scorer.class_scores(self.geometry, image_embeddings, prompt_features)

    @torch.no_grad()
    def constrain_(self) -> None:
        """Clamp curvature, scales and head scales into their ranges; called before each training step."""
        for module in (self.visual_head, self.textual_head, self.geometry, self.scorer):
            constrain = getattr(module, "constrain_", None)
            if constrain is not None:
                constrain()


def _width(encoder: nn.Module) -> int:
    width = getattr(encoder, "width", None)
    if not isinstance(width, int):
        raise ValueError(
            f"{type(encoder).__name__}: has no integer `width`; an encoder says how wide its output is."
        )
    return width

"""The module that CLIP_benchmark calls: images and tokens in, vectors for cosines out."""

from collections.abc import Sequence

from torch import Tensor, nn

from hypvl.embedding.protocol import EvaluableModel
from hypvl.integrations.wrapping import CosineModel


class HarnessModel(nn.Module):
    """Images are keys and texts are queries; classes are scored by the model itself.

    Args:
        wrapped: The model, whose images have been through its ``pixels`` and whose texts through its ``tokenizer``.
    """

    def __init__(self, wrapped: CosineModel) -> None:
        super().__init__()
        self._wrapped = wrapped
        self.model: EvaluableModel = wrapped.model
        self.model.train(False)

    def encode_image(self, images: Tensor) -> Tensor:
        """uint8 (B, 3, H, W) -> keys (B, E) in fp64, on the device of the images."""
        embeddings = self.model.encode_image(images)
        keys = self._wrapped.vectors(embeddings, side="key", modality="image", other="text")
        return keys.to(images.device)

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Tokens (B, L) -> queries (B, E) in fp64, on the device of the tokens."""
        embeddings = self.model.encode_text(tokens)
        queries = self._wrapped.vectors(embeddings, side="query", modality="text", other="image")
        return queries.to(tokens.device)

    def text_features(self, tokens: Tensor) -> Tensor:
        """Tokens (B, L) -> features (B, D), which :meth:`class_scores` takes."""
        return self.model.encode_text(tokens, "features")

    def class_scores(self, images: Tensor, prompt_features: Sequence[Tensor]) -> Tensor:
        """Images uint8 (B, 3, H, W) and the features (P_c, D) of the prompts of C classes -> scores (B, C)."""
        return self.model.class_scores(self.model.encode_image(images), prompt_features)

    @property
    def features_only(self) -> nn.Module:
        """The same model for probes: its ``encode_image`` gives features."""
        return _Features(self.model)


class _Features(nn.Module):
    def __init__(self, model: EvaluableModel) -> None:
        super().__init__()
        self.model = model

    def encode_image(self, images: Tensor) -> Tensor:
        """uint8 (B, 3, H, W) -> features (B, D)."""
        return self.model.encode_image(images, "features")

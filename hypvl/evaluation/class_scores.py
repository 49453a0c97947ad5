"""Scores of images against classes given by prompts, one block of images at a time."""

from collections.abc import Callable, Sequence

from torch import Tensor

from hypvl.checks import one_of
from hypvl.embedding.encode import CachedEncoder, EncodedImages
from hypvl.embedding.protocol import EvaluableModel, check_scores, evaluating
from hypvl.evaluation.prompt_ensembling import Ensemble, class_scorer

# Scores of a block of images against every prompt: what a model that keeps each prompt needs at once.
_BLOCK_ELEMENTS = 1 << 24
_MAX_BLOCK = 1024


def encode_prompts(encoder: CachedEncoder, class_prompts: Sequence[Sequence[str]]) -> list[Tensor]:
    """Features of the prompts of each class: C times (P_c, D)."""
    texts = [text for texts in class_prompts for text in texts]
    features = encoder.encode_texts(texts, stage="features", label="prompts")
    return list(features.split([len(texts) for texts in class_prompts]))


def score_classes(
    model: EvaluableModel,
    images: EncodedImages,
    prompt_features: Sequence[Tensor],
    use: Callable[[Tensor, Tensor], None],
    *,
    ensemble: Ensemble = "model",
) -> None:
    """Score encoded images against all classes; memory is one block of scores.

    Args:
        images: Embeddings and positions of the readable images.
        prompt_features: Of C classes, as :func:`encode_prompts` gives them.
        use: Called for each block with the positions (q,) int64 and the scores (q, C), both on the CPU.
        ensemble: How the prompts of a class make one score.

    Raises:
        ValueError: for another ensemble.
        UserError: when the model's scores are NaN.
    """
    one_of("ensemble", ensemble, Ensemble)
    prompts = sum(map(len, prompt_features))
    chunk = max(1, min(_MAX_BLOCK, _BLOCK_ELEMENTS // prompts))
    with evaluating(model) as device:
        score = class_scorer(model, [features.to(device) for features in prompt_features], ensemble=ensemble)
        for embeddings, indices in zip(
            images.embeddings.split(chunk), images.indices.split(chunk), strict=True
        ):
            scores = score(embeddings.to(device)).cpu()
            check_scores(scores)
            use(indices, scores)

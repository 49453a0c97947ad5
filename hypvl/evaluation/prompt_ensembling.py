"""Prompt ensembling: several methods by which the prompts of a class make one score, for every geometry."""

from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from hypvl.checks import one_of
from hypvl.embedding.protocol import EvaluableModel
from hypvl.geometry.sphere import mean_direction

Ensemble: TypeAlias = Literal["model", "normalized_mean", "raw_mean", "tangent_mean", "score_mean"]


def class_scorer(
    model: EvaluableModel, prompt_features: Sequence[Tensor], *, ensemble: Ensemble = "model"
) -> Callable[[Tensor], Tensor]:
    """A function from image embeddings (Q, D) to scores (Q, C), by one of these methods.

    With the features f_1 ... f_P of a class's prompts (flat: tangent at the root):

    - ``model``: the model's own ``class_scores``.
    - ``normalized_mean``: the mean direction ``normalise(mean_p normalise(f_p))`` times the mean length (which the
      sphere ignores), as CLIP and ELEVATER do; lifted, and scored as one prompt.
    - ``raw_mean``: ``mean_p f_p``, lifted and scored as one prompt; MERU's method, and ITRA's for unit embeddings.
    - ``tangent_mean``: each lifted onto the manifold and taken back to the tangent space at the root (the sphere: the
      space around it), averaged there, lifted and scored as one prompt. It differs from ``raw_mean`` where lifting
      loses something: lengths on the sphere, and beyond the radius at which a hyperboloid saturates.
    - ``score_mean``: the mean over p of the model's image-text score of prompt p, ATMG's method. Scores are those
      that the model ranks by: cosines on the sphere, and for a Lorentz distance the inner product, whose mean is the
      inner product with the sum of the prompts (their centroid, times how closely they agree).

    Feature transforms of texts act on the scored embedding: of a class, or of each prompt (``score_mean``).

    Args:
        prompt_features: One (P_c, D) per class, at stage "features", on the model's device.

    Raises:
        ValueError: for another ensemble.

    Source: CLIP (Radford et al. 2021), MERU (Desai et al. 2023), ATMG (Ramasinghe et al. 2024).
    """
    one_of("ensemble", ensemble, Ensemble)
    if ensemble == "model":
        prompts = list(prompt_features)
        return lambda images: model.class_scores(images, prompts)
    if ensemble == "score_mean":
        counts = [len(features) for features in prompt_features]
        # Each prompt pooled alone is its embedding, feature transforms included.
        keys = model.pool(torch.cat(list(prompt_features))[:, None, :], modality="text")  # (all prompts, D)

        def mean_scores(images: Tensor) -> Tensor:
            scores = model.scores(images, keys, query_modality="image", key_modality="text")
            return torch.stack([part.mean(-1) for part in scores.split(counts, dim=-1)], dim=-1)  # (Q, C)

        return mean_scores
    one: dict[str, Callable[[Tensor], Tensor]] = {
        "normalized_mean": lambda f: f.norm(dim=-1).mean(-1, keepdim=True) * mean_direction(f),
        "raw_mean": lambda f: f.mean(-2),
        "tangent_mean": lambda f: model.geometry.flatten(model.geometry.lift(f)).mean(-2),
    }
    classes = [one[ensemble](features)[None] for features in prompt_features]  # C times (1, D)
    return lambda images: model.class_scores(images, classes)

"""Scores of captions by cosines of embeddings, with or without reference captions: pure functions, fp64 inside.

These scores are published as cosines, whatever score a model was trained with.

Sources: CLIPScore, Hessel et al. 2021 (arXiv 2104.08718), section 3; PAC-S, Sarto et al. 2023 (arXiv 2303.12112);
I0T-S, An et al. 2024 (arXiv 2412.14384).
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from hypvl.checks import number, one_of

#: Weight w of :func:`caption_score` in each metric.
CLIP_SCORE_WEIGHT, PAC_SCORE_WEIGHT, I0T_SCORE_WEIGHT = 2.5, 2.0, 2.0


def paired_cosine(x: Tensor, y: Tensor) -> Tensor:
    """Cosine of row i with row i: (N, D), (N, D) -> (N,) fp64.

    Raises:
        ValueError: for other shapes, or a row without a direction.

    Example:
        >>> paired_cosine(torch.tensor([[1.0, 0.0]]), torch.tensor([[3.0, 4.0]]))
        tensor([0.6000], dtype=torch.float64)
    """
    if x.ndim != 2 or x.shape != y.shape:
        raise ValueError(
            f"x, y: got shapes {tuple(x.shape)} and {tuple(y.shape)}; expected one shape (N, D)."
        )
    return (_unit(x, "x") * _unit(y, "y")).sum(-1)


def caption_score(image: Tensor, candidate: Tensor, *, weight: float = CLIP_SCORE_WEIGHT) -> Tensor:
    """``weight * max(cos(image, candidate), 0)`` of each pair: CLIPScore with 2.5, PAC-S with 2.0.

    Features of images and of their captions, (N, D) each -> (N,) fp64, in [0, weight].

    Example:
        >>> caption_score(torch.tensor([[1.0, 0.0]]), torch.tensor([[3.0, 4.0]]))  # 2.5 * 0.6
        tensor([1.5000], dtype=torch.float64)
    """
    return number("weight", weight, above=0) * paired_cosine(image, candidate).clamp_min(0.0)


def reference_cosine(candidate: Tensor, references: Sequence[Tensor]) -> Tensor:
    """The largest cosine of each caption (N, D) with one of its references, (R_i, D) each with R_i >= 1.

    Returns:
        (N,) fp64, in [-1, 1]: not clipped at 0.

    Raises:
        ValueError: for a caption without references.

    Example:
        >>> reference_cosine(torch.tensor([[1.0, 0.0]]), [torch.tensor([[3.0, 4.0], [4.0, 3.0]])])
        tensor([0.8000], dtype=torch.float64)
    """
    if len(references) != len(candidate) or not all(len(own) for own in references):
        raise ValueError(
            f"references: got those of {sum(len(own) > 0 for own in references)} captions; expected at least one for "
            f"each of {len(candidate)}."
        )
    owner = torch.tensor([i for i, own in enumerate(references) for _ in own], device=candidate.device)
    cosine = paired_cosine(candidate[owner], torch.cat(list(references)))  # (sum R_i,)
    lowest = torch.full((len(candidate),), -torch.inf, dtype=cosine.dtype, device=cosine.device)
    return lowest.scatter_reduce(0, owner, cosine, "amax")


def reference_augmented(
    score: Tensor, reference: Tensor, *, negative: Literal["zero", "as_is"] = "zero"
) -> Tensor:
    """RefCLIPScore, RefPAC-S: the harmonic mean ``2 s r / (s + r)`` of a score s and the reference cosine r.

    Args:
        score: :func:`caption_score`, (N,).
        reference: :func:`reference_cosine`, (N,).
        negative: r < 0 counts as 0 (``zero``, the definition in CLIPScore's paper), or stays (``as_is``, as in its code
            and I0T's), which gives meaningless values (s = 1, r = -0.9: -18).

    Returns:
        (N,) fp64; 0 where s = r = 0, where the formula is undefined.

    Example:
        >>> reference_augmented(torch.tensor([1.0]), torch.tensor([0.5]))
        tensor([0.6667], dtype=torch.float64)
    """
    one_of("negative", negative, Literal["zero", "as_is"])
    s, r = score.double(), reference.double()
    r = r.clamp_min(0.0) if negative == "zero" else r
    total = s + r
    return torch.where(total == 0, 0.0, 2.0 * s * r / torch.where(total == 0, 1.0, total))


def standardized(features: Tensor, mean: Tensor | None = None) -> Tensor:
    """I0T_post of feature rows: ``normalise(normalise(x) - mean)``.

    Args:
        features: (N, D).
        mean: Mean of normalised features of the same modality, (D,); None = the mean of these.

    Returns:
        (N, D) fp64 unit rows. I0T-S is :func:`caption_score` of standardised images and captions, weight 2.0.

    Raises:
        ValueError: for a row that equals the mean, such as a single row.

    Example:
        >>> standardized(torch.tensor([[2.0, 0.0], [0.0, 3.0]]))
        tensor([[ 0.7071, -0.7071],
                [-0.7071,  0.7071]], dtype=torch.float64)
    """
    unit = _unit(features, "features")
    return _unit(unit - (unit.mean(0) if mean is None else mean.to(unit)), "features less their mean")


def _unit(x: Tensor, name: str) -> Tensor:
    x = x.double()
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    if bool((norm == 0).any()):
        raise ValueError(
            f"{name}: {int((norm == 0).sum())} of {len(x)} rows are 0; expected a direction in each."
        )
    return x / norm

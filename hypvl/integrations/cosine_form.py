"""Vectors whose cosines rank as a model's scores do, for harnesses and databases that know nothing but the cosine."""

import torch
from torch import Tensor

from hypvl.checks import number, one_of
from hypvl.embedding.protocol import EvaluableModel, Modality, evaluating, own_tokenizer
from hypvl.embedding.search_index import search_vectors
from hypvl.errors import UserError
from hypvl.geometry.base import Side

#: Length of the vectors of models whose inner-product form has no length of its own. Softmaxes of 100 times the cosine,
#: which harnesses take, still tell scores apart in fp32 with 64, and no longer with 2^17.
BOUND = 64.0
_ROUNDING = 1e-6


def cosine_form(
    model: EvaluableModel,
    embeddings: Tensor,
    *,
    side: Side,
    modality: Modality,
    other: Modality,
    bound: float | None = None,
) -> Tensor:
    """Embeddings (N, D) as vectors (N, E) in fp64, on the CPU, whose cosines have the order of the model's scores.

    With v of :func:`hypvl.embedding.search_index.search_vectors` and M the ``bound``, a query is
    [v, sqrt(M^2 - |v|^2), 0] and a key [v, 0, sqrt(M^2 - |v|^2)]: both have length M, the products of their last two
    entries are 0, and the cosine is the inner product / M^2. Queries can be compared with keys, not with each other.

    Args:
        model: Of any geometry with an inner-product form.
        embeddings: Of the model.
        side: Whether these are queries or keys. Which is which does not matter, as long as each pair has one of both.
        modality: Of the embeddings.
        other: Of those that they are compared with.
        bound: M, at least as long as the longest v, the same for queries and keys; None = :func:`fitting_bound`.

    Raises:
        UserError: For scores that are no inner products (products of spaces; across modalities where the model ranks
            by an angle), embeddings that are not finite, or a vector longer than the bound.
        ValueError: For a bound that is not above 0.
    """
    one_of("side", side, Side)
    one_of("modality", modality, Modality)
    one_of("other", other, Modality)
    length = fitting_bound(model) if bound is None else number("bound", bound, above=0)
    vectors = search_vectors(
        model, embeddings, side=side, modality=modality, other=other, dtype=torch.float64
    )
    left = length**2 - vectors.square().sum(-1, keepdim=True)  # (N, 1)
    if len(left) and bool(left.min() < -_ROUNDING * length**2):
        longest = (length**2 - left.min()).sqrt().item()
        raise UserError(
            f"cosine form: a vector has length {longest:.4g}, more than bound={length:g}; give a larger bound, the "
            "same for queries and keys."
        )
    rest, none = left.clamp(min=0).sqrt(), torch.zeros_like(left)
    return torch.cat((vectors, rest, none) if side == "query" else (vectors, none, rest), dim=-1)


def fitting_bound(model: EvaluableModel) -> float:
    """1 for a model whose inner-product form has unit length (a sphere), so that its cosines stay; else 64."""
    return 1.0 if has_unit_form(model) else BOUND


def has_unit_form(model: EvaluableModel) -> bool:
    """Whether queries and keys have the same vectors of unit length: then they need not be told apart.

    Raises:
        UserError: as :func:`cosine_form`, also across modalities.
    """
    with evaluating(model) as device:
        one = model.encode_text(own_tokenizer(model)(["a photo"]).to(device)).double().cpu()
    points = torch.cat((0.5 * one, 2 * one))
    query = search_vectors(model, points, side="query", modality="text", other="image", dtype=torch.float64)
    key = search_vectors(model, points, side="key", modality="text", other="image", dtype=torch.float64)
    unit = torch.ones(2, dtype=query.dtype)
    return bool(torch.equal(query, key) and torch.allclose(query.norm(dim=-1), unit, atol=_ROUNDING))

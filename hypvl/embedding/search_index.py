"""Vectors for exact inner-product search that rank as a model's scores do."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hypvl.checks import one_of
from hypvl.embedding.protocol import EvaluableModel, Modality, check_embeddings
from hypvl.embedding.search import ranks_by_distance
from hypvl.embedding.store_files import write_json
from hypvl.errors import DataError, UserError
from hypvl.geometry.base import Side
from hypvl.io.files import replacing
from hypvl.io.tensors import write_safetensors

FORMAT_VERSION = 1
VECTORS, ABOUT, FAISS = "vectors.safetensors", "index.json", "index.faiss"


@dataclass(frozen=True)
class SearchIndex:
    """Vectors of keys (or queries) with their ids, for any exact inner-product search."""

    vectors: Tensor  # (N, E) fp32; the inner product with a query's vector ranks as the model's score
    ids: Sequence[str]  # of each vector
    about: dict[str, Any]  # geometry, its curvature, side, modality, model: JSON-serialisable


def search_vectors(
    model: EvaluableModel,
    embeddings: Tensor,
    *,
    side: Side,
    modality: Modality,
    other: Modality,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Vectors for inner-product search, (N, E) of ``dtype`` on the CPU, of embeddings (N, D).

    They are queries or keys (``side``) of a modality, compared with those of the ``other``. They are computed in
    ``dtype``, or in that of the embeddings where that has more digits.

    Raises:
        UserError: when the model's scores of these modalities are not inner products, or embeddings are not finite.
    """
    one_of("side", side, Side)
    one_of("modality", modality, Modality)
    one_of("other", other, Modality)
    check_embeddings(embeddings)
    if modality != other and not ranks_by_distance(model):
        raise UserError(
            f"{modality} to {other}: this model's score, an angle or a maximum, is no inner product of fixed vectors; "
            "search with evaluate.py, or among one modality."
        )
    like = next(model.parameters())
    embeddings = embeddings.to(like.device, torch.promote_types(embeddings.dtype, dtype))
    with torch.inference_mode():
        vectors = model.geometry.inner_product_form(embeddings, side=side)
    if vectors is None:
        raise UserError(
            f"{type(model.geometry).__name__}: its scores are not inner products of fixed vectors (no "
            "inner_product_form); search with evaluate.py."
        )
    return vectors.to("cpu", dtype)


def build_index(
    model: EvaluableModel,
    embeddings: Tensor,
    ids: Sequence[str],
    *,
    side: Side,
    modality: Modality,
    other: Modality,
    identity: str,
) -> SearchIndex:
    """An index of embeddings (N, D), N >= 1, called by ``ids``, of the model of this identity."""
    one_of("side", side, Side)
    one_of("modality", modality, Modality)
    one_of("other", other, Modality)
    if len(ids) != len(embeddings) or not ids:
        raise ValueError(
            f"ids: got {len(ids)} for {len(embeddings)} embeddings; expected one each, at least one."
        )
    vectors = search_vectors(model, embeddings, side=side, modality=modality, other=other)
    geometry = type(model.geometry).__name__
    about = {
        "format_version": FORMAT_VERSION,
        "model": identity,
        "geometry": geometry,
        **model.geometry.stats(),
        "modality": modality,
        "searched_from": other,
        "side": side,
        "embed_dim": embeddings.shape[1],
        "dim": vectors.shape[1],
        "count": len(ids),
        "metric": "inner product, higher = closer",
    }
    return SearchIndex(vectors, list(ids), about)


def save_index(index: SearchIndex, folder: Path, *, faiss: bool = False) -> list[Path]:
    """Write ``vectors.safetensors``, ``index.json`` (what it is, ids) and, if wanted, ``index.faiss``.

    Raises:
        DataError: when the folder cannot be written to.
        UserError: when faiss is wanted and not installed; nothing is written.
    """
    if faiss:
        require_faiss()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_safetensors(folder / VECTORS, {"vectors": index.vectors.contiguous()}, metadata={})
    except OSError as error:
        raise DataError(f"{folder}: cannot be written to ({error.strerror}); name another folder.") from error
    written = [folder / VECTORS]
    if faiss:
        written.append(_save_faiss(index, folder / FAISS))
    write_json(
        folder / ABOUT, {**index.about, "ids": list(index.ids)}
    )  # the last: with it the index is complete
    return [*written, folder / ABOUT]


def require_faiss() -> None:
    """Raises UserError, saying what to install, when FAISS is absent."""
    try:
        import faiss  # noqa: F401
    except ImportError as error:
        raise UserError(
            "a FAISS index needs faiss, which is not installed: pip install 'hypvl[faiss]'; vectors.safetensors "
            "needs nothing."
        ) from error


def _save_faiss(index: SearchIndex, path: Path) -> Path:
    import faiss

    flat = faiss.IndexFlatIP(index.vectors.shape[1])
    flat.add(index.vectors.numpy())
    try:
        with replacing(path) as part:
            faiss.write_index(flat, str(part))
    except (OSError, RuntimeError) as error:  # faiss raises the latter
        raise DataError(f"{path}: cannot be written ({' '.join(str(error).split())}).") from error
    return path

"""Search by inner products finds what the model finds."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from hypvl.embedding.search import search
from hypvl.embedding.search_index import build_index, save_index, search_vectors
from hypvl.errors import UserError
from hypvl.geometry.euclidean import Euclidean
from hypvl.geometry.lorentz import Lorentz
from hypvl.geometry.product import Product
from hypvl.geometry.scorers import Cosine, ExteriorAngle, NegativeDistance
from hypvl.geometry.sphere import Sphere


class Model(nn.Module):
    """Scores of a geometry and a scorer; encodes nothing."""

    def __init__(self, geometry: Any, scorer: Any) -> None:
        super().__init__()
        self.geometry, self.scorer = geometry, scorer

    def scores(self, query: Tensor, key: Tensor, **modalities: Any) -> Tensor:
        return self.scorer.scores(self.geometry, query, key, **modalities)


KINDS = {
    "clip": lambda: Model(Sphere(), Cosine()),
    "meru": lambda: Model(Lorentz(curv_init=0.5), NegativeDistance()),
    "euclip": lambda: Model(Euclidean(), NegativeDistance()),
}
WAY: dict[str, Any] = {"modality": "image", "other": "text"}


def read_index(folder: Path) -> tuple[Tensor, dict[str, Any]]:
    """Vectors and description, as another program reads them."""
    return load_file(folder / "vectors.safetensors")["vectors"], json.loads(
        (folder / "index.json").read_text()
    )


@pytest.mark.parametrize("kind", KINDS)
def test_inner_products_rank_as_the_model_s_scores(kind: str, tmp_path: Path) -> None:
    model: Any = KINDS[kind]().double()
    generator = torch.Generator().manual_seed(1)
    keys, queries = (
        model.geometry.lift(torch.randn(n, 5, generator=generator, dtype=torch.float64)) for n in (300, 20)
    )
    ids = [f"{i}.jpg" for i in range(300)]
    index = build_index(model, keys, ids, side="key", identity="abc", **WAY)
    saved = save_index(index, tmp_path / "index")
    assert [path.name for path in saved] == ["vectors.safetensors", "index.json"]
    vectors, about = read_index(tmp_path / "index")
    assert vectors.dtype == torch.float32 and about == {**index.about, "ids": ids}
    query = search_vectors(model, queries, side="query", modality="text", other="image")
    expected = search(model, queries, keys, k=10, query_modality="text", key_modality="image")[1]
    assert torch.equal((query @ vectors.T).topk(10).indices, expected)


def test_the_json_file_describes_geometry_side_and_sizes(tmp_path: Path) -> None:
    model = KINDS["meru"]()
    index = build_index(model, torch.ones(2, 4), ["a", "b"], side="query", identity="abc", **WAY)  # type: ignore[arg-type]
    save_index(index, tmp_path)
    about = json.loads((tmp_path / "index.json").read_text())
    assert about["curv"] == pytest.approx(0.5) and (about["geometry"], about["side"]) == ("Lorentz", "query")
    assert (about["embed_dim"], about["dim"], about["count"], about["ids"]) == (4, 5, 2, ["a", "b"])
    assert index.vectors[0].tolist() == pytest.approx([1, 1, 1, 1, 6**0.5])  # t = sqrt(1/c + 4)


def test_scores_that_are_not_inner_products_are_refused() -> None:
    atmg: Any = Model(Lorentz(), ExteriorAngle())
    with pytest.raises(
        UserError, match="image to text: this model's score, an angle or a maximum, is no inner"
    ):
        search_vectors(atmg, torch.ones(2, 4), side="key", **WAY)
    assert search_vectors(atmg, torch.ones(2, 4), side="key", modality="image", other="image").shape == (2, 5)
    phyclip: Any = Model(Product(2, 2), NegativeDistance())
    with pytest.raises(UserError, match="Product: its scores are not inner products"):
        search_vectors(phyclip, torch.ones(2, 4), side="key", **WAY)
    meru: Any = KINDS["meru"]()
    with pytest.raises(UserError, match="1 of 2 hold NaN"):
        search_vectors(meru, torch.tensor([[1.0, torch.nan], [1.0, 1.0]]), side="key", **WAY)
    with pytest.raises(ValueError, match="ids: got 1 for 2 embeddings"):
        build_index(meru, torch.ones(2, 4), ["a"], side="key", identity="", **WAY)


def test_faiss_finds_the_same(tmp_path: Path) -> None:
    faiss = pytest.importorskip("faiss")
    keys = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    index = build_index(KINDS["meru"](), keys, [str(i) for i in range(50)], side="key", identity="", **WAY)  # type: ignore[arg-type]
    save_index(index, tmp_path, faiss=True)
    flat = faiss.read_index(str(tmp_path / "index.faiss"))
    query = search_vectors(KINDS["meru"](), keys[:5], side="query", modality="text", other="image")  # type: ignore[arg-type]
    assert flat.search(query.numpy(), 3)[1].tolist() == (query @ index.vectors.T).topk(3).indices.tolist()


def test_a_missing_faiss_is_an_error_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = build_index(KINDS["clip"](), torch.ones(2, 4), ["a", "b"], side="key", identity="", **WAY)  # type: ignore[arg-type]
    modules = __import__("sys").modules
    monkeypatch.setitem(modules, "faiss", None)
    with pytest.raises(UserError, match=r"pip install 'hypvl\[faiss\]'"):
        save_index(index, tmp_path / "none", faiss=True)
    assert not (tmp_path / "none").exists()
    added: list[Any] = []
    flat = SimpleNamespace(add=added.append)
    fake = SimpleNamespace(
        IndexFlatIP=lambda dim: flat, write_index=lambda _, path: Path(path).write_text("whole")
    )
    monkeypatch.setitem(modules, "faiss", fake)
    save_index(index, tmp_path / "some", faiss=True)
    assert (tmp_path / "some" / "index.faiss").read_text() == "whole" and added[0].shape == (2, 4)

"""Stores rank as the model does: the real libraries, 1,000 keys."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from hypvl.embedding.search import search
from hypvl.embedding.search_index import SearchIndex, build_index, search_vectors
from hypvl.errors import UserError
from hypvl.export.stores import TABLE, write_faiss, write_lancedb
from tests.embedding.test_search_index import KINDS, WAY
from tests.models.test_forward import build, images, texts

KEYS, K = 1000, 10


def keys_and_queries(kind: str) -> tuple[Any, SearchIndex, torch.Tensor, list[list[int]]]:
    """A model, its index of 1,000 keys, the vectors of 20 queries, and the model's own first ten keys of each."""
    model: Any = KINDS[kind]()
    generator = torch.Generator().manual_seed(1)
    keys, queries = (model.geometry.lift(torch.randn(n, 16, generator=generator)) for n in (KEYS, 20))
    index = build_index(model, keys, [str(i) for i in range(KEYS)], side="key", identity="abc", **WAY)
    vectors = search_vectors(model, queries, side="query", modality="text", other="image")
    own = search(model, queries, keys, k=K, query_modality="text", key_modality="image")[1]
    return model, index, vectors, own.tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_faiss_ranks_as_the_model(kind: str, tmp_path: Path) -> None:
    faiss = pytest.importorskip("faiss")
    _, index, queries, own = keys_and_queries(kind)
    assert [path.name for path in write_faiss(index, tmp_path)] == [
        "vectors.safetensors", "index.faiss", "index.json",
    ]  # fmt: skip
    found = faiss.read_index(str(tmp_path / "index.faiss")).search(queries.numpy(), K)[1]
    assert found.tolist() == own


@pytest.mark.parametrize("kind", KINDS)
def test_lancedb_ranks_as_the_model(kind: str, tmp_path: Path) -> None:
    lancedb = pytest.importorskip("lancedb")
    _, index, queries, own = keys_and_queries(kind)
    write_lancedb(index, tmp_path, texts=[f"text {i}" for i in range(KEYS)])
    table = lancedb.connect(str(tmp_path)).open_table(TABLE)
    for query, expected in zip(queries, own, strict=True):
        rows = table.search(query.numpy()).distance_type("dot").limit(K).to_list()
        assert [row["id"] for row in rows] == [str(i) for i in expected]
        assert rows[0]["text"] == f"text {expected[0]}"


def test_a_missing_package_and_texts_of_another_number_are_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, index, _, _ = keys_and_queries("clip")
    with pytest.raises(ValueError, match="texts: got 1 for 1000 rows"):
        write_lancedb(index, tmp_path, texts=["a"])
    monkeypatch.setitem(__import__("sys").modules, "lancedb", None)
    with pytest.raises(UserError, match=r"pip install 'hypvl\[lancedb\]'"):
        write_lancedb(index, tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_search_of_the_docs_finds_what_the_model_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("faiss")
    page = (Path(__file__).parents[2] / "docs" / "export.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(import faiss\n.*?)```", page, re.S)
    model = build("lorentz")
    model.textual.tokenizer = lambda names: texts(len(names), 5)  # type: ignore[union-attr]
    with torch.inference_mode():
        keys = model.encode_image(images(6))
        query = model.encode_text(texts(1, 5))
    index = build_index(model, keys, list("abcdef"), side="key", identity="", **WAY)
    write_faiss(index, tmp_path / "output" / "photos_index")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "docs/export.md", "exec"), {"model": model})
    own = search(model, query, keys, k=3, query_modality="text", key_modality="image")[1]
    assert capsys.readouterr().out.strip() == str(["abcdef"[i] for i in own[0].tolist()])

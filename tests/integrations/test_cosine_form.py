"""Cosines that rank as the model does, and what cannot be had."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from hypvl.embedding.protocol import Modality, own_tokenizer
from hypvl.embedding.search_index import search_vectors
from hypvl.errors import UserError
from hypvl.integrations.cosine_form import BOUND, cosine_form, fitting_bound
from hypvl.models.dual_encoder import DualEncoder
from tests.integrations.miniature import load, write_checkpoint
from tests.training.tiny import tiny_model

CPU = torch.device("cpu")


@pytest.fixture(scope="module", params=["meru_vit_s", "clip_vit_s", "euclip_vit_b", "hycoclip_vit_s"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> DualEncoder:
    return load(write_checkpoint(tmp_path_factory.mktemp("model") / "model.pth", request.param))


def points(model: DualEncoder, count: int, seed: int) -> Tensor:
    features = torch.randn(
        count, model.embed_dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    return model.geometry.lift(0.3 * features).detach()


def cosines(query: Tensor, key: Tensor) -> Tensor:
    return cosine_similarity(query[:, None], key[None], dim=-1)


def test_cosines_rank_as_the_model(model: DualEncoder) -> None:
    """Keys of a query, queries of a key, and all pairs among each other; the lengths are those of the bound."""
    texts, images = points(model, 7, 0), points(model, 40, 1)
    for bound in (None, 100.0):
        query = cosine_form(model, texts, side="query", modality="text", other="image", bound=bound)
        key = cosine_form(model, images, side="key", modality="image", other="text", bound=bound)
        used = fitting_bound(model) if bound is None else bound
        for rows in (query, key):
            assert rows.dtype == torch.float64
            assert torch.allclose(rows.norm(dim=-1), torch.full((len(rows),), used, dtype=torch.float64))
        scores = model.geometry.pairwise_similarity(texts, images).detach()
        assert torch.equal(cosines(query, key).flatten().argsort(), scores.flatten().argsort())
        own = model.scores(
            texts.float(), images.float(), query_modality="text", key_modality="image"
        ).detach()
        assert torch.allclose(cosines(query, key) * used**2, search_products(model, texts, images), atol=1e-9)
        assert (cosines(query, key).argmax(1) == own.argmax(1)).all()


def search_products(model: DualEncoder, texts: Tensor, images: Tensor) -> Tensor:
    query = search_vectors(model, texts, side="query", modality="text", other="image", dtype=torch.float64)
    key = search_vectors(model, images, side="key", modality="image", other="text", dtype=torch.float64)
    return query @ key.T


def test_a_sphere_keeps_its_cosines(tmp_path: Path) -> None:
    model = load(write_checkpoint(tmp_path / "clip.pth", "clip_vit_s"))
    assert fitting_bound(model) == 1.0
    texts, images = points(model, 3, 0), points(model, 4, 1)
    query = cosine_form(model, texts, side="query", modality="text", other="image")
    key = cosine_form(model, images, side="key", modality="image", other="text")
    assert torch.allclose(query @ key.T, cosines(texts, images))
    assert fitting_bound(tiny_model("meru", vocab_size=49408)) == BOUND


def test_a_bound_that_is_too_small_is_named(meru: Path) -> None:
    model = load(meru)
    embeddings = points(model, 3, 0)
    side: dict[str, Modality] = {"modality": "text", "other": "image"}
    with pytest.raises(
        UserError, match=r"a vector has length \d.*, more than bound=0\.5; give a larger bound"
    ):
        cosine_form(model, embeddings, side="query", **side, bound=0.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"bound: got 0"):
        cosine_form(model, embeddings, side="query", **side, bound=0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("recipe", "message"),
    [("atmg_vit_s", "text to image: .* an angle"), ("phyclip_vit_s", "not inner products")],
)
def test_scores_that_are_no_inner_products_are_refused(tmp_path: Path, recipe: str, message: str) -> None:
    model = load(write_checkpoint(tmp_path / "model.pth", recipe))
    embeddings = model.encode_text(own_tokenizer(model)(["a cat"])).detach()
    with pytest.raises(UserError, match=message):
        cosine_form(model, embeddings, side="query", modality="text", other="image")


def test_fp32_softmax_of_100_cosines_still_tells_scores_apart(meru: Path) -> None:
    """What harnesses do with class scores: with the default bound right, with one of 2^17 chance."""
    model = load(meru)
    texts, images = points(model, 50, 0), points(model, 200, 1)
    right = model.geometry.pairwise_similarity(images, texts).argmax(1)
    shares = []
    for bound in (BOUND, 2.0**17):
        key = cosine_form(model, images, side="key", modality="image", other="text", bound=bound).float()
        query = cosine_form(model, texts, side="query", modality="text", other="image", bound=bound).float()
        found = (100 * cosines(key, query)).softmax(-1).argmax(-1)
        shares.append((found == right).float().mean().item())
    assert shares[0] > 0.98 and shares[1] < 0.6

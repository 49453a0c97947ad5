"""sentence-transformers: its similarity ranks as the model does, also after saving and loading."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

sentence_transformers = pytest.importorskip(
    "sentence_transformers", reason="sentence-transformers is not installed"
)

from hypvl.config import LazyConfig  # noqa: E402
from hypvl.errors import ConfigError, UserError  # noqa: E402
from hypvl.integrations.sentence_transformers import HypvlModule, sentence_transformer  # noqa: E402
from hypvl.models.dual_encoder import DualEncoder  # noqa: E402
from hypvl.models.hub import from_pretrained  # noqa: E402
from tests.integrations.miniature import PER_CLASS, WORDS, Miniature, load, write_checkpoint  # noqa: E402

TEXTS = [f"{word} {n} times" for word in WORDS for n in range(PER_CLASS)]


@pytest.fixture(scope="module")
def images(miniature: Miniature) -> list[Any]:
    return [Image.open(path).convert("RGB") for path in sorted(miniature.folder.glob("images/*/*.png"))]


@pytest.fixture(scope="module", params=["meru_vit_s", "clip_vit_s", "euclip_vit_b"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("model") / "model.pth", request.param)


def own_scores(model: DualEncoder, images: list[Any]) -> np.ndarray:
    module = HypvlModule(model)
    with torch.no_grad():
        texts = model.encode_text(module.preprocess(TEXTS)["input_ids"])
        pixels = model.encode_image(module.preprocess(images)["pixel_values"])
        return model.scores(texts, pixels, query_modality="text", key_modality="image").numpy()


def test_similarity_ranks_as_the_model_and_after_a_reload(
    place: Path, images: list[Any], tmp_path: Path
) -> None:
    model = load(place)
    expected = own_scores(model, images)
    encoder = sentence_transformer(model, place)
    queries, documents = (
        encoder.encode_query(TEXTS, batch_size=5),
        encoder.encode_document(images, batch_size=7),
    )
    assert queries.dtype == np.float32 and queries.shape == (24, encoder.get_embedding_dimension())
    scores = encoder.similarity(queries, documents).numpy()
    agree(scores, expected)
    encoder.save(str(tmp_path / "m"), create_model_card=False)
    with pytest.raises(ValueError, match="trust_remote_code"):
        sentence_transformers.SentenceTransformer(str(tmp_path / "m"))
    again = sentence_transformers.SentenceTransformer(
        str(tmp_path / "m"), trust_remote_code=True, device="cpu"
    )
    assert again.similarity_fn_name == "dot"
    np.testing.assert_allclose(again.encode_query(TEXTS), queries, atol=1e-4)
    np.testing.assert_allclose(again.encode_document(images), documents, atol=1e-4)
    assert not list((tmp_path / "m").rglob("*.py"))  # nothing that could be executed
    with torch.no_grad():  # hypvl reads the same folder
        agree(own_scores(from_pretrained(tmp_path / "m"), images), expected)


def agree(scores: np.ndarray, expected: np.ndarray) -> None:
    """Every pair of keys that the model tells apart has the model's order."""
    spread = np.abs(expected).max() * 1e-5
    for row, own in zip(scores, expected, strict=True):
        order = np.argsort(own)
        gaps, steps = np.diff(own[order]), np.diff(row[order])
        assert (steps[gaps > spread] > 0).all()


def test_what_is_neither_a_query_nor_a_document(meru: Path, images: list[Any], tmp_path: Path) -> None:
    hyperbolic = sentence_transformer(load(meru))
    with pytest.raises(
        UserError, match="Lorentz: the vector of a query is not that of a document here; call encode_q"
    ):
        hyperbolic.encode(TEXTS[:2])
    sphere = sentence_transformer(load(write_checkpoint(tmp_path / "clip.pth", "clip_vit_s")))
    np.testing.assert_array_equal(sphere.encode(TEXTS[:2]), sphere.encode_query(TEXTS[:2]))
    with pytest.raises(ValueError, match="got texts and images in one list"):
        sphere[0].preprocess([TEXTS[0], images[0]])
    with pytest.raises(ConfigError, match="config: is None; give HypvlModule"):
        sphere.save(str(tmp_path / "m"), create_model_card=False)


def test_a_prompt_stands_before_texts(meru: Path) -> None:
    encoder = sentence_transformer(load(meru))
    with_prompt = encoder.encode_query(["leaves"], prompt="green ")
    np.testing.assert_allclose(with_prompt, encoder.encode_query(["green leaves"]), atol=1e-6)


def test_scores_that_are_no_inner_products_are_refused(tmp_path: Path) -> None:
    model = load(write_checkpoint(tmp_path / "model.pth", "atmg_vit_s"))
    with pytest.raises(UserError, match=r"text to image: .* an angle"):
        HypvlModule(model)


def test_the_config_that_is_saved_is_the_model_s(meru: Path, tmp_path: Path) -> None:
    sentence_transformer(load(meru), meru).save(str(tmp_path), create_model_card=False)
    assert LazyConfig.load(tmp_path / "config.json").model.visual.image_size == 32

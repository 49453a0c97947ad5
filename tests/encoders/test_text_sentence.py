"""Models of sentence-transformers, transformers and words: the numbers of the library's own ``encode``."""

import importlib.util
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hypvl.encoders.text_sentence import SentenceTransformerTextEncoder
from hypvl.errors import ConfigError, UserError
from tests.encoders.texts import TEXTS, saved_model

pytestmark = pytest.mark.skipif(  # importing it takes seconds: not while tests are collected
    importlib.util.find_spec("sentence_transformers") is None, reason="sentence-transformers is not installed"
)
VECTORS = "cat 1 0 0\ndog 0 1 0\nred 0.5 0.5 1\n"


def library(*args: Any, **kwargs: Any) -> Any:
    """A model of the library."""
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(*args, **kwargs)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny BERT with a mean, a dense layer and a norm."""
    from sentence_transformers.models import Dense, Normalize, Pooling, Transformer

    folder = tmp_path_factory.mktemp("sentence")
    words = Transformer(str(saved_model(folder / "bert", "bert")), max_seq_length=32)
    torch.manual_seed(0)
    whole = library(
        modules=[words, Pooling(16, pooling_mode="mean"), Dense(16, 6), Normalize()], device="cpu"
    )
    whole.save(str(folder / "saved"))
    return str(folder / "saved")


@pytest.fixture(scope="module")
def glove(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Word vectors as GloVe's text file has them, with a mean."""
    from sentence_transformers.models import Pooling, WordEmbeddings

    folder = tmp_path_factory.mktemp("glove")
    (folder / "vectors.txt").write_text(VECTORS, encoding="utf-8")
    words = WordEmbeddings.from_text_file(str(folder / "vectors.txt"))
    library(modules=[words, Pooling(3, pooling_mode="mean")], device="cpu").save(str(folder / "saved"))
    return str(folder / "saved")


@torch.no_grad()
@pytest.mark.parametrize("kind", ["bert", "glove"])
def test_features_are_those_of_the_library(kind: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(kind)
    model = SentenceTransformerTextEncoder(folder, context_length=32).eval()
    texts = [*TEXTS, "red dog, cat!"]
    expected = library(folder, device="cpu").encode(texts)
    tokens = model.tokenizer(texts)
    features = model(tokens)
    assert model.width == {"bert": 6, "glove": 3}[kind] and np.abs(expected).max() > 0.1
    torch.testing.assert_close(features, torch.from_numpy(expected), rtol=0, atol=1e-5)
    wide = torch.nn.functional.pad(tokens, (0, 40), value=model.pad_token)
    torch.testing.assert_close(model(wide), features, rtol=0, atol=1e-6)


@torch.no_grad()
def test_words_are_averaged_by_hand(glove: str) -> None:
    model = SentenceTransformerTextEncoder(glove, context_length=8)
    assert (model.pad_token, model.vocab_size) == (-1, 4)  # a padding token stands before the words
    tokens = model.tokenizer(["red cat", "an unknown thing", "dog"])
    assert tokens.tolist() == [[3, 1], [-1, -1], [2, -1]]
    assert model(tokens).tolist() == [[0.75, 0.25, 0.5], [0, 0, 0], [0, 1, 0]]
    assert model.tokenizer("unknown").tolist() == [[-1]]
    assert not [p for p in model.parameters() if p.requires_grad]


def test_a_long_text_is_cut_and_a_tokenizer_travels(bert: str) -> None:
    model = SentenceTransformerTextEncoder(bert, context_length=5)
    assert len(model.tokenizer.encode("a cat a cat a cat")) == 5
    again = pickle.loads(pickle.dumps(model.tokenizer))
    assert again(TEXTS).tolist() == model.tokenizer(TEXTS).tolist() and repr(again) == repr(model.tokenizer)
    assert SentenceTransformerTextEncoder(bert, context_length=None).context_length == 32


def test_gradients_and_checkpointing(bert: str, glove: str) -> None:
    gradients = []
    for recompute in (False, True):
        model = SentenceTransformerTextEncoder(bert, context_length=32, grad_checkpointing=recompute).double()
        assert model.trunk.training
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        model(model.tokenizer(TEXTS)).pow(3).sum().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert len(gradients[0]) > 30
    for name, direct in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], direct, rtol=1e-9, atol=1e-12)
    with pytest.raises(ConfigError, match="this model has no gradient checkpointing"):
        SentenceTransformerTextEncoder(glove, context_length=8, grad_checkpointing=True)


@torch.no_grad()
def test_the_default_prompt_stands_before_each_text(bert: str, tmp_path: Path) -> None:
    whole = library(bert, device="cpu", prompts={"query": "the red "}, default_prompt_name="query")
    whole.save(str(tmp_path))
    model = SentenceTransformerTextEncoder(str(tmp_path), context_length=32).eval()
    torch.testing.assert_close(
        model(model.tokenizer(TEXTS)), torch.from_numpy(whole.encode(TEXTS)), rtol=0, atol=1e-5
    )


def test_no_code_of_a_folder_is_run(bert: str, tmp_path: Path) -> None:
    """Modules of a folder are classes by name: only the package's own are taken."""
    import shutil

    shutil.copytree(bert, tmp_path / "evil")
    ran = tmp_path / "ran"
    (tmp_path / "evil" / "mine.py").write_text(
        f"open({str(ran)!r}, 'w').close()\nclass Mine: ...\n", encoding="utf-8"
    )
    listing = tmp_path / "evil" / "modules.json"
    text = listing.read_text(encoding="utf-8")
    start = text.index('"sentence_transformers.')
    listing.write_text(
        text[:start] + '"mine.Mine"' + text[text.index('"', start + 1) + 1 :], encoding="utf-8"
    )
    with pytest.raises(UserError, match="no model of sentence-transformers can be loaded"):
        SentenceTransformerTextEncoder(str(tmp_path / "evil"))
    assert not ran.exists()


def test_what_cannot_be_built(bert: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"textual\.context_length is 33, but .* takes texts of 32 tokens"):
        SentenceTransformerTextEncoder(bert, context_length=33)
    with pytest.raises(
        UserError, match=r"no model of sentence-transformers can be loaded .* expected a folder"
    ):
        SentenceTransformerTextEncoder(str(tmp_path / "absent"))
    wrong: Any = 3
    with pytest.raises(TypeError, match="a text is int"):
        SentenceTransformerTextEncoder(bert, context_length=8).tokenizer.encode(wrong)
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(UserError, match=r"not installed: pip install 'hypvl\[sentence-transformers\]'"):
        SentenceTransformerTextEncoder(bert)

"""Tokenizers of transformers: the library's ids, padded at the end, with a template around the text."""

import pickle
import sys
from pathlib import Path

import pytest

from hypvl.data.tokenizer import pad_token_of
from hypvl.data.tokenizer_huggingface import HuggingFaceTokenizer, load_tokenizer
from hypvl.errors import DataError, UserError
from tests.encoders.texts import TEXTS, byte_pairs, word_pieces

PAD, UNK, CLS, SEP, MASK, A, CAT, DOG = range(8)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(word_pieces(tmp_path_factory.mktemp("bert")))


@pytest.fixture(scope="module")
def roberta(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(byte_pairs(tmp_path_factory.mktemp("roberta"), roberta=True))


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(byte_pairs(tmp_path_factory.mktemp("gpt2"), roberta=False))


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_ids_are_those_of_the_library(kind: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(kind)
    ours = HuggingFaceTokenizer(folder)
    theirs = load_tokenizer(folder)(TEXTS, padding=True, return_tensors="pt")["input_ids"]
    assert ours(TEXTS).tolist() == theirs.tolist()
    assert pad_token_of(ours) == {"bert": 0, "roberta": 1}[kind] and ours.vocab_size == len(ours.tokenizer)


def test_a_model_without_padding_pads_with_no_token(gpt2: str) -> None:
    tokenizer = HuggingFaceTokenizer(gpt2)
    rows = tokenizer(TEXTS).tolist()
    theirs = [load_tokenizer(gpt2)(text)["input_ids"] for text in TEXTS]
    assert tokenizer.pad_token == -1
    assert [[token for token in row if token != -1] for row in rows] == theirs
    assert tokenizer("").tolist() == [[0]]  # <|endoftext|>


def test_long_texts_keep_their_last_special_token(bert: str) -> None:
    assert HuggingFaceTokenizer(bert, 5).encode("a cat a cat a cat") == [CLS, A, CAT, A, SEP]
    assert HuggingFaceTokenizer(bert, 5)([]).shape == (0, 0)


def test_the_template_is_whole_and_the_text_is_cut(bert: str) -> None:
    tokenizer = HuggingFaceTokenizer(bert, 8, template='"{}" means [MASK].')
    quote, means, dot = 15, 13, 14
    around = [CLS, quote], [quote, means, MASK, dot, SEP]
    assert (tokenizer.before, tokenizer.after) == around
    assert tokenizer.encode("a cat") == [*around[0], A, *around[1]]
    assert HuggingFaceTokenizer(bert, 9, template='"{}" means [MASK].').encode("a cat [MASK]") == [
        *around[0], A, CAT, *around[1],
    ]  # fmt: skip
    with pytest.raises(
        ValueError, match=r"context_length: got 7, but the template takes 7 ids; expected at least 8"
    ):
        HuggingFaceTokenizer(bert, 7, template='"{}" means [MASK].')


def test_a_space_before_the_text_belongs_to_its_first_token(roberta: str) -> None:
    apart, joined = (HuggingFaceTokenizer(roberta, template=t) for t in ("the {} .", "the({})"))
    assert (
        apart.encode("cat")[len(apart.before)]
        == apart.tokenizer(" cat", add_special_tokens=False)["input_ids"][0]
    )
    assert (
        joined.encode("cat")[len(joined.before)]
        == joined.tokenizer("cat", add_special_tokens=False)["input_ids"][0]
    )


def test_tokenizers_travel_and_are_known_by_their_vocabulary(bert: str, roberta: str) -> None:
    tokenizer = HuggingFaceTokenizer(bert, 9, template='"{}" means [MASK].')
    again = pickle.loads(pickle.dumps(tokenizer))
    assert again(TEXTS).tolist() == tokenizer(TEXTS).tolist() and repr(again) == repr(tokenizer)
    assert (
        again.vocabulary == HuggingFaceTokenizer(bert).vocabulary != HuggingFaceTokenizer(roberta).vocabulary
    )


def test_what_cannot_be_tokenised(bert: str, gpt2: str, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="a text is NoneType"):
        HuggingFaceTokenizer(bert)(["a", None])  # type: ignore[list-item]
    with pytest.raises(ValueError, match=r"template: got 'means'; expected {}"):
        HuggingFaceTokenizer(bert, template="means")
    with pytest.raises(ValueError, match="has no mask token"):
        HuggingFaceTokenizer(gpt2, template="{} means [MASK]")
    with pytest.raises(DataError, match=r"no tokenizer can be loaded from it .*expected a folder"):
        HuggingFaceTokenizer(str(tmp_path))


def test_the_extra_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(
        UserError, match=r"need transformers, which is not installed: pip install 'hypvl\[huggingface\]'"
    ):
        HuggingFaceTokenizer("bert-base-uncased")

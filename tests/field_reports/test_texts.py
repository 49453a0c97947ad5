"""Captions and prompts that other tokenizers, or the way to them, spoil."""

import json

import numpy as np
import pytest
import torch

from hypvl.data.mappers import GenericMapper
from hypvl.data.tokenizer import get_tokenizer
from hypvl.datasets.classification.prompts import class_prompts
from hypvl.encoders.text import TextTransformer

START, END = 49406, 49407
A_CAT = [START, 320, 2368, END]


@pytest.mark.parametrize("context_length", [3, 8, 77, 248])
def test_a_long_text_keeps_its_end(context_length: int) -> None:
    """open_clip: truncation drops the end-of-text token, so that features are read at a random word; it must stay."""
    ids = get_tokenizer(context_length).encode("a cat " * 500)
    assert len(ids) == context_length
    assert ids[0] == START
    assert ids[1:-1] == ([320, 2368] * 250)[: context_length - 2]
    assert ids[-1] == END


def test_the_features_of_a_long_text_are_read_at_its_end() -> None:
    """MERU: what stands after the truncation changes the embedding; texts with equal beginnings must be equal."""
    torch.manual_seed(0)
    encoder = TextTransformer("L1_W16_A2", context_length=8).eval()
    tokens = get_tokenizer(8)(["a cat " * 3 + "and more", "a cat " * 3 + "or less and so on", "a cat"])
    features = encoder(tokens)
    assert torch.equal(features[0], features[1])
    assert not torch.allclose(features[0], features[2])


def test_padding_changes_nothing() -> None:
    """open_clip: a caption's embedding depends on its neighbours in the batch; padding must not be seen."""
    torch.manual_seed(0)
    encoder = TextTransformer("L1_W16_A2").eval()
    tokenizer = get_tokenizer()
    alone = encoder(tokenizer("a cat"))
    beside = encoder(tokenizer(["a cat", "a very long caption about something else entirely"]))[:1]
    torch.testing.assert_close(alone, beside)
    to_77 = torch.nn.functional.pad(tokenizer("a cat"), (0, 73))
    torch.testing.assert_close(encoder(to_77), alone)


@pytest.mark.parametrize(
    "text",
    ["A CAT", " a  cat ", "a\tcat\n", "a\r\ncat", "a\u00a0cat", "a\u3000cat", "a &#99;at", "a&nbsp;cat",
     "\uff41 \uff43\uff41\uff54", "a\x00 cat"],
)  # fmt: skip
def test_case_spaces_and_entities_do_not_matter(text: str) -> None:
    """open_clip: other case, white space, HTML entities or full-width letters give other ids; all are "a cat"."""
    assert get_tokenizer().encode(text) == A_CAT


@pytest.mark.parametrize(
    ("text", "same"),
    [("AT&amp;T", "at&t"), ("AT&amp;amp;T", "at&t"), ("&lt;3", "<3"), ("schÃ¶n", "schön"), ("it\u2019s", "it's"),
     ("\u201cquoted\u201d", '"quoted"'), ("ﬁne", "fine")],
)  # fmt: skip
def test_damaged_text_is_repaired(text: str, same: str) -> None:
    """LAION: captions with entities, mojibake and curly quotes are tokenised as noise; they must be repaired first."""
    assert get_tokenizer().encode(text) == get_tokenizer().encode(same)


@pytest.mark.parametrize(
    "text",
    ["a \U0001f600 face", "\U0001f468\u200d\U0001f469\u200d\U0001f467",
     "\u05e9\u05dc\u05d5\u05dd \u0639\u0627\u0644\u0645", "\u732b\u306e\u5199\u771f", "na\u00efve caf\u00e9"],
)  # fmt: skip
def test_other_scripts_and_emoji_come_back(text: str) -> None:
    """open_clip: emoji, Hebrew, Arabic or Japanese end in an error or in nothing; their bytes must survive."""
    tokenizer = get_tokenizer()
    assert tokenizer.decode(tokenizer.encode(text)).replace(" ", "") == text.replace(" ", "")


def test_nothing_to_read_is_still_a_text() -> None:
    """open_clip: an empty prompt is an index error in the read-out; it must be the start and the end."""
    for text in ("", "   ", "\n", "\x00", "\u0345"):
        assert get_tokenizer().encode(text) == [START, END], repr(text)
    encoder = TextTransformer("L1_W16_A2").eval()
    assert encoder(get_tokenizer()([""])).isfinite().all()


def test_a_huge_caption_takes_no_time_and_no_memory() -> None:
    """LAION: one caption that is a whole page stalls a worker for minutes; only its beginning may be read."""
    ids = get_tokenizer().encode("word " * 1_000_000)
    assert len(ids) == 77
    assert len(set(ids[1:-1])) == 1


def test_the_words_of_the_special_tokens_are_no_way_in() -> None:
    """open_clip: "<|endoftext|>" inside a caption; the first end is where features are read, as CLIP does."""
    torch.manual_seed(0)
    encoder = TextTransformer("L1_W16_A2").eval()
    tokens = get_tokenizer()(["a cat <|endoftext|> and a dog", "a cat"])
    torch.testing.assert_close(encoder(tokens)[0], encoder(tokens)[1])


@pytest.mark.parametrize(
    "caption",
    [
        "\U0001f600 smile",
        "a\u2028b",
        "\u202eright to left",
        'quotes " and \\ and \t',
        "{braces} %s {0}",
        "-1",
        "null",
        "<b>x</b>",
    ],
)
def test_json_captions_come_out_as_they_went_in(caption: str) -> None:
    """img2dataset: captions with signs of another format are changed on the way through JSON; none may be."""
    for ascii_only in (True, False):
        notes = json.dumps({"caption": caption}, ensure_ascii=ascii_only).encode()
        fields = GenericMapper()("k", {"jpg": b"", "json": notes}, np.random.default_rng(0))
        assert fields["caption"] == caption


def test_class_names_are_put_into_prompts_as_they_are() -> None:
    """open_clip: names with braces, percent signs or underscores break templates; they must be put in literally."""
    names = ["hot_dog", "100% wool", "{c}", "a\\b", "C++"]
    assert class_prompts(["a {}.", "the {c}"], names) == [[f"a {name}.", f"the {name}"] for name in names]

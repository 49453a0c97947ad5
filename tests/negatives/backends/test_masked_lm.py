"""The masked language model (skipped where transformers is not installed: pip install 'hypvl[negatives-lm]').

The model is made here: its guesses are the same list for every place, the words of VOCABULARY in that order.
"""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from hypvl.errors import UserError
from hypvl.negatives.backends.base import Request
from hypvl.negatives.backends.masked_lm import MaskedLMArguments
from hypvl.negatives.generate import Row, Settings, make_negatives
from hypvl.negatives.keyed_random import Draws

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
VOCABULARY = [
    "a",
    "man",
    "##s",
    "person",
    "woman",
    "horse",
    "dogs",
    "riding",
    "feeding",
    "red",
    "large",
    "blue",
    "4",
    ".",
]


def save_model(folder: Path, *, mask: bool = True) -> Path:
    """A BERT of a few numbers and its WordPiece tokenizer, loadable by name of the folder."""
    import torch
    from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

    words = SPECIAL + VOCABULARY
    pieces = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": None,
        "decoder": None,
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": {word: i for i, word in enumerate(words)},
        },
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pieces.json").write_text(json.dumps(pieces))
    names = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "pieces.json"), **names, **({"mask_token": "[MASK]"} if mask else {})
    )
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    model = BertForMaskedLM(
        BertConfig(
            vocab_size=len(words) + 3,  # more than the tokenizer has, as published models do
            hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, max_position_embeddings=90,
        )
    )  # fmt: skip
    with torch.no_grad():
        model.get_input_embeddings().weight.zero_()  # tied to the output: only the bias is left
        bias = torch.arange(len(words) + 3, 0, -1).float()
        bias[: len(SPECIAL)] = -1
        model.cls.predictions.bias.copy_(bias)
    model.save_pretrained(folder)
    return folder


def test_says_what_is_missing_without_the_packages() -> None:
    if find_spec("transformers"):
        assert MaskedLMArguments(tagger="builtin").identity()["mlm_model"] == "distilroberta-base"
        return
    with pytest.raises(UserError, match=r"needs transformers.*pip install 'hypvl\[negatives-lm\]'"):
        MaskedLMArguments().build()
    with pytest.raises(UserError, match="needs transformers, which is not installed"):
        MaskedLMArguments(tagger="builtin").build()


class TestInstalled:
    """What needs transformers."""

    @pytest.fixture(scope="class")
    def model(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        pytest.importorskip("transformers", reason="transformers is not installed (extra negatives-lm)")
        return save_model(tmp_path_factory.mktemp("model"))

    def guesses(self, model: Path, caption: str, written: str, **arguments) -> list[str]:
        given = {"tagger": "builtin", "skip": 0, **arguments}
        backend = MaskedLMArguments(model=str(model), **given).build()
        word = next(one for one in backend.tag([caption])[0] if caption[one.start : one.end] == written)
        return list(backend.replacements([Request(caption, word, Draws(0, 0, 0))])[0])

    def test_guesses_are_whole_words_of_the_form_that_contradict(self, model: Path) -> None:
        # not: the word itself, "##s", person (a man is one), dogs (plural), riding (a verb), 4
        assert self.guesses(model, "a man on a horse", "man") == ["woman", "horse"]
        assert self.guesses(model, "a man riding a horse", "riding") == ["feeding"]
        assert self.guesses(model, "a red horse", "red") == ["blue"]  # large may be true of a red one
        assert self.guesses(model, "two cats", "cats") == ["dogs"]

    def test_the_best_guesses_are_skipped(self, model: Path) -> None:
        assert self.guesses(model, "a man on a horse", "man", skip=5) == ["horse"]
        assert self.guesses(model, "a man on a horse", "man", skip=0, top=5) == ["woman"]

    def test_what_is_not_known_to_contradict(self, model: Path) -> None:
        assert self.guesses(model, "the horse is old", "old") == []
        assert "red" not in self.guesses(
            model, "the horse is old", "old", accept_unknown=True
        )  # known: both may be true

    def test_mask_signs_of_the_caption_are_not_filled(self, model: Path) -> None:
        rows = [Row(0, "0", "a [MASK] man riding a [MASK] horse")]
        backend = MaskedLMArguments(model=str(model), tagger="builtin", skip=0).build()
        (made,) = make_negatives(rows, backend, Settings(relation="swap"))
        assert made.texts["relation"] == "a [MASK] horse riding a [MASK] man"
        assert made.texts["action"] == "a [MASK] man feeding a [MASK] horse"
        assert made.texts["object"] == "a [MASK] woman riding a [MASK] horse"

    def test_long_captions_show_the_model_what_is_near(self, model: Path) -> None:
        caption = "a " * 300 + "man riding a horse" + " a" * 300
        assert self.guesses(model, caption, "man") == ["woman", "horse"]

    def test_batches_do_not_matter_here(self, model: Path) -> None:
        rows = [
            Row(i, "0", caption) for i, caption in enumerate(["a man", "a red horse here", "dogs", "", "a 4"])
        ]
        settings = {"model": str(model), "tagger": "builtin", "skip": 0}
        lines = [
            [
                made.line()
                for made in make_negatives(
                    rows, MaskedLMArguments(**settings, batch_size=b).build(), Settings()
                )
            ]
            for b in (1, 64)
        ]
        assert lines[0] == lines[1]

    def test_what_cannot_be_loaded(self, model: Path, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"--mlm-model .*empty: cannot be loaded"):
            MaskedLMArguments(model=str(tmp_path / "empty"), tagger="builtin").build()
        unmasked = save_model(tmp_path / "unmasked", mask=False)
        with pytest.raises(UserError, match="has no mask token"):
            MaskedLMArguments(model=str(unmasked), tagger="builtin").build()
        with pytest.raises(UserError, match="--device nodevice: cannot be used"):
            MaskedLMArguments(model=str(model), tagger="builtin", device="nodevice").build()

    def test_byte_level_vocabularies(self, model: Path) -> None:
        backend = MaskedLMArguments(model=str(model), tagger="builtin").build()
        backend._marks_starts = True
        assert backend._whole_word("Ġdog", at_start=False) == "dog"
        assert backend._whole_word("dog", at_start=False) is None  # the end of another word
        assert backend._whole_word("dog", at_start=True) == "dog"
        assert backend._whole_word("Ġ4", at_start=False) is None
        assert backend._whole_word(None, at_start=True) is None

    def test_with_spacy(self, model: Path, tmp_path: Path) -> None:
        spacy = pytest.importorskip("spacy", reason="spacy is not installed (extra negatives-lm)")
        empty = tmp_path / "empty"
        spacy.blank("en").to_disk(empty)
        with pytest.raises(UserError, match="gives no part-of-speech tags"):
            MaskedLMArguments(model=str(model), spacy_model=str(empty)).build()
        with pytest.raises(
            UserError, match=r"--spacy-model no_such_model: is neither an installed.*--tagger builtin"
        ):
            MaskedLMArguments(model=str(model), spacy_model="no_such_model").build()

        pipeline = spacy.blank("en")
        rules = pipeline.add_pipe("attribute_ruler")
        tags = {
            "NN": "man woman horse haired",
            "NNS": "dogs",
            "VBG": "riding feeding",
            "JJ": "red blue",
            "DT": "a",
        }
        for tag, words in tags.items():
            rules.add([[{"LOWER": {"IN": words.split()}}]], {"TAG": tag})
        pipeline.to_disk(tmp_path / "tagging")
        arguments = MaskedLMArguments(model=str(model), spacy_model=str(tmp_path / "tagging"), skip=0)
        backend = arguments.build()
        caption = "A man riding a red-haired horse."
        assert [(caption[w.start : w.end], w.lemma, w.form) for w in backend.tag([caption])[0]] == [
            ("man", "man", "singular"), ("riding", "ride", "ing"), ("horse", "horse", "singular"),
        ]  # fmt: skip
        (made,) = make_negatives([Row(0, "0", caption)], backend, Settings(relation="swap"))
        assert made.texts["relation"] == "A horse riding a red-haired man."
        assert made.texts["action"] == "A man feeding a red-haired horse."
        assert made.texts["object"] in {
            "A woman riding a red-haired horse.",
            "A man riding a red-haired woman.",
        }
        assert arguments.identity()["tagger"] == "spacy"

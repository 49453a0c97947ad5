"""A masked language model guesses the replacement, as in CE-CLIP; a tagger says which word to replace."""

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from hypvl.checks import one_of
from hypvl.data.tokenizer_huggingface import UNLOADABLE
from hypvl.errors import UserError
from hypvl.negatives.backends.base import Backend, BuiltinBackend, Request, package_versions
from hypvl.negatives.backends.taggers import base_form
from hypvl.negatives.lexicon import fingerprint, lexicon
from hypvl.negatives.tagging import Word
from hypvl.negatives.text import Edit, apply_edits

TaggerName: TypeAlias = Literal["spacy", "builtin", "lemminflect"]
_PACKAGES: dict[str, tuple[str, ...]] = {
    "spacy": ("transformers", "spacy"),
    "builtin": ("transformers",),
    "lemminflect": ("transformers", "textblob", "lemminflect"),
}
_EXTRAS = {"spacy": "negatives-lm", "builtin": "negatives-lm", "lemminflect": "negatives-lm,negatives"}
# What marks the first piece of a word in byte-level BPE and SentencePiece, and a later one in WordPiece.
_WORD_START = ("Ġ", "▁")
_WORD_PART = "##"
_WINDOW = 40  # words shown to the model on each side of the mask


@dataclass(frozen=True)
class MaskedLMArguments:
    """A Hugging Face masked language model and a tagger."""

    model: str = "distilroberta-base"  # name or folder
    tagger: TaggerName = "spacy"  # what finds the words; never another one than this
    spacy_model: str = "en_core_web_sm"  # name or folder of the pipeline, for the tagger "spacy"
    skip: int = 3  # best guesses that are left out, for they may be true of the image
    top: int = 50  # guesses that are looked at
    batch_size: int = 64  # sentences given to the model together
    device: str = "cpu"
    #: Also use adjectives and verbs of which the lists do not know that they contradict.
    accept_unknown: bool = False

    def __post_init__(self) -> None:
        one_of("tagger", self.tagger, TaggerName)

    def identity(self) -> dict[str, str]:
        """Model, tagger, versions of the packages, and the settings that decide the texts."""
        versions = package_versions(_PACKAGES[self.tagger], backend="masked-lm", extra=_EXTRAS[self.tagger])
        spacy_model = {"spacy_model": self.spacy_model} if self.tagger == "spacy" else {}
        return {
            "backend": "masked-lm",
            "words": fingerprint(),
            "mlm_model": self.model,
            "tagger": self.tagger,
            **spacy_model,
            "guesses": f"{self.skip}:{self.top}",
            "batch_size": str(self.batch_size),
            "accept_unknown": str(self.accept_unknown),
            **versions,
        }

    def build(self) -> Backend:
        """Raises UserError when a package or a model is missing."""
        self.identity()
        return MaskedLMBackend(self)


class MaskedLMBackend(BuiltinBackend):
    """Masks the word, and takes guesses of the model that are whole words of the same form and contradict it.

    Source: CE-CLIP (arXiv 2306.08832), whose generator takes the fourth guess of distilroberta-base.
    Differs: any later guess is taken when the fourth is the word itself, a piece of a word, of another part of
        speech or form, or known (adjectives, verbs: not known) to be possibly true; only the chosen occurrence
        is masked; a mask sign in the caption is a word like any other.
    """

    def __init__(self, arguments: MaskedLMArguments) -> None:
        self._arguments = arguments
        self._tag = _tagger(arguments)
        self._tokenizer, self._model = _load(arguments.model, arguments.device)
        vocabulary: dict[str, int] = self._tokenizer.get_vocab()
        self._marks_starts = any(piece.startswith(_WORD_START) for piece in vocabulary)
        self._longest = min(
            self._tokenizer.model_max_length, getattr(self._model.config, "max_position_embeddings", 514) - 2
        )

    def tag(self, captions: Sequence[str]) -> list[list[Word]]:
        """By the tagger that was asked for."""
        return self._tag(captions)

    def replacements(self, requests: Sequence[Request]) -> list[Iterator[str]]:
        """Acceptable guesses for each request, the likeliest first."""
        replacements: list[Iterator[str]] = []
        for start in range(0, len(requests), self._arguments.batch_size):
            batch = requests[start : start + self._arguments.batch_size]
            guesses = self._guess([request.caption for request in batch], [request.word for request in batch])
            replacements += [self._accepted(*pair) for pair in zip(batch, guesses, strict=True)]
        return replacements

    def _guess(self, captions: Sequence[str], words: Sequence[Word]) -> list[list[str | None]]:
        """The model's vocabulary entries for the place of each word, the likeliest first."""
        import torch

        mask = self._tokenizer.mask_token
        texts, which = [], []
        for caption, word in zip(captions, words, strict=True):
            before, after = _last_words(caption[: word.start]), _first_words(caption[word.end :])
            texts.append(f"{before}{mask}{after}")
            which.append(before.count(mask))  # a caption may hold that sign itself: ours is the next one
        inputs = self._tokenizer(
            texts, return_tensors="pt", padding=True, truncation=True, max_length=self._longest
        ).to(self._arguments.device)
        with torch.inference_mode():
            logits = self._model(**inputs).logits  # (B, L, V)
        guesses: list[list[str | None]] = []
        for row, ids, number in zip(logits, inputs["input_ids"], which, strict=True):
            places = (ids == self._tokenizer.mask_token_id).nonzero().flatten().tolist()
            if number >= len(places):  # cut off: the caption is longer than the model reads
                guesses.append([])
                continue
            count = min(self._arguments.top, row.shape[-1])
            top = torch.topk(row[places[number]].float(), count).indices.tolist()
            guesses.append(self._tokenizer.convert_ids_to_tokens(top))
        return guesses

    def _accepted(self, request: Request, guesses: Sequence[str | None]) -> Iterator[str]:
        word = request.word
        for piece in itertools.islice(guesses, self._arguments.skip, None):
            text = self._whole_word(piece, at_start=not request.caption[: word.start].strip())
            if text is not None and self._fits(request.caption, word, text.lower()):
                yield text.lower()

    def _whole_word(self, piece: str | None, *, at_start: bool) -> str | None:
        """The word that a vocabulary entry is, or None when it is a part of one, a sign or a number."""
        if piece is None:  # models may have more entries than their tokenizer
            return None
        if piece.startswith(_WORD_START):
            piece = piece[1:]
        elif piece.startswith(_WORD_PART) or (self._marks_starts and not at_start):
            return None
        return piece if piece.isascii() and piece.isalpha() and len(piece) > 1 else None

    def _fits(self, caption: str, word: Word, text: str) -> bool:
        """Whether the text is another word of the same kind and form, and makes the caption false."""
        if text == caption[word.start : word.end].lower():
            return False
        lemma = base_form(word.kind, text)
        contradicts = lexicon().contradicts(word.kind, word.lemma, lemma)
        if contradicts is None:
            contradicts = word.kind == "noun" or self._arguments.accept_unknown
        if not contradicts or lemma == word.lemma:
            return False
        changed = apply_edits(caption, [Edit(word.start, word.end, text)])
        at = len(changed) - (len(caption) - word.end)  # where the new word ends
        return any(
            one.end == at and one[2:3] + one[4:5] == (word.kind, word.form) for one in self._tag([changed])[0]
        )


def _tagger(arguments: MaskedLMArguments) -> Callable[[Sequence[str]], list[list[Word]]]:
    if arguments.tagger == "spacy":
        from hypvl.negatives.backends.taggers import SpacyTagger

        return SpacyTagger(arguments.spacy_model)
    if arguments.tagger == "lemminflect":
        from hypvl.negatives.backends.inflecting import InflectingBackend

        return InflectingBackend().tag
    return BuiltinBackend().tag


def _load(name: str, device: str) -> tuple[Any, Any]:
    """Tokenizer and model, ready to guess."""
    from transformers import AutoModelForMaskedLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()  # there is one of the captions
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
        model = AutoModelForMaskedLM.from_pretrained(name, trust_remote_code=False)
    except UNLOADABLE as error:
        lines = str(error).strip().splitlines()
        raise UserError(
            f"--mlm-model {name}: cannot be loaded ({lines[0] if lines else type(error).__name__}); give the folder of "
            "a masked language model, or a name that the Hugging Face hub has (hf download NAME, while online)."
        ) from error
    if tokenizer.mask_token is None:
        raise UserError(
            f"--mlm-model {name}: has no mask token; expected a masked language model (BERT, RoBERTa ...)."
        )
    try:
        model = model.to(device).eval()
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {device}: cannot be used ({str(error).splitlines()[0]}).") from error
    return tokenizer, model


def _last_words(text: str) -> str:
    starts = [match.start() for match in re.finditer(r"\S+", text)]
    return text if len(starts) <= _WINDOW else text[starts[-_WINDOW] :]


def _first_words(text: str) -> str:
    ends = [match.end() for match in re.finditer(r"\S+", text)]
    return text if len(ends) <= _WINDOW else text[: ends[_WINDOW - 1]]

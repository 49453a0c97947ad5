"""Backends that say what a test tells them to. Imports nothing heavy: workers import this file."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from hypvl.errors import UserError
from hypvl.negatives.backends.base import Request
from hypvl.negatives.lexicon import lexicon
from hypvl.negatives.tagging import Word, tag


class Saying:
    """The built-in tagger; replacements are the same list for every word."""

    def __init__(self, *replacements: str) -> None:
        self.words = list(replacements)
        self.requests: list[tuple[str, str]] = []

    def tag(self, captions: Sequence[str]) -> list[list[Word]]:
        return [tag(caption) for caption in captions]

    def replacements(self, requests: Sequence[Request]) -> list[list[str]]:
        self.requests += [(one.caption, one.word.lemma) for one in requests]
        return [self.words for _ in requests]

    def inflect(self, lemma: str, form: str) -> str | None:
        return lexicon().inflect("noun", lemma, form)


@dataclass(frozen=True)
class Refusing:
    """A backend that cannot be built, in whichever process."""

    how: str

    def identity(self) -> dict[str, str]:
        return {"backend": self.how}

    def build(self):
        if self.how == "dies":
            os._exit(9)
        raise UserError("no model; get one.")

"""What a backend does and how one is requested, and the built-in one: nothing to install, the same texts everywhere."""

import importlib.metadata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from hypvl.errors import UserError
from hypvl.negatives.keyed_random import Draws
from hypvl.negatives.lexicon import fingerprint, lexicon
from hypvl.negatives.tagging import Word, tag


class Request(NamedTuple):
    """A word of a caption that is to be replaced."""

    caption: str
    word: Word
    draws: Draws


class Backend(Protocol):
    """Finds words and proposes others for them. One object a process."""

    def tag(self, captions: Sequence[str]) -> list[list[Word]]:
        """Nouns, adjectives and verbs of each caption, in order."""

    def replacements(self, requests: Sequence[Request]) -> Sequence[Iterable[str]]:
        """For each request words in the right form, the preferred one first; they contradict the word."""

    def inflect(self, lemma: str, form: str) -> str | None:
        """The noun in that form ("singular", "plural"); None when it has none."""


class BackendArguments(Protocol):
    """Which backend: small, hashable, picklable; every process builds its own from it."""

    def identity(self) -> dict[str, str]:
        """What decides the texts: a run only goes on with a backend of the same identity.

        Raises:
            UserError: when a package is missing. Nothing slow is imported.
        """

    def __hash__(self) -> int: ...

    def build(self) -> Backend:
        """The backend. Raises UserError when a model cannot be loaded."""


def package_versions(packages: Sequence[str], *, backend: str, extra: str) -> dict[str, str]:
    """The installed versions of packages that a backend needs; UserError where some are missing."""
    versions, missing = {}, []
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            missing.append(package)
    if missing:
        raise UserError(
            f"--backend {backend} needs {' and '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not "
            f"installed; pip install 'hypvl[{extra}]', or use --backend builtin."
        )
    return versions


@dataclass(frozen=True)
class BuiltinArguments:
    """The word lists of this package."""

    def identity(self) -> dict[str, str]:
        """The lists."""
        return {"backend": "builtin", "words": fingerprint()}

    def build(self) -> Backend:
        """Words and what contradicts them from the lists."""
        return BuiltinBackend()


class BuiltinBackend:
    """Words and what contradicts them from the lists in ``words/``."""

    def tag(self, captions: Sequence[str]) -> list[list[Word]]:
        """The words that the lists know."""
        return [tag(caption) for caption in captions]

    def replacements(self, requests: Sequence[Request]) -> list[Iterator[str]]:
        """The other words of the same group that exclude it, in a drawn order."""
        return [contradicting(request) for request in requests]

    def inflect(self, lemma: str, form: str) -> str | None:
        """By the rules and the irregular plurals of the lists."""
        return lexicon().inflect("noun", lemma, form)


def contradicting(request: Request) -> Iterator[str]:
    """The words of the lists that exclude the one of the request, in its form, in a drawn order."""
    word, lists = request.word, lexicon()
    if word.sense is not None:
        for lemma in request.draws.shuffled(lists.contradictions(word.sense)):
            text = lists.inflect(word.kind, lemma, word.form)
            if text is not None:
                yield text

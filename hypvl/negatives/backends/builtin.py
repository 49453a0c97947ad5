"""The built-in word lists: nothing to install, the same texts everywhere."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hypvl.negatives.backends.base import Backend, Request
from hypvl.negatives.lexicon import fingerprint, lexicon
from hypvl.negatives.tagging import Word, tag


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

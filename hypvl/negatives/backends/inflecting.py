"""textblob and lemminflect: finds words that are in no list, and puts them into any form; works offline."""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hypvl.negatives.backends.base import Backend, Request, contradicting, package_versions
from hypvl.negatives.backends.taggers import FORMS, tagged_word, textblob_tagger
from hypvl.negatives.lexicon import Sense, fingerprint, grammar, lexicon
from hypvl.negatives.tagging import Word, tag
from hypvl.negatives.text import tokenize

_UPOS = {"noun": "NOUN", "adjective": "ADJ", "verb": "VERB"}
# Replace nouns of no list. Parts of scenes (places, parts of buildings) are left out: they may be in any image.
_POOL = (
    "animals", "vehicles", "furniture", "appliances", "electronics", "foods", "fruits", "sports gear", "household",
)  # fmt: skip
_POOL_TRIED = 20


@dataclass(frozen=True)
class LemminflectArguments:
    """The lists, and for what they do not know textblob's tagger and lemminflect's forms."""

    accept_unknown: bool = False  # also replace verbs of which it is not known what contradicts them

    def identity(self) -> dict[str, str]:
        """The lists, the versions of the packages, and the switch."""
        versions = package_versions(("textblob", "lemminflect"), backend="lemminflect", extra="negatives")
        unknown = {"accept_unknown": str(self.accept_unknown)}
        return {"backend": "lemminflect", "words": fingerprint(), **unknown, **versions}

    def build(self) -> Backend:
        """Raises UserError when a package is missing."""
        self.identity()
        return InflectingBackend(accept_unknown=self.accept_unknown)


class InflectingBackend:
    """Words of the lists are handled as by the built-in backend; other words are found by textblob.

    A noun of no list becomes a thing of another kind, drawn from the lists. A verb of no list is replaced only
    with ``accept_unknown``, an adjective of no list never: the new text might be true.
    """

    def __init__(self, *, accept_unknown: bool = False) -> None:
        import lemminflect

        self._accept_unknown = accept_unknown
        self._tagger = textblob_tagger()
        self._lemmas, self._inflections = lemminflect.getLemma, lemminflect.getInflection

    def tag(self, captions: Sequence[str]) -> list[list[Word]]:
        """The words that the lists know, and those that textblob finds besides."""
        return [self._tag(caption) for caption in captions]

    def replacements(self, requests: Sequence[Request]) -> list[Iterator[str]]:
        """Words that contradict the one of the request, in its form, in a drawn order."""
        return [
            contradicting(request) if request.word.sense is not None else self._unlisted(request)
            for request in requests
        ]

    def inflect(self, lemma: str, form: str) -> str | None:
        """By the lists where they have the noun, else by lemminflect."""
        if lexicon().senses("noun", lemma) or form not in ("singular", "plural"):
            return lexicon().inflect("noun", lemma, form)
        forms = self._inflections(lemma, "NN" if form == "singular" else "NNS")
        return forms[0] if forms else None

    def _tag(self, caption: str) -> list[Word]:
        words = tag(caption)
        taken = {at for word in words for at in range(word.start, word.end)}
        for token, penn in self._tagger(caption):
            if token.start in taken or token.lower in lexicon().readings or not token.lower.isalpha():
                continue
            kind = FORMS[penn][0] if penn in FORMS else None
            lemmas = self._lemmas(token.lower, _UPOS[kind]) if kind is not None else ()
            word = tagged_word(token, penn, lemmas[0] if lemmas else None)
            if word is not None:
                words.append(word)
        return sorted(words)

    def _unlisted(self, request: Request) -> Iterator[str]:
        word = request.word
        if word.kind == "noun":
            yield from _of_pool(request, _nouns())
        elif word.kind == "verb" and self._accept_unknown:
            after = next((one for one in tokenize(request.caption) if one.start >= word.end), None)
            bare = after is None or after.lower in grammar().prepositions
            yield from _of_pool(request, _verbs("posture and motion" if bare else "handling"))


def _of_pool(request: Request, pool: Sequence[str]) -> Iterator[str]:
    for _ in range(_POOL_TRIED):
        lemma = pool[request.draws.below(len(pool))]
        text = lexicon().inflect(request.word.kind, lemma, request.word.form)
        if text is not None and lemma != request.word.lemma:
            yield text


@functools.cache
def _nouns() -> tuple[str, ...]:
    groups = (lexicon().group(Sense("noun", name, "")) for name in _POOL)
    return tuple(cluster[0] for group in groups for cluster in group["clusters"])


@functools.cache
def _verbs(name: str) -> tuple[str, ...]:
    group = lexicon().group(Sense("verb", name, ""))
    return tuple(cluster[0] for cluster in group["clusters"][: group.get("write")])

"""Taggers of captions: spaCy and textblob, and what their tags of the Penn treebank mean."""

from collections.abc import Callable, Sequence

from hypvl.checks import one_of
from hypvl.errors import UserError
from hypvl.negatives.lexicon import Kind, grammar, lexicon
from hypvl.negatives.morphology import singular
from hypvl.negatives.tagging import Word
from hypvl.negatives.text import Token, tokenize

#: Names (NNP) are left out: what replaces one is not known to be false.
FORMS: dict[str, tuple[Kind, str]] = {
    "NN": ("noun", "singular"),
    "NNS": ("noun", "plural"),
    "JJ": ("adjective", "positive"),
    "JJR": ("adjective", "comparative"),
    "JJS": ("adjective", "superlative"),
    "VB": ("verb", "base"),
    "VBP": ("verb", "base"),
    "VBZ": ("verb", "third"),
    "VBG": ("verb", "ing"),
    "VBD": ("verb", "past"),
    "VBN": ("verb", "participle"),
}


def tagged_word(token: Token, tag: str, lemma: str | None) -> Word | None:
    """The word that a token with a tag of the Penn treebank is, or None when it is none that may be replaced.

    ``lemma`` is the base form; None: by the lists and rules.
    """
    if tag not in FORMS:
        return None
    kind, form = FORMS[tag]
    text, words = token.lower, grammar()
    if text in lexicon().light_nouns or text in words.be or text in words.have or text in words.determiners:
        return None
    if kind != "noun" and text in words.prepositions:
        return None
    if lemma is None:
        lemma = base_form(kind, text)
    senses = lexicon().senses(kind, lemma)
    return Word(token.start, token.end, kind, lemma, form, senses[0] if senses else None)


def base_form(kind: Kind, text: str) -> str:
    """The base form of a word as written: by the lists, and for nouns by rule."""
    one_of("kind", kind, Kind)
    for reading in lexicon().readings.get(text, ()):
        if reading.kind == kind:
            return reading.lemma
    return singular(text, lexicon().irregular_plurals) if kind == "noun" else text


class SpacyTagger:
    """Nouns, adjectives and verbs by the tags of a spaCy pipeline, which is installed or in a folder.

    Raises:
        UserError: when it is not there, or has no tagger.
    """

    def __init__(self, model: str) -> None:
        import spacy

        try:
            self._pipeline = spacy.load(model, exclude=["ner", "parser"])
        except OSError as error:
            raise UserError(
                f"--spacy-model {model}: is neither an installed spaCy pipeline nor the folder of one; install it "
                f"(python -m spacy download {model}), give a folder, or use --tagger builtin."
            ) from error
        if not any(token.tag_ for token in self._pipeline("a dog sits on a red chair")):
            raise UserError(
                f"--spacy-model {model}: gives no part-of-speech tags; use a pipeline with a tagger, such as "
                "en_core_web_sm."
            )

    def __call__(self, captions: Sequence[str]) -> list[list[Word]]:
        """The words of each caption; only whole words count, not the parts that spaCy splits them into."""
        result = []
        for caption, document in zip(captions, self._pipeline.pipe(captions), strict=True):
            whole = {(token.start, token.end): token for token in tokenize(caption)}
            words = []
            for part in document:
                token = whole.get((part.idx, part.idx + len(part.text)))
                if token is not None:
                    words.append(tagged_word(token, part.tag_, part.lemma_.lower() or None))
            result.append([word for word in words if word is not None])
        return result


def textblob_tagger() -> Callable[[str], list[tuple[Token, str]]]:
    """caption -> (token, Penn tag) of its words, by textblob's pattern tagger (which needs no downloaded corpus)."""
    from textblob.en.taggers import PatternTagger

    tagger = PatternTagger()

    def tags(caption: str) -> list[tuple[Token, str]]:
        tokens = tokenize(caption)
        parts: list[str] = []
        names: list[int | None] = []
        end = 0
        for i, token in enumerate(tokens):
            between = "".join(caption[end : token.start].split())  # punctuation, or what is not a whole word
            if between:
                parts.append(between)
                names.append(None)
            parts.append(caption[token.start : token.end])
            names.append(i)
            end = token.end
        tagged = tagger.tag(" ".join(parts), tokenize=False)
        if len(tagged) != len(parts):
            return []
        return [(tokens[i], penn) for i, (_, penn) in zip(names, tagged, strict=True) if i is not None]

    return tags

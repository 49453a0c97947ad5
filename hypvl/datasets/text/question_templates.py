"""Questions rewritten as statements with a gap for the answer, by rules and the built-in lists of words."""

import re
from dataclasses import dataclass

from hypvl.negatives.tagging import tag

#: Stands for the answer.
MASK = "[MASK]"
_BE = ("is", "are", "was", "were")
_DEMONSTRATIVES = ("this", "that", "these", "those")
_DETERMINERS = ("a", "an", "the", "some", "any")
_WORDS = {
    "auxiliary": "is are was were am do does did can could will would should has have had may might must isn't aren't "
    "don't doesn't didn't wasn't weren't can't hasn't haven't",
    "pronoun": "it he she they you we i there anyone anybody someone somebody everyone everybody",
    "preposition": "in on at under above over behind below beside near next inside around between to from with of by "
    "beneath across along through against outside",
}
_AUXILIARIES, _PRONOUNS, _PREPOSITIONS = (frozenset(words.split()) for words in _WORDS.values())
_KINDS = re.compile(r"^(?:kind|type|sort|color|colour|brand|breed)s? of (.+)$")


@dataclass(frozen=True)
class QuestionTemplate:
    """A question as a statement."""

    text: str  # with MASK; of a yes/no question the statement that "yes" makes, without
    negation: str | None = None  # the statement that "no" makes; None = not a yes/no question

    @property
    def yes_no(self) -> bool:
        """Whether the answers are yes and no."""
        return self.negation is not None

    def fill(self, answer: str) -> str:
        """The statement that an answer makes."""
        if self.negation is not None:
            return self.negation if answer == "no" else self.text
        return self.text.replace(MASK, answer)


def question_template(question: str) -> QuestionTemplate:
    """Rewrite a question. What no rule fits stays as it is, with the answer behind: ``why is it wet? [MASK]``.

    Example:
        >>> question_template("What color is the dog?").text
        'the dog is [MASK]'
        >>> question_template("Is the man wearing a hat?").negation
        'the man is not wearing a hat'
    """
    words = question.lower().rstrip(" ?.!").split()
    fallback = QuestionTemplate(f"{' '.join(words)}? {MASK}")
    if len(words) < 2:
        return fallback
    first, rest = words[0], words[1:]
    if first in _AUXILIARIES and "or" not in rest:
        return _yes_no(first, rest)
    if first in _AUXILIARIES:
        return _alternatives(first, rest, fallback)
    if words[:2] == ["how", "many"] and len(words) > 2:
        return QuestionTemplate(" ".join([MASK, *words[2:]]))
    if first in ("what", "which") or first.startswith("what's"):
        words = ["what", "is", *rest] if first.startswith("what's") else ["what", *rest]
        return _what(words[1:], fallback)
    if first in ("where", "who") and rest[0] in _BE and len(rest) > 1:
        text = " ".join(rest[1:])
        order = (text, rest[0], MASK) if first == "where" else (MASK, rest[0], text)
        return QuestionTemplate(" ".join(order))
    return fallback


def _yes_no(auxiliary: str, rest: list[str]) -> QuestionTemplate:
    """``is the man tall`` -> ``the man is tall``, ``the man is not tall``."""
    auxiliary = {"can't": "can"}.get(auxiliary, auxiliary.removesuffix("n't"))
    subject, predicate = _subject([word for word in rest if word != "any"] or rest)
    if not predicate and subject[0] in _DEMONSTRATIVES:  # is that pizza -> that is pizza
        subject, predicate = subject[:1], subject[1:]
    return QuestionTemplate(
        " ".join([*subject, auxiliary, *predicate]), " ".join([*subject, auxiliary, "not", *predicate])
    )


def _alternatives(auxiliary: str, rest: list[str], fallback: QuestionTemplate) -> QuestionTemplate:
    """``is the cat black or white`` -> ``the cat is [MASK]``."""
    subject, predicate = _subject(rest)
    if "or" not in predicate or auxiliary not in _BE:
        return fallback
    return QuestionTemplate(
        " ".join([*subject, auxiliary, *predicate[: max(0, predicate.index("or") - 1)], MASK])
    )


def _what(rest: list[str], fallback: QuestionTemplate) -> QuestionTemplate:
    """What follows "what" or "which"."""
    verb = next((i for i, word in enumerate(rest) if word in _AUXILIARIES), None)
    if verb is None or verb + 1 >= len(rest):
        # Who or what does something is asked for: what comes after the verb is already a statement.
        return fallback if verb is not None else QuestionTemplate(" ".join([MASK, *rest]))
    about, auxiliary, after = " ".join(rest[:verb]), rest[verb], rest[verb + 1 :]
    text = " ".join(after)
    if auxiliary not in _BE:
        return QuestionTemplate(f"{text} {MASK}")  # what does the sign say -> the sign say [MASK]
    if about in ("color", "colour", "colors", "colours"):
        return QuestionTemplate(f"{text} {auxiliary} {MASK}")
    if not about:
        if after[0] in _PREPOSITIONS or after[0].endswith("ing"):
            return QuestionTemplate(f"{MASK} {auxiliary} {text}")
        subject, predicate = _subject(after)
        doing = [word for word in predicate if word != "doing"]
        return QuestionTemplate(" ".join([*subject, auxiliary, *doing, MASK]))
    if text in (*_PRONOUNS, *_DEMONSTRATIVES):
        return QuestionTemplate(f"{text} {auxiliary} {MASK}")
    kind = _KINDS.match(about)
    return QuestionTemplate(f"the {kind[1] if kind else about} {text} {auxiliary} {MASK}")


def _subject(words: list[str]) -> tuple[list[str], list[str]]:
    """Cut a clause without its verb behind the subject: a pronoun, or up to the first noun that the lists know."""
    alone = words[0] in _PRONOUNS or (
        words[0] in _DEMONSTRATIVES and (len(words) == 1 or words[1] in (*_DETERMINERS, *_PREPOSITIONS))
    )
    if alone:
        return words[:1], words[1:]
    text = " ".join(words)
    noun = next((word for word in tag(text) if word.kind == "noun"), None)
    if noun is not None:
        count = text[: noun.end].count(" ") + 1
        if not any(word in _PREPOSITIONS for word in words[:count]):
            return words[:count], words[count:]
    count = 2 if words[0] in (*_DETERMINERS, *_DEMONSTRATIVES) else 1
    return words[:count], words[count:]

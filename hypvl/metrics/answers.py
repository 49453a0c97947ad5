"""Answers of visual question answering, made comparable by the rules of the official evaluation."""

import re

_NUMBERS = dict(
    zip(
        ("none", "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
        ("0", "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10"),
        strict=True,
    )
)
_ARTICLES = frozenset(("a", "an", "the"))
# Contractions whose spelling without the apostrophe is no other word.
_CONTRACTIONS = (
    "ain't aren't can't couldn't didn't doesn't don't hadn't hasn't haven't he's here's how's i'm i've isn't it'd "
    "it'll let's mightn't mustn't needn't shan't she's shouldn't somebody's someone's that's there's they'd they'll "
    "they're they've wasn't we've weren't what's where's who'd who's won't wouldn't you'd you'll you're you've"
)
_WITH_APOSTROPHE = {word.replace("'", ""): word for word in _CONTRACTIONS.split()}
_COMMA_IN_NUMBER = re.compile(r"(?<=\d),(?=\d)")
_PERIOD = re.compile(r"(?<!\d)\.|\.(?!\d)")
_PUNCTUATION = re.compile(r"[^\w\s':.]|_")


def normalize_answer(answer: str) -> str:
    """An answer as the official evaluation compares it.

    Small letters; periods go unless they are in a number, commas in a number go; other punctuation than apostrophe and
    colon becomes a blank; number words up to ten become digits; articles go; contractions get their apostrophe back.

    Source: visualqa.org/evaluation, "Answer processing".
    Differs: contractions whose spelling without the apostrophe is another word (its, were) stay as they are.

    Example:
        >>> normalize_answer("The 1,000 dogs, dont run.")
        "1000 dogs don't run"
    """
    text = answer.lower().replace("\n", " ").replace("\t", " ").strip()
    text = _PERIOD.sub("", _COMMA_IN_NUMBER.sub("", text))
    words = _PUNCTUATION.sub(" ", text).split()
    numbered = [_NUMBERS.get(word, word) for word in words if word not in _ARTICLES]
    return " ".join(_WITH_APOSTROPHE.get(word, word) for word in numbered)

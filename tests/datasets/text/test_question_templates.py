"""Questions as statements."""

import pytest

from hypvl.datasets.text.question_templates import question_template


@pytest.mark.parametrize(
    ("question", "statement"),
    [
        ("What color is the dog?", "the dog is [MASK]"),
        ("How many cats are there?", "[MASK] cats are there"),
        ("What is the man doing?", "the man is [MASK]"),
        ("What is the man holding?", "the man is holding [MASK]"),
        ("What is on the table?", "[MASK] is on the table"),
        ("What is this?", "this is [MASK]"),
        ("What's in the bowl?", "[MASK] is in the bowl"),
        ("What animal is on the bed?", "the animal on the bed is [MASK]"),
        ("What kind of bird is this?", "this is [MASK]"),
        ("What kind of bird is on the roof?", "the bird on the roof is [MASK]"),
        ("What does the sign say?", "the sign say [MASK]"),
        ("What grows here?", "[MASK] grows here"),
        ("Is the cat black or white?", "the cat is [MASK]"),
        ("Where is the dog?", "the dog is [MASK]"),
        ("Who is holding the umbrella?", "[MASK] is holding the umbrella"),
        ("Why is it wet?", "why is it wet? [MASK]"),
        ("Does it rain or snow?", "does it rain or snow? [MASK]"),
        ("What?", "what? [MASK]"),
    ],
)
def test_the_gap_is_where_the_answer_belongs(question: str, statement: str) -> None:
    template = question_template(question)
    assert template.text == statement and not template.yes_no
    assert template.fill("x") == statement.replace("[MASK]", "x")


@pytest.mark.parametrize(
    ("question", "yes", "no"),
    [
        ("Is the man wearing a hat?", "the man is wearing a hat", "the man is not wearing a hat"),
        ("Is this a dog?", "this is a dog", "this is not a dog"),
        ("Is this dog wet?", "this dog is wet", "this dog is not wet"),
        ("Is that pizza?", "that is pizza", "that is not pizza"),
        ("Are there any people?", "there are people", "there are not people"),
        (
            "Does the young man have a beard?",
            "the young man does have a beard",
            "the young man does not have a beard",
        ),
        ("Isn't the sky blue?", "the sky is blue", "the sky is not blue"),
        ("Can you see it?", "you can see it", "you can not see it"),
    ],
)
def test_yes_and_no_are_statements(question: str, yes: str, no: str) -> None:
    template = question_template(question)
    assert template.yes_no and (template.fill("yes"), template.fill("no")) == (yes, no)

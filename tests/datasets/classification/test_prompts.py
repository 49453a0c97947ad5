"""Filling prompts."""

import pytest

from hypvl.datasets.classification.prompts import (
    class_prompts,
    fill,
    generic_templates,
    imagenet_class_names,
    imagenet_templates,
    prompt_sets,
    set_templates,
)
from hypvl.errors import ConfigError


def test_both_places_for_the_name() -> None:
    assert fill("a photo of a {}.", "cat") == "a photo of a cat."
    assert fill("a {c}, yes a {c}!", "cat") == "a cat, yes a cat!"
    # Names and templates may hold braces of their own; a name is put in, never read.
    assert fill("{x} {}", "{c} {}") == "{x} {c} {}"
    assert fill("{c} {}", "{}") == "{} {}"


def test_prompts_per_class_by_hand() -> None:
    assert class_prompts(["a {}", "{}!"], ["cat", "dog"]) == [["a cat", "cat!"], ["a dog", "dog!"]]
    own = {"dog": ["woof"], "cat": ["meow", "purr"]}
    assert class_prompts(own, ["cat", "dog"]) == [["meow", "purr"], ["woof"]]


@pytest.mark.parametrize(
    ("prompts", "message"),
    [([], "got none"), (["a photo"], "no place"), ({"cat": ["meow"]}, "none for class 'dog'"), ({}, "'cat'")],
)
def test_prompts_that_cannot_be_used(prompts: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        class_prompts(prompts, ["cat", "dog"])  # type: ignore[arg-type]


def test_lists_that_come_with_it() -> None:
    assert len(set(generic_templates())) == len(generic_templates())  # none counts twice
    assert len(imagenet_templates()) == 80 and len(set(imagenet_templates())) == 80
    assert fill(imagenet_templates()[0], "tench") == "a bad photo of a tench."
    names = imagenet_class_names()
    # Known positions: n01440764 is the first id, n02123045 (tabby) the 282nd, n15075141 the last.
    assert (len(names), names[0], names[281], names[999]) == (1000, "tench", "tabby cat", "toilet paper")
    assert all("{}" in template for template in generic_templates())


def test_templates_of_a_set_by_style() -> None:
    assert set_templates("imagenet") == imagenet_templates()
    assert set_templates("birdsnap") == ["a photo of a {}, a type of bird."]
    with pytest.raises(ConfigError, match="got style 'poem'; expected one of clip, subreddit"):
        set_templates("birdsnap", style="poem")
    with pytest.raises(ConfigError, match="there are none of style 'clip'; expected one of "):
        set_templates("nowhere")


def test_prompt_sets_are_regimes_or_single_templates() -> None:
    regimes = prompt_sets("cifar10")
    assert list(regimes) == ["name", "photo", "generic", "clip", "subreddit"]
    assert regimes["name"] == ["{}"] and regimes["clip"] == set_templates("cifar10")
    single = prompt_sets("cifar10", kind="single")
    assert [[name] for name in single] == list(single.values()) and list(single) == regimes["clip"]
    with pytest.raises(ValueError, match="kind: got 'all'"):
        prompt_sets("cifar10", kind="all")  # type: ignore[arg-type]

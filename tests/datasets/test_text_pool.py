"""Reading text pools, and the one that comes with hypvl."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from hypvl.datasets.text_pool import DEFAULT_PROMPTS, PoolText, everyday_pool, fill_prompt, load_text_pool
from hypvl.errors import DataError


def written(folder: Path, content: Any) -> Path:
    path = folder / "pool.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def test_everyday_pool_is_large_diverse_and_well_formed() -> None:
    content = json.loads(everyday_pool().read_text(encoding="utf-8"))
    assert len(content["captions"]) >= 150
    assert len(content["nouns"]) >= 150
    assert len(content["adjectives"]) >= 100
    for kind in ("captions", "nouns", "adjectives"):
        repeated = [text for text, count in Counter(content[kind]).items() if count > 1]
        assert not repeated, kind
        assert all(text == " ".join(text.split()) and text.isprintable() for text in content[kind])
    assert all(len(text.split()) >= 3 for text in content["captions"])
    assert all(
        len(text.split()) == 1 and text == text.lower() for text in content["nouns"] + content["adjectives"]
    )
    openings = Counter(" ".join(text.split()[:3]) for text in content["captions"])
    assert openings.most_common(1)[0][1] <= 5, "captions should not all begin alike"
    pool = load_text_pool()
    assert len(pool) >= 400
    assert len({entry.prompt for entry in pool}) == len(pool)
    assert PoolText("owl", "a photo of an owl.") in pool


def test_kinds_get_their_prompts_and_duplicates_go(tmp_path: Path) -> None:
    path = written(
        tmp_path, {"adjectives": ["red"], "captions": ["a dog ", "a  dog"], "nouns": ["dog", "dog"]}
    )
    assert load_text_pool(path) == [
        PoolText("a dog", "a dog"),
        PoolText("dog", "a photo of a dog."),
        PoolText("red", "this photo is red."),
    ]


def test_a_word_may_be_noun_and_adjective(tmp_path: Path) -> None:
    path = written(tmp_path, {"nouns": ["orange"], "adjectives": ["orange"]})
    assert [e.prompt for e in load_text_pool(path)] == ["a photo of an orange.", "this photo is orange."]


def test_a_plain_list_and_other_prompts(tmp_path: Path) -> None:
    assert load_text_pool(written(tmp_path, ["ein Hündchen"])) == [PoolText("ein Hündchen", "ein Hündchen")]
    path = written(tmp_path, {"nouns": ["owl"], "prompts": {"nouns": "{} on a branch"}})
    assert load_text_pool(path) == [PoolText("owl", "owl on a branch")]


@pytest.mark.parametrize(
    ("template", "text", "expected"),
    [
        ("a photo of a {}.", "owl", "a photo of an owl."),
        ("a photo of a {}.", "unicorn", "a photo of a unicorn."),
        ("a photo of a {}.", "hour", "a photo of an hour."),
        ("A {}", "apple", "An apple"),
        ("a {}", "dog", "a dog"),
        ("extra {}", "apple", "extra apple"),
        ("{}", "apple", "apple"),
    ],
)
def test_articles(template: str, text: str, expected: str) -> None:
    assert fill_prompt(template, text) == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"is not valid JSON .*; expected a list of texts, or"),
        ("[" * 100_000, "is not valid JSON"),
        ([], "an empty text pool"),
        ({"captions": [], "nouns": []}, "an empty text pool"),
        ({}, "an empty text pool"),
        ("3", "holds a int"),
        ({"noun": ["dog"]}, "has the key 'noun'"),
        ({"nouns": "dog"}, "nouns is a str; expected a list of texts"),
        ({"nouns": ["dog", 3]}, r"nouns\[1\] is 3"),
        (["dog", "  "], r"captions\[1\] is '  '"),
        ({"nouns": ["dog"], "prompts": ["{}"]}, "prompts is a list"),
        ({"nouns": ["dog"], "prompts": {"nouns": "a dog"}}, "prompts has 'nouns': 'a dog'"),
        ({"nouns": ["dog"], "prompts": {"verbs": "{}"}}, "prompts has 'verbs'"),
    ],
)
def test_wrong_files_are_named_with_what_is_wrong(tmp_path: Path, content: Any, message: str) -> None:
    path = written(tmp_path, content)
    with pytest.raises(DataError, match=message) as error:
        load_text_pool(path)
    assert str(path) in str(error.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.json: is not there"):
        load_text_pool(tmp_path / "absent.json")
    with pytest.raises(DataError, match="cannot be read"):
        load_text_pool(tmp_path)
    (tmp_path / "latin.json").write_bytes('["Mädchen"]'.encode("latin-1"))
    with pytest.raises(DataError, match="cannot be read as UTF-8"):
        load_text_pool(tmp_path / "latin.json")


def test_default_prompts_name_every_kind() -> None:
    assert set(DEFAULT_PROMPTS) == {"captions", "nouns", "adjectives"}
    assert DEFAULT_PROMPTS["captions"] == "{}"

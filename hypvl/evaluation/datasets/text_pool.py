"""The texts an image traversal chooses from: captions, nouns and adjectives, read from a JSON file."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from hypvl.errors import DataError

#: How single words become texts that the model knows how to read; captions stand as they are.
DEFAULT_PROMPTS = {"captions": "{}", "nouns": "a photo of a {}.", "adjectives": "this photo is {}."}
_SHAPE = (
    'expected a list of texts, or {"captions": [...], "nouns": [...], "adjectives": [...]} with, if wanted, '
    '"prompts": {"nouns": "a photo of a {}."}'
)
# Vowels at the start that are not heard as one, and the other way round.
_HEARD_AS_CONSONANT = ("uni", "use", "eu", "one")
_HEARD_AS_VOWEL = ("hour", "honest", "heir")


@dataclass(frozen=True)
class PoolText:
    """One entry of a pool.

    Attributes:
        text: As it stands in the file and is shown.
        prompt: What the model reads.
    """

    text: str
    prompt: str


def load_text_pool(path: str | Path | None = None) -> list[PoolText]:
    """Read a text pool.

    Args:
        path: A JSON file: a list of texts, taken as captions, or ``{"captions": [...], "nouns": [...],
            "adjectives": [...]}`` (any of them) with ``prompts`` by kind if other templates than
            :data:`DEFAULT_PROMPTS` are wanted. None = the pool of everyday texts that comes with hypvl.

    Returns:
        Captions, nouns, adjectives, in the order of the file; of equal prompts the first.

    Raises:
        DataError: when the file is missing, no JSON, built differently or without a single text.
    """
    file: Traversable = everyday_pool() if path is None else Path(path)
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(
            f"{file}: cannot be read ({error.strerror or error}); expected a text pool, a JSON file."
        ) from error
    except (ValueError, RecursionError) as error:  # no UTF-8, no JSON, absurdly nested
        raise DataError(f"{file}: not JSON in UTF-8 ({error}); {_SHAPE}.") from error
    if isinstance(content, list):
        content = {"captions": content}
    if not isinstance(content, dict):
        raise DataError(f"{file}: holds a {type(content).__name__}; {_SHAPE}.")
    unknown = sorted(set(content) - {*DEFAULT_PROMPTS, "prompts"})
    if unknown:
        raise DataError(f"{file}: has the key {unknown[0]!r}; {_SHAPE}.")
    prompts = DEFAULT_PROMPTS | _prompts(content.get("prompts", {}), file)
    pool: dict[str, PoolText] = {}
    for kind, template in prompts.items():
        for text in _texts(content.get(kind, []), kind, file):
            prompt = fill_prompt(template, text)
            pool.setdefault(prompt, PoolText(text, prompt))
    if not pool:
        raise DataError(
            f"{file}: an empty text pool; expected at least one text, as captions, nouns or adjectives."
        )
    return list(pool.values())


def everyday_pool() -> Traversable:
    """The file of everyday captions, nouns and adjectives that comes with hypvl."""
    return resources.files("hypvl") / "evaluation" / "datasets" / "pools" / "everyday.json"


def fill_prompt(template: str, text: str) -> str:
    """Put ``text`` for ``{}``, with "an" in place of "a" before a vowel: "a photo of an owl."."""
    start = text.lower()
    vowel = start.startswith(("a", "e", "i", "o", "u")) and not start.startswith(_HEARD_AS_CONSONANT)
    if vowel or start.startswith(_HEARD_AS_VOWEL):
        template = f" {template}".replace(" a {}", " an {}").replace(" A {}", " An {}")[1:]
    return template.replace("{}", text)


def _texts(value: Any, kind: str, file: Traversable) -> list[str]:
    if not isinstance(value, list):
        raise DataError(f"{file}: {kind} is a {type(value).__name__}; expected a list of texts.")
    for place, text in enumerate(value):
        if not isinstance(text, str) or not text.strip():
            raise DataError(f"{file}: {kind}[{place}] is {text!r:.60}; expected a text that is not blank.")
    return [" ".join(text.split()) for text in value]


def _prompts(value: Any, file: Traversable) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise DataError(f"{file}: prompts is a {type(value).__name__}; expected templates by kind.")
    for kind, template in value.items():
        if kind not in DEFAULT_PROMPTS or not isinstance(template, str) or "{}" not in template:
            raise DataError(
                f"{file}: prompts has {kind!r}: {template!r:.60}; expected a template with {{}} for "
                f"{', '.join(DEFAULT_PROMPTS)}."
            )
    return dict(value)

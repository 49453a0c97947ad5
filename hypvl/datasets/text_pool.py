"""The texts that an image traversal chooses from: captions, nouns and adjectives of a JSON file or a table."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypvl.checks import one_of
from hypvl.data.tokenizer import is_blank
from hypvl.datasets.files import open_table, read_json
from hypvl.errors import DataError
from hypvl.io.table_text import CAPTION_COLUMNS, TABLE_SUFFIXES, Quoting, TableText

#: Prompts for single words; captions are used as they are.
DEFAULT_PROMPTS = {"captions": "{}", "nouns": "a photo of a {}.", "adjectives": "this photo is {}."}
_SHAPE = (
    'expected a list of texts, or {"captions": [...], "nouns": [...], "adjectives": [...]} with, if wanted, '
    '"prompts": {"nouns": "a photo of a {}."}'
)
# Words that begin with a vowel and sound as if with a consonant, and the reverse.
_HEARD_AS_CONSONANT = ("uni", "use", "eu", "one")
_HEARD_AS_VOWEL = ("hour", "honest", "heir")


@dataclass(frozen=True)
class PoolText:
    """One entry of a pool: ``text`` as it is in the file, which is shown; ``prompt``, which the model encodes."""

    text: str
    prompt: str


def load_text_pool(
    path: str | Path | None = None,
    *,
    caption_column: str | None = None,
    separator: str | None = None,
    quoting: Quoting = "minimal",
) -> list[PoolText]:
    """Read a text pool.

    Args:
        path: Any table with captions, as for training (``.csv``, ``.tsv``, ``.jsonl``, a JSON list of objects): its
            captions, blank ones left out. Or a JSON file: a list of texts, taken as captions, or
            ``{"captions": [...], "nouns": [...], "adjectives": [...]}`` (any of them), with
            ``prompts`` by kind where templates other than :data:`DEFAULT_PROMPTS` are wanted. None = the pool of
            everyday texts that comes with hypvl.
        caption_column: Of a table, see :class:`hypvl.io.table_text.TableText`, as ``separator`` and ``quoting``.

    Returns:
        Captions, nouns, adjectives, in the order of the file; of equal prompts the first.

    Raises:
        DataError: when the file is missing, is not JSON, has another layout or no text.
    """
    one_of("quoting", quoting, Quoting)
    file = everyday_pool() if path is None else Path(path)
    if not file.exists():
        raise DataError(f"{file}: is not there; expected a text pool, a JSON file or a table.")
    content = [{}] if file.suffix.lower() in TABLE_SUFFIXES else read_json(file, _SHAPE)
    if isinstance(content, list) and any(isinstance(row, dict) for row in content):
        table = open_table(file, separator=separator, quoting=quoting)
        content = _captions(table, caption_column=caption_column)
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


def _captions(table: TableText, *, caption_column: str | None) -> list[str]:
    """The captions of all rows of a table; a row may have a list of them."""
    column = table.column(caption_column, CAPTION_COLUMNS, option="caption_column")
    captions: list[str] = []
    for place, fields in table.usable_rows():
        value = fields.get(column)
        texts: list[Any] = value if isinstance(value, list) else [value]
        if not all(isinstance(text, str) for text in texts):
            raise DataError(
                f"{table.path}, {place}: its {column} is {value!r:.60}; expected a text, or some."
            )
        captions += [text for text in texts if not is_blank(text)]
    return captions


def everyday_pool() -> Path:
    """The file of everyday captions, nouns and adjectives that comes with hypvl."""
    return Path(__file__).with_name("pools") / "everyday.json"


def fill_prompt(template: str, text: str) -> str:
    """Put ``text`` for ``{}``, with "an" in place of "a" before a vowel: "a photo of an owl."."""
    start = text.lower()
    vowel = start.startswith(("a", "e", "i", "o", "u")) and not start.startswith(_HEARD_AS_CONSONANT)
    if vowel or start.startswith(_HEARD_AS_VOWEL):
        template = f" {template}".replace(" a {}", " an {}").replace(" A {}", " An {}")[1:]
    return template.replace("{}", text)


def _texts(value: Any, kind: str, file: Path) -> list[str]:
    if not isinstance(value, list):
        raise DataError(f"{file}: {kind} is a {type(value).__name__}; expected a list of texts.")
    for place, text in enumerate(value):
        if not isinstance(text, str) or not text.strip():
            raise DataError(f"{file}: {kind}[{place}] is {text!r:.60}; expected a text that is not blank.")
    return [" ".join(text.split()) for text in value]


def _prompts(value: Any, file: Path) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise DataError(f"{file}: prompts is a {type(value).__name__}; expected templates by kind.")
    for kind, template in value.items():
        if kind not in DEFAULT_PROMPTS or not isinstance(template, str) or "{}" not in template:
            raise DataError(
                f"{file}: prompts has {kind!r}: {template!r:.60}; expected a template with {{}} for "
                f"{', '.join(DEFAULT_PROMPTS)}."
            )
    return dict(value)

"""Patterns over texts of data take time that grows with the text, not with its square."""

import contextlib
import time
from collections.abc import Callable

import pytest
import torch

from hypvl.data import query_hierarchy
from hypvl.data.tokenizer import is_blank, repair
from hypvl.datasets.composition import whatsup
from hypvl.datasets.hierarchy import caption_chains
from hypvl.errors import CheckpointError, DataError
from hypvl.io.redact import printable_lines, redact_settings, redact_text
from hypvl.metrics.answers import normalize_answer
from hypvl.models.checkpoint_io import weights_in
from hypvl.negatives.text import tokenize
from hypvl.report import tables

LETTERS = 60_000
#: What repeats in a text that patterns go over again and again.
UNITS = [
    "a", "_", "-", ".", ":", "/", " ", "'", "\"", "&", "=", "@", "?", ";", "a.", "a-", "a'", "a_", "a b ", "a_on_",
    " => ", "=> ", "1,", "next ", "and ", "an ", "a: ", "https://", "a:/", "?a=", "&a=b", "eyJaaaaaaaaaaaa.", "hf_",
    "sk-",
    "token", "a_token.", "token=", "authorization: ", "bearer ", "\t", "\x1b[0m", "\x1b[", "m0[", "accuracy_", "&amp;",
    "\u00e9", "a\u0301", "\u0345", "\u00c3", "<", "[", "(",
]  # fmt: skip
READERS: dict[str, Callable[[str], object]] = {
    "chains": lambda text: caption_chains._captions({"caption": f"a{text}b => c"}, "row 1"),
    "whatsup": whatsup._parts,
    "sentences": query_hierarchy._SENTENCE_END.split,
    "phrases": query_hierarchy._PHRASE_END.split,
    "queries": query_hierarchy._WORD.findall,
    "answers": normalize_answer,
    "blank": is_blank,
    "repair": repair,
    "words": tokenize,
    "redact": redact_text,
    "settings": redact_settings,
    "printable": printable_lines,
    "unit": tables.unit_of,
    "line": lambda text: tables._without_end(f"{text}x"),
}  # fmt: skip


@pytest.mark.parametrize("name", READERS)
def test_long_texts(name: str) -> None:
    slow = []
    for unit in UNITS:
        text = unit * (LETTERS // len(unit))
        before = time.process_time()
        with contextlib.suppress(DataError):
            READERS[name](text)
        if time.process_time() - before > 2:
            slow.append(unit)
    assert slow == []


def test_long_names_of_weights_are_refused() -> None:
    assert weights_in({"a" * 1000: torch.ones(1)}) is not None
    with pytest.raises(CheckpointError, match=r"the weight aaa.* has a name of 100000 characters"):
        weights_in({"a" * 100_000: torch.ones(1)})

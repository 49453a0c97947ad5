"""Token ids of the published tokenizers (tokenizer.json): exact."""

from typing import Any

import pytest
import torch

from hypvl.data.tokenizer import Tokenizer, get_tokenizer
from hypvl.encoders.text import read_out_positions
from tests.parity.reference import cases, load

UNBOUNDED = Tokenizer(1_000_000)


@pytest.mark.parametrize("case", cases("tokenizer", "strings"))
def test_ids_of_strings(case: dict[str, Any]) -> None:
    assert UNBOUNDED.encode(case["text"]) == case["ids"]
    truncated = case.get("after_encode_text_truncation", case["ids"])
    if isinstance(truncated, list) and len(truncated) <= 77:
        assert get_tokenizer().encode(case["text"]) == truncated
    if "eos_position_used" in case and len(case["ids"]) <= 77:
        tokens = get_tokenizer()(case["text"])
        assert read_out_positions(tokens, eot_token=49407).tolist() == [case["eos_position_used"]]


@pytest.mark.parametrize("key", ["padded_matrix", "eos_positions"])
def test_batch_is_padded_to_its_longest_row(key: str) -> None:
    batch = (load("tokenizer") or {}).get("batch", {})
    if key not in batch:
        pytest.skip(f"tokenizer.json has no batch/{key}")
    tokens = get_tokenizer()(batch["texts"])
    result = tokens if key == "padded_matrix" else read_out_positions(tokens, eot_token=49407)
    assert result.dtype == torch.int64
    assert result.tolist() == batch[key]


def test_special_ids() -> None:
    meta = (load("tokenizer") or {}).get("meta", {})
    for key, value in (("vocab_size", 49408), ("sot", 49406), ("eot", 49407)):
        if key in meta:
            assert meta[key] == value
    assert (Tokenizer.vocab_size, Tokenizer.sot_token, Tokenizer.eot_token) == (49408, 49406, 49407)

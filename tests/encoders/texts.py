"""Tiny text models in the libraries' own formats: random weights, and a vocabulary of a few words."""

import json
from pathlib import Path
from typing import Any

import torch

WORDS = ["a", "cat", "dog", "red", "two", "the", "sentence", "of", "means", ".", '"', "##s", "and"]
TEXTS = ["a cat", "two red dogs and a cat", "the dog .", "a"]


def word_pieces(folder: Path) -> Path:
    """A BERT tokenizer with a handful of words, saved."""
    from transformers import BertTokenizerFast

    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(str(folder))
    return folder


def byte_pairs(folder: Path, *, roberta: bool) -> Path:
    """A byte-level BPE tokenizer, RoBERTa's (``<s>`` is 0 and ``<pad>`` 1) or GPT-2's (no padding), saved."""
    from transformers import GPT2TokenizerFast, RobertaTokenizerFast

    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"] if roberta else ["<|endoftext|>"]
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [chr(byte) for byte in printable] + [chr(256 + i) for i in range(256 - len(printable))]
    space = chr(256 + 32)
    merges = [("c", "a"), ("ca", "t"), (space, "a"), (space, "cat"), ("d", "o"), (space, "do")]
    ids = {token: i for i, token in enumerate([*special, *letters, *map("".join, merges)])}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(ids), encoding="utf-8")
    lines = ["#version: 0.2", *map(" ".join, merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    kind = RobertaTokenizerFast if roberta else GPT2TokenizerFast
    kind.from_pretrained(str(folder)).save_pretrained(str(folder))
    return folder


SIZES: dict[str, Any] = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
    "max_position_embeddings": 42,
}  # fmt: skip


def saved_model(folder: Path, kind: str, *, seed: int = 0) -> Path:
    """A tiny "bert", "roberta" or "gpt2" with its tokenizer, as ``save_pretrained`` writes them."""
    from transformers import BertConfig, BertModel, GPT2Config, GPT2Model, RobertaConfig, RobertaModel

    torch.manual_seed(seed)
    model: Any
    if kind == "bert":
        word_pieces(folder)
        model = BertModel(BertConfig(vocab_size=18, **SIZES))
    elif kind == "roberta":
        byte_pairs(folder, roberta=True)
        model = RobertaModel(RobertaConfig(vocab_size=300, **SIZES))
    else:
        byte_pairs(folder, roberta=False)
        model = GPT2Model(GPT2Config(vocab_size=300, n_embd=16, n_layer=2, n_head=2, n_positions=40))
    for name, parameter in model.named_parameters():
        if "bias" in name or "position" in name or "wpe" in name:
            torch.nn.init.normal_(parameter, std=0.3)  # else a mistake in positions hardly shows
    model.save_pretrained(str(folder))
    return folder

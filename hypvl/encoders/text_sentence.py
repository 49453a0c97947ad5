"""Text encoders of sentence-transformers, word models (GloVe, Komninos) too; the extra ``sentence-transformers``."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hypvl.allowlist import configurable
from hypvl.checks import whole_number
from hypvl.data.tokenizer_huggingface import pad_id, vocabulary_digest
from hypvl.encoders.text_base import TextEncoder
from hypvl.errors import ConfigError, UserError


class SentenceTokenizer:
    """The tokenizer of a model of sentence-transformers: texts -> int64 (B, L), L at least 1.

    Args:
        tokenizer: Of transformers, or a ``WordTokenizer`` of sentence-transformers, which leaves out words that it does
            not know.
        context_length: Most ids per text, special tokens included; longer texts lose their ends.
        prompt: Put before each text: the model's default prompt.
    """

    eot_token: int | None = None

    def __init__(self, tokenizer: Any, context_length: int, *, prompt: str = "") -> None:
        self.tokenizer = tokenizer
        self.context_length = context_length
        self.prompt = prompt
        self.words = not hasattr(tokenizer, "pad_token_id")
        ids = dict(tokenizer.word2idx) if self.words else tokenizer.get_vocab()
        self.vocab_size = len(ids) if self.words else len(tokenizer)
        self.pad_token = -1 if self.words else pad_id(tokenizer)
        self.vocabulary = vocabulary_digest(ids)

    def __call__(self, texts: str | Sequence[str]) -> Tensor:
        """Tokenize B texts (one for a string): int64 (B, L). TypeError for no strings."""
        rows = [
            torch.tensor(self.encode(text)).long() for text in ([texts] if isinstance(texts, str) else texts)
        ]
        if not rows:
            return torch.zeros((0, 0), dtype=torch.int64)
        rows[0] = torch.nn.functional.pad(rows[0], (0, int(len(rows[0]) == 0)), value=self.pad_token)
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=self.pad_token)

    def encode(self, text: str) -> list[int]:
        """Ids of one text; none for one whose words are all unknown to a word model. TypeError for no string."""
        if not isinstance(text, str):
            raise TypeError(f"a text is {type(text).__name__} ({text!r:.60}), but a string is expected.")
        text = self.prompt + text
        if self.words:
            return list(self.tokenizer.tokenize(text))[: self.context_length]
        made = self.tokenizer(
            text, truncation=True, max_length=self.context_length, padding=False, verbose=False
        )
        return list(made["input_ids"])

    def __repr__(self) -> str:
        return f"SentenceTokenizer({type(self.tokenizer).__name__}, {self.context_length}, prompt={self.prompt!r})"


@configurable("model")
class SentenceTransformerTextEncoder(TextEncoder):
    """A model of sentence-transformers: its ``sentence_embedding``, as ``SentenceTransformer.encode`` gives it.

    The module is ``self.trunk``; code in a repository or folder is never run. Word models (``WordEmbeddings``, such as
    GloVe and Komninos) have frozen words unless they were saved with ``update_embeddings``; a text without a known word
    gets 0. A model's default prompt is put before each text.

    The weights are always read from ``name``, also where those of a checkpoint follow.

    Args:
        name: Hub id or local folder of a saved model.
        context_length: Longest text in tokens, and not above what the model was saved with; None = that.
        grad_checkpointing: Recompute activations in the backward pass instead of keeping them.

    Raises:
        ConfigError: When the model takes no single texts of tokens, or its context is shorter than asked for.
        UserError: When it is not there, or ``sentence-transformers`` is not installed.

    Source: Sentence-BERT (Reimers & Gurevych 2019).
    """

    def __init__(
        self, name: str, *, context_length: int | None = 77, grad_checkpointing: bool = False
    ) -> None:
        trunk = _load(str(name))
        own = getattr(trunk, "max_seq_length", None)
        longest = own if isinstance(own, int) and 0 < own <= 2**20 else 2**20
        length = (
            min(longest, 512)
            if context_length is None
            else whole_number("context_length", context_length, least=2)
        )
        if length > longest:
            raise ConfigError(
                f"textual.context_length is {length}, but {name} takes texts of {longest} tokens; lower it or set null."
            )
        tokenizer = getattr(trunk[0], "tokenizer", None)
        if tokenizer is None or not (hasattr(tokenizer, "pad_token_id") or hasattr(tokenizer, "word2idx")):
            raise ConfigError(
                f"textual.name {name}: a {type(trunk[0]).__name__} has no tokenizer of texts; name another model."
            )
        tokens = SentenceTokenizer(tokenizer, length, prompt=_default_prompt(trunk, name))
        super().__init__(
            context_length=length,
            vocab_size=tokens.vocab_size,
            pad_token=tokens.pad_token,
            vocabulary=tokens.vocabulary,
            fill_id=max(0, tokens.pad_token),
        )
        self.trunk = trunk
        self._tokenizer = tokens
        with torch.device("cpu"):
            self.width = self._probe_width(name)
        if grad_checkpointing:
            self.set_grad_checkpointing()

    @property
    def tokenizer(self) -> SentenceTokenizer:
        """The tokenizer whose ids this encoder takes."""
        return self._tokenizer

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Turn recomputation in the backward pass on or off; ConfigError where the model does not support it."""
        inner = getattr(self.trunk, "transformers_model", None)
        if inner is None or not inner.supports_gradient_checkpointing:
            raise ConfigError(
                "textual: this model has no gradient checkpointing in transformers: turn it off."
            )
        if enable:
            inner.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        else:
            inner.gradient_checkpointing_disable()

    def encode(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Ids and mask (B, L) -> sentence embeddings (B, width)."""
        given = {"input_ids": ids, "attention_mask": mask.long(), "sentence_lengths": mask.sum(dim=1)}
        embedding: Tensor = self.trunk(given)["sentence_embedding"]
        return embedding

    @torch.no_grad()
    def _probe_width(self, name: str) -> int:
        """Width of the features, by one short text."""
        ids = self._tokenizer("a").clamp(min=0)
        try:
            features = self.eval().encode(ids, torch.ones_like(ids, dtype=torch.bool))
        except (KeyError, TypeError, RuntimeError, ValueError, AttributeError, IndexError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ConfigError(
                f"textual.name {name}: does not take token ids with a mask ({type(error).__name__}: {reason}); name "
                "another model."
            ) from error
        self.train()
        return features.shape[1]


def _load(name: str) -> Any:
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise UserError(
            "models of sentence-transformers need that package, which is not installed: "
            "pip install 'hypvl[sentence-transformers]'."
        ) from error
    try:
        # On the CPU whatever the default: words and weights are read from files.
        with torch.device("cpu"):
            return SentenceTransformer(
                name, device="cpu", trust_remote_code=False, model_kwargs={"dtype": torch.float32}
            )
    # OSError: what is absent; the others: what is broken, or names code.
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, AttributeError, ImportError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"textual.name {name}: no model of sentence-transformers can be loaded ({reason}); expected a folder that "
            "it saved, or a hub id in the cache (go online once)."
        ) from error


def _default_prompt(trunk: Any, name: str) -> str:
    """What ``SentenceTransformer.encode`` puts before every text."""
    chosen = getattr(trunk, "default_prompt_name", None)
    prompt = trunk.prompts.get(chosen) if chosen else None
    if prompt and any(getattr(module, "include_prompt", True) is False for module in trunk):
        raise ConfigError(
            f"textual.name {name}: leaves its prompt out of the mean, which is not supported; name another model."
        )
    return prompt or ""

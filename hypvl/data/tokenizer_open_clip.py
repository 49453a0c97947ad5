"""Tokenizers of open_clip's models that have another vocabulary than CLIP's: SigLIP, CLIPA, Hugging Face encoders."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from hypvl.allowlist import configurable
from hypvl.checks import whole_number
from hypvl.data.tokenizer_huggingface import without_remote_code
from hypvl.errors import ConfigError, UserError

if TYPE_CHECKING:
    from torch import Tensor


@configurable("model", "dataset", "evaluate")
class OpenClipTokenizer:
    """The tokenizer that open_clip has for a model, with its cleaning of texts; rows are always full.

    It is made at the first text: its files come from the Hugging Face hub or its cache, or from the folder of
    ``"local-dir:<folder>"``. Instances are cheap to make and to pickle.

    Args:
        model: A name of open_clip.
        context_length: Ids per text, start and end included; at least 2.
        vocab_size: Number of ids of the text encoder.
        pad_token: Id with which rows are filled after the text.
    """

    def __init__(self, model: str, *, context_length: int, vocab_size: int, pad_token: int = 0) -> None:
        self.model = model
        self.context_length = whole_number("context_length", context_length, least=2, most=2**20)
        self.vocab_size = whole_number("vocab_size", vocab_size, least=2, most=2**31 - 1)
        self.pad_token = whole_number("pad_token", pad_token, least=0, most=vocab_size - 1)
        self.vocabulary = f"open_clip:{model}"
        self._tokenizer: Any = None

    def __reduce__(self) -> tuple[Callable[..., "OpenClipTokenizer"], tuple[str, int, int, int]]:
        return _make, (self.model, self.context_length, self.vocab_size, self.pad_token)

    def __call__(self, texts: str | Sequence[str]) -> "Tensor":
        """Tokenize B texts (one for a string): int64 (B, context_length).

        Raises:
            TypeError: when one is not a string.
            UserError: when the files of the tokenizer cannot be read.
            ConfigError: when it fills rows with another id than ``pad_token``.
        """
        rows = [texts] if isinstance(texts, str) else list(texts)
        for text in rows:
            if not isinstance(text, str):
                raise TypeError(f"a text is {type(text).__name__} ({text!r:.60}), but a string is expected.")
        if self._tokenizer is None:
            self._tokenizer = self._made()
        if not rows:
            import torch

            return torch.zeros(0, self.context_length, dtype=torch.int64)
        ids: Tensor = self._tokenizer(rows)
        return ids.long()

    def _made(self) -> Any:
        import open_clip

        try:
            with without_remote_code():
                made = open_clip.get_tokenizer(self.model, context_length=self.context_length)
        except (
            OSError,
            ValueError,
            ImportError,
        ) as error:  # no file in the cache and no network; no transformers
            raise UserError(
                f"{self.model}: the files of its tokenizer could not be read ({str(error).strip().splitlines()[0]}); "
                "go online once, or give a folder (local-dir:...) with the tokenizer in it."
            ) from error
        fills = getattr(getattr(made, "tokenizer", None), "pad_token_id", None)
        if fills is not None and fills != self.pad_token:
            raise ConfigError(
                f"pad_token: got {self.pad_token}, but the tokenizer of {self.model} fills rows with {fills}; "
                "give that number."
            )
        return made

    def __repr__(self) -> str:
        return f"OpenClipTokenizer({self.model!r}, context_length={self.context_length}, pad_token={self.pad_token})"


def _make(model: str, context_length: int, vocab_size: int, pad_token: int) -> OpenClipTokenizer:
    return OpenClipTokenizer(model, context_length=context_length, vocab_size=vocab_size, pad_token=pad_token)

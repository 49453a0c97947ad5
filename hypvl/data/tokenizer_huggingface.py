"""Tokenizers of Hugging Face text models, with the contract of the tokenizers here; the extra ``huggingface``."""

import contextlib
import functools
import hashlib
import pickle
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from hypvl.allowlist import configurable
from hypvl.checks import whole_number
from hypvl.errors import DataError, UserError

if TYPE_CHECKING:
    from torch import Tensor

#: What transformers raises for files that are absent, broken or of another kind, and for ids that are not cached.
UNLOADABLE: tuple[type[Exception], ...] = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    RuntimeError,
    AttributeError,
    ImportError,
    SafetensorError,
    pickle.UnpicklingError,
    EOFError,
)
_PLACE = "{}"
_MASK = "[MASK]"
# Characters of a text that are looked at: more than any caption has.
_LONGEST_TEXT = 1 << 16


def require_transformers() -> Any:
    """The package ``transformers``, imported here for the first time; UserError where it is not installed."""
    try:
        import transformers
    except ImportError as error:
        raise UserError(
            "Hugging Face models need transformers, which is not installed: pip install 'hypvl[huggingface]'."
        ) from error
    return transformers


@contextlib.contextmanager
def without_remote_code() -> Iterator[None]:
    """In this block transformers does not ask whether to run code of a repository: it refuses.

    For libraries that call it without ``trust_remote_code=False``, such as open_clip.
    """
    try:
        from transformers import dynamic_module_utils as module
    except ImportError:  # then nobody asks
        yield
        return
    asked = module.TIME_OUT_REMOTE_CODE
    module.TIME_OUT_REMOTE_CODE = 0
    try:
        yield
    finally:
        module.TIME_OUT_REMOTE_CODE = asked


def load_tokenizer(name: str) -> Any:
    """The tokenizer of a hub id or a local folder, as ``transformers`` gives it; code in it is never run.

    Raises:
        DataError: when there is none.
    """
    transformers = require_transformers()
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except UNLOADABLE as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(
            f"{name}: no tokenizer can be loaded from it ({reason}); expected a folder with the files of "
            "save_pretrained, or a hub id in the cache (go online once)."
        ) from error
    # For a folder without its files transformers makes some kinds of tokenizers all the same, without a vocabulary.
    if not set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens):
        raise DataError(
            f"{name}: its tokenizer has no vocabulary; expected the files of the tokenizer in it, such as "
            "tokenizer.json."
        )
    return tokenizer


@configurable("dataset", "evaluate")
class HuggingFaceTokenizer:
    """The tokenizer of a Hugging Face model: texts -> int64 (B, L), special tokens included.

    Rows are filled at the end, whatever side the model's own padding is on, with ``pad_token``: the model's padding id,
    or -1, which stands for no token, where it has none or also uses it for something else (GPT-2).

    Args:
        name: Hub id or local folder.
        context_length: Most ids per text, special tokens and template included; longer texts lose their ends.
        template: Text around each text, with ``{}`` for it and ``[MASK]`` for the mask token of the model; None = none.
            Text and template are tokenised apart, so that their borders are known, and only the text is cut.

    Raises:
        ValueError: for a context without room for a token of the text, or a template without ``{}``.
        DataError: when the tokenizer cannot be loaded.
        UserError: when ``transformers`` is not installed.
    """

    eot_token: int | None = None

    def __init__(self, name: str, context_length: int = 77, *, template: str | None = None) -> None:
        self.name = str(name)
        self.context_length = whole_number("context_length", context_length, least=2, most=2**31 - 1)
        self.template = template
        self.tokenizer = load_tokenizer(self.name)
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if backend is not None:
            backend.no_padding()
            backend.enable_truncation(self.context_length)
        self.vocab_size = len(self.tokenizer)
        self.pad_token = pad_id(self.tokenizer)
        self.before: list[int] = []  # ids before and after those of the text
        self.after: list[int] = []
        self._lead = ""
        if template is not None:
            self._split(template)
        room = self.context_length - len(self.before) - len(self.after)
        if room < 1:
            raise ValueError(
                f"context_length: got {context_length}, but the template takes {self.context_length - room} ids; "
                f"expected at least {self.context_length - room + 1}."
            )
        self._room = room

    @functools.cached_property
    def vocabulary(self) -> str:
        """A digest of all ids: tokenizers with the same one mean the same by them."""
        return vocabulary_digest(self.tokenizer.get_vocab())

    def __call__(self, texts: str | Sequence[str]) -> "Tensor":
        """Tokenize B texts (one for a string): int64 (B, L), L that of the longest row. TypeError for no strings."""
        import torch

        rows = [torch.tensor(self.encode(text)) for text in ([texts] if isinstance(texts, str) else texts)]
        if not rows:
            return torch.zeros((0, 0), dtype=torch.int64)
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=self.pad_token)

    def encode(self, text: str) -> list[int]:
        """Ids of one text, at least one; an empty text of a model without special tokens is its first or last token.

        Raises:
            TypeError: for no string.
            ValueError: for an empty text where the model has neither a first nor a last token.
        """
        if not isinstance(text, str):
            raise TypeError(f"a text is {type(text).__name__} ({text!r:.60}), but a string is expected.")
        if self.template is not None:
            return [*self.before, *self._ids(self._lead + text, special=False, most=self._room), *self.after]
        ids = self._ids(text, special=True, most=self.context_length)
        if ids:
            return ids
        ends = (self.tokenizer.bos_token_id, self.tokenizer.eos_token_id)
        instead = next((token for token in ends if token is not None), None)
        if instead is None:
            raise ValueError(
                f"{self.name}: gives no token for the text {text!r}; expected a text that is not empty."
            )
        return [instead]

    def _ids(self, text: str, *, special: bool, most: int) -> list[int]:
        text = text[: max(_LONGEST_TEXT, 64 * most)]
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if backend is None:
            made = self.tokenizer(
                text,
                add_special_tokens=special,
                truncation=True,
                max_length=most,
                padding=False,
                verbose=False,
            )
            return list(made["input_ids"])
        # One text at a time starts no threads, of which forked workers would warn.
        ids = list(backend.encode(text, add_special_tokens=special).ids)
        return ids if special else ids[:most]

    def _split(self, template: str) -> None:
        first, place, last = template.partition(_PLACE)
        if not place:
            raise ValueError(f"template: got {template!r}; expected {_PLACE} where the text goes.")
        if _MASK in template and self.tokenizer.mask_token is None:
            raise ValueError(
                f"template: got {template!r}, but {self.name} has no mask token; choose a model with one, "
                "such as a BERT."
            )
        mask = str(self.tokenizer.mask_token)
        self._lead = (
            " " if first[-1:].isspace() else ""
        )  # a byte-pair vocabulary has other tokens after a space
        first, last = (part.rstrip().replace(_MASK, mask) for part in (first, last))
        plain, full = (self._ids("a", special=special, most=_LONGEST_TEXT) for special in (False, True))
        start = next(i for i in range(len(full)) if full[i : i + len(plain)] == plain)  # ids before a text
        self.before = full[:start] + self._ids(first, special=False, most=_LONGEST_TEXT)
        self.after = self._ids(last, special=False, most=_LONGEST_TEXT) + full[start + len(plain) :]

    def __repr__(self) -> str:
        template = "" if self.template is None else f", template={self.template!r}"
        return f"HuggingFaceTokenizer({self.name!r}, {self.context_length}{template})"


def pad_id(tokenizer: Any) -> int:
    """The padding id of a tokenizer of ``transformers``; -1 where it has none that is used for nothing else."""
    pad = tokenizer.pad_token_id
    others = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id)
    return -1 if pad is None or pad in others else int(pad)


def vocabulary_digest(ids: dict[str, int]) -> str:
    """16 letters that differ where the ids of tokens do."""
    lines = "\n".join(f"{token}\t{index}" for token, index in sorted(ids.items()))
    return hashlib.sha256(lines.encode("utf-8", "surrogatepass")).hexdigest()[:16]

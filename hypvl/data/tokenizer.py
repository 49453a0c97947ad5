"""The CLIP byte-pair tokenizer: exact ids, over the vocabulary file that open_clip ships.

Importing this module does not import torch, numpy or open_clip; the vocabulary is read at the first text.
"""

import functools
import gzip
import heapq
import html
import importlib.util
import re
from array import array
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

import ftfy
import regex

from hypvl.allowlist import configurable
from hypvl.checks import one_of, whole_number
from hypvl.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

Padding: TypeAlias = Literal["longest", "max_length"]
VOCAB_SIZE = 49408
SOT_TOKEN = 49406
EOT_TOKEN = 49407
_SPECIAL = {"<|startoftext|>": SOT_TOKEN, "<|endoftext|>": EOT_TOKEN}
_NUM_MERGES = VOCAB_SIZE - 2 * 256 - len(_SPECIAL)

# What a text is cut into before byte pairs are merged; no piece ever contains white space. Parity: ignoring
# case, the pattern drops U+0345, a mark whose capital is a letter; as published.
_PIECE = regex.compile(
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+",
    regex.IGNORECASE,
)
# ASCII that ftfy or html.unescape may change: control characters other than \t \n \f \r (removed, or read as
# terminal escapes) and "&", unless at the end or before a space, where no entity starts.
_SUSPECT = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f]|&[^ ]")
_WORD = re.compile(r"[^\W_]")
# ftfy goes over the whole text once for each level of nested entities ("&amp;amp;amp;..."): as often as there are
# semicolons. Characters that it may look at so.
_MOST_PASSED = 1 << 22
# Longer strings are hardly ever seen twice, and would let the caches grow without bound.
_LONGEST_CACHED = 64
# No token stands for more bytes than this.
_LONGEST_TOKEN = 32
# Characters of a text that are looked at: more than any caption has that is one.
_LONGEST_TEXT = 1 << 16
# Bytes of one word beyond those that its kept tokens can stand for: where a word is cut, the last tokens differ.
_CUT_MARGIN = 1 << 12


def repair(text: str) -> str:
    """Repair mojibake and undo HTML entities (twice), as CLIP does, up to white space.

    Differs: in a text with thousands of them they are undone twice only, however deep they are nested.

    ASCII without entities and control characters has nothing to repair and takes a short cut.
    """
    if text.isascii() and ((text.isprintable() and "&" not in text) or not _SUSPECT.search(text)):
        return text
    nested = "&" in text and text.count(";") * len(text) > _MOST_PASSED
    fixed = ftfy.fix_text(text, unescape_html=False) if nested else ftfy.fix_text(text)
    return html.unescape(html.unescape(fixed))


def is_blank(text: str) -> bool:
    """Whether nothing is left to encode once a text is repaired: white space, ``"&nbsp;"``, control characters."""
    if not text.strip():
        return True
    if _WORD.search(text) and not _SUSPECT.search(text):
        return False
    return _PIECE.search(repair(text[:_LONGEST_TEXT]).lower()) is None


class _Vocabulary(NamedTuple):
    """Id of each byte, id of each mergeable pair of ids (the lower, the earlier merged), bytes of each id."""

    byte_ids: list[int]
    merges: dict[tuple[int, int], int]
    token_bytes: list[bytes]


@functools.cache
def _vocabulary() -> _Vocabulary:
    """Read the vocabulary once per process; raises DataError when open_clip is not installed."""
    spec = importlib.util.find_spec("open_clip")  # finds the folder without importing the package
    if spec is None or spec.origin is None:
        raise DataError("The CLIP vocabulary is part of open_clip_torch, which is absent: pip install it.")
    path = Path(spec.origin).parent / "bpe_simple_vocab_16e6.txt.gz"
    if not path.is_file():
        raise DataError(f"The CLIP vocabulary {path} is absent: reinstall open_clip_torch.")
    lines = gzip.decompress(path.read_bytes()).decode().split("\n")[1 : 1 + _NUM_MERGES]

    # The file writes bytes as printable characters: the printable ones of Latin-1 as themselves, the rest,
    # in order, as the characters from 256 on. Ids of bytes follow the same order.
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    order = printable + [b for b in range(256) if b not in set(printable)]
    characters = [chr(b) for b in printable] + [chr(256 + i) for i in range(256 - len(printable))]
    ids = {c: i for i, c in enumerate(characters + [c + "</w>" for c in characters])}
    token_bytes = [bytes([b]) for b in order] + [bytes([b]) + b" " for b in order]  # </w> reads as a space
    merges: dict[tuple[int, int], int] = {}
    for line in lines:
        first, second = line.split()
        pair = (ids[first], ids[second])
        merges[pair] = ids[first + second] = len(token_bytes)
        token_bytes.append(token_bytes[pair[0]] + token_bytes[pair[1]])
    byte_ids = [0] * 256
    for i, b in enumerate(order):
        byte_ids[b] = i
    return _Vocabulary(byte_ids, merges, token_bytes)


def merge_pairs(symbols: list[int], merges: dict[tuple[int, int], int]) -> list[int]:
    """Merge neighbours, always the pair with the lowest merged id and of these the leftmost, until none is left.

    A heap keeps this at O(n log n), so that a "word" of a million letters does not stall a data worker.
    """
    symbols = list(symbols)
    end = len(symbols)
    after = list(range(1, end + 1))  # the living neighbour to the right; ``end`` for none
    before = list(range(-1, end - 1))
    heap = [(merges[p], i) for i, p in enumerate(pairwise(symbols)) if p in merges]
    heapq.heapify(heap)
    while heap:
        merged, i = heapq.heappop(heap)
        j = after[i]
        # Entries are not removed when a merge changes a neighbour; -1 marks a symbol merged away.
        if j == end or merges.get((symbols[i], symbols[j])) != merged:
            continue
        symbols[i], symbols[j] = merged, -1
        after[i] = k = after[j]
        if k != end:
            before[k] = i
            pair = (merged, symbols[k])
            if pair in merges:
                heapq.heappush(heap, (merges[pair], i))
        h = before[i]
        if h >= 0:
            pair = (symbols[h], merged)
            if pair in merges:
                heapq.heappush(heap, (merges[pair], h))
    return [s for s in symbols if s >= 0]


class _Memo(dict[str, bytes]):
    """Remembers what ``compute`` gave for recent keys: at most ``2 * size`` of them.

    When ``size`` keys are in, they become the old generation, from which a key that is asked for again
    comes back. There is no lock: threads at worst compute a value twice or forget one.
    """

    def __init__(self, compute: Callable[[str], bytes], *, size: int) -> None:
        super().__init__()
        self.compute = compute
        self.size = size
        self.old: dict[str, bytes] = {}

    def __missing__(self, key: str) -> bytes:
        value = self.old.get(key)
        if value is None:
            value = self.compute(key)
        if len(key) <= _LONGEST_CACHED and self.size > 0:
            if len(self) >= self.size:
                self.old = dict(self)
                self.clear()
            self[key] = value
        return value


class Tokenizer:
    """CLIP's byte-pair encoding of texts, padded with 0.

    A text longer than ``context_length`` keeps its first ids, the last of them overwritten by end-of-text. Time is
    bounded: of a text longer than 65,536 characters (or 64 for each id, if that is more) the rest is not looked at.
    Instances are cheap to make and to pickle (caches stay behind), and safe across forks and threads.

    Args:
        context_length: Most ids per text, start and end included; at least 2.
        cache_size: Recent words to remember, 0 = none; 30 MB per process at the default and at the worst.
        padding: Rows are padded to the "longest" of a call, or to "max_length" (``context_length``), so that rows of
            several calls can be stacked, for example by the default collate function of a DataLoader.

    Raises:
        ValueError: for a context too short for start and end, or another padding.

    Source: Sennrich et al. 2016; CLIP (Radford et al. 2021), section 2.4.
    """

    vocab_size = VOCAB_SIZE
    sot_token = SOT_TOKEN
    eot_token = EOT_TOKEN
    pad_token = 0
    vocabulary = "clip"  # names the ids: texts of another vocabulary mean something else to an encoder

    def __init__(
        self, context_length: int = 77, *, cache_size: int = 32768, padding: Padding = "longest"
    ) -> None:
        self.context_length = whole_number("context_length", context_length, least=2, most=2**31 - 1)
        self.cache_size = whole_number("cache_size", cache_size, least=0)
        self.padding = one_of("padding", padding, Padding)
        self._longest_text = max(_LONGEST_TEXT, 2 * _LONGEST_TOKEN * self.context_length)
        # Ids travel as 16-bit bytes, which join, cut and pad faster than lists.
        self._pieces = _Memo(self._encode_piece, size=self.cache_size)
        self._words = _Memo(self._encode_word, size=self.cache_size)

    def __reduce__(self) -> tuple[Callable[[int], "Tokenizer"], tuple[int]]:
        make = functools.partial(Tokenizer, cache_size=self.cache_size, padding=self.padding)
        return make, (self.context_length,)

    def __call__(self, texts: str | Sequence[str]) -> "Tensor":
        """Tokenize B texts (one for a string): int64 (B, L). Raises TypeError when one is not a string.

        L is that of the longest row, at most ``context_length``, or with ``padding="max_length"`` always that; 0 after
        the end of shorter ones.
        """
        import numpy as np
        import torch

        rows = [self._row(text) for text in ([texts] if isinstance(texts, str) else texts)]
        width = 2 * self.context_length if self.padding == "max_length" else max(map(len, rows), default=0)
        ids = np.frombuffer(b"".join([row.ljust(width, b"\0") for row in rows]), dtype=np.uint16)
        return torch.from_numpy(ids.astype(np.int64).reshape(len(rows), width // 2))  # (B, L)

    def encode(self, text: str) -> list[int]:
        """Ids of one text, start and end included, truncated to ``context_length``."""
        return array("H", self._row(text)).tolist()

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids (L,), cleaned as it was encoded: without start, end and all that follows the end.

        Raises:
            ValueError: When an id is outside the vocabulary.
        """
        token_bytes = _vocabulary().token_bytes
        parts: list[bytes] = []
        for value in ids:
            token = int(value)
            if token == EOT_TOKEN:
                break
            if not 0 <= token < VOCAB_SIZE:
                raise ValueError(f"id {token} is outside the vocabulary of {VOCAB_SIZE}.")
            if token != SOT_TOKEN:
                parts.append(token_bytes[token])
        return b"".join(parts).decode(errors="replace").rstrip()

    def _row(self, text: str) -> bytes:
        """Ids of a text as 16-bit bytes, start and end included, truncated."""
        if not isinstance(text, str):
            raise TypeError(f"a text is {type(text).__name__} ({text!r:.60}), but a string is expected.")
        room = self.context_length - 2
        words = repair(text[: self._longest_text]).lower().split(None, room)
        body = b"".join(map(self._words.__getitem__, words[:room]))
        if len(words) > room and len(body) < 2 * room:  # only where words gave no id at all, see _PIECE
            body += b"".join(map(self._words.__getitem__, words[room].split()))
        return _SOT_BYTES + body[: 2 * room] + _EOT_BYTES

    def _encode_word(self, word: str) -> bytes:
        """Ids of what stands between two spaces."""
        return b"".join(map(self._pieces.__getitem__, _PIECE.findall(word)))

    def _encode_piece(self, piece: str) -> bytes:
        """Ids of one match of the pattern, as 16-bit bytes."""
        if piece in _SPECIAL:
            return array("H", [_SPECIAL[piece]]).tobytes()
        byte_ids, merges, _ = _vocabulary()
        kept = piece.encode()[: _LONGEST_TOKEN * self.context_length + _CUT_MARGIN]
        symbols = [byte_ids[b] for b in kept]
        symbols[-1] += 256  # the variant that ends a word
        return array("H", merge_pairs(symbols, merges)).tobytes()


def pad_token_of(tokenizer: object) -> int:
    """The id with which a tokenizer fills rows after the end of a text; 0 where it does not say (``pad_token``).

    No text ends with it, so that the length of a text can be read off its row: padding stands at the end only.
    """
    return int(getattr(tokenizer, "pad_token", 0))


_SOT_BYTES = array("H", [SOT_TOKEN]).tobytes()
_EOT_BYTES = array("H", [EOT_TOKEN]).tobytes()


@configurable("dataset", "evaluate")
def get_tokenizer(context_length: int = 77, *, padding: Padding = "longest") -> Tokenizer:
    """CLIP's tokenizer, with ids 0 .. 49407; arguments as for :class:`Tokenizer`.

    It is that of every published model here. A model that was built with another text encoder has its own one,
    ``model.tokenizer``.

    Example:
        >>> get_tokenizer()(["a cat"])[0, :4].tolist()
        [49406, 320, 2368, 49407]
    """
    return Tokenizer(context_length, padding=padding)

"""How many texts of a set a model cannot see to their end."""

from collections.abc import Sequence
from typing import Any

from hypvl.data import tokenizer as clip
from hypvl.evaluation.protocol import Tokenizer


def truncation(texts: Sequence[str], *, tokenizer: Tokenizer) -> dict[str, Any]:
    """Entries for a result's meta: how many texts the tokenizer cuts, and a warning where it does.

    Args:
        texts: As the model gets them.
        tokenizer: What it gets them through. Only of hypvl's own is known what it cuts.

    Returns:
        ``context_length``; ``captions_cut`` and ``captions_cut_percent``, None for another tokenizer; and where any
        are cut ``warnings``, a list of one sentence.
    """
    if not isinstance(tokenizer, clip.Tokenizer):
        return {
            "context_length": getattr(tokenizer, "context_length", None),
            "captions_cut": None,
            "captions_cut_percent": None,
        }
    length = tokenizer.context_length
    longer = clip.get_tokenizer(length + 1)
    cut = sum(len(longer.encode(text)) > length for text in texts)
    share = 100.0 * cut / len(texts) if texts else 0.0
    found: dict[str, Any] = {
        "context_length": length,
        "captions_cut": cut,
        "captions_cut_percent": share,
    }
    if cut:
        found["warnings"] = [
            f"{cut} of {len(texts)} captions ({share:.1f} %) are longer than the model's context of {length} tokens "
            "and were cut: their ends do not count."
        ]
    return found

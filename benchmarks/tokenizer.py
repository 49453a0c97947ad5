"""Captions per second against open_clip.get_tokenizer, caches cold: python -m benchmarks.tokenizer

A fixed corpus: distinct captions of 10 words, 10,000 distinct words with frequencies as 1 / rank. Each run has a
tokenizer that has seen no text yet. Prints one JSON line: throughput_ratio without, start_ratio with the time in which
both read the vocabulary and are made; equal_ids over all captions.
"""

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.common import count, paired, report


def corpus(captions: int, words: int, *, seed: int = 0) -> list[str]:
    """Distinct captions of ~10 words whose frequencies fall as 1 / rank; every word occurs."""
    rng = np.random.default_rng(seed)
    letters = np.array(list("etaoinshrdlucmfwypvbgkqjxz"))
    vocabulary: dict[str, None] = {}
    while len(vocabulary) < words:
        vocabulary["".join(rng.choice(letters, size=rng.integers(3, 11)))] = None
    names = list(vocabulary)
    chances = 1 / np.arange(1, words + 1)
    drawn = rng.choice(words, size=(captions, 9), p=chances / chances.sum())
    return [" ".join([names[i % words], *(names[j] for j in row)]) for i, row in enumerate(drawn)]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--captions", type=count, default=10_000)
    parser.add_argument("--words", type=count, default=10_000)
    parser.add_argument("--repeats", type=count, default=5)
    parser.add_argument("--json", action="store_true", help="the JSON line is what is always printed")
    args = parser.parse_args(argv)
    import open_clip

    from hypvl.data import tokenizer as ours

    texts = corpus(args.captions, args.words)
    ids, their_ids = ours.Tokenizer()(texts), open_clip.get_tokenizer("ViT-B-32")(texts)
    width = ids.shape[1]
    equal = bool((ids == their_ids[:, :width]).all()) and not bool(their_ids[:, width:].any())

    mine = [ours.Tokenizer() for _ in range(args.repeats)]
    others = [open_clip.get_tokenizer("ViT-B-32") for _ in range(args.repeats)]
    figures: dict[str, Any] = paired(
        lambda: mine.pop()(texts), lambda: others.pop()(texts), repeats=args.repeats
    )

    def from_the_start() -> None:
        ours._vocabulary.cache_clear()
        ours.Tokenizer()(texts)

    start = paired(from_the_start, lambda: open_clip.get_tokenizer("ViT-B-32")(texts), repeats=args.repeats)
    warm = ours.Tokenizer()
    warm(texts)
    again = paired(lambda: warm(texts), lambda: None, repeats=args.repeats)["ours_seconds"]
    report(
        "tokenizer",
        {
            **figures,
            "start_ratio": start["throughput_ratio"],
            "captions_per_second": args.captions / figures["ours_seconds"],
            "captions_per_second_warm": args.captions / again,
            "distinct_captions": len(set(texts)),
            "distinct_words": len({word for text in texts for word in text.split()}),
            "equal_ids": equal,
        },
    )


if __name__ == "__main__":
    main()

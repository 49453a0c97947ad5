"""Captions per second against open_clip's tokenizer, caches cold: python -m benchmarks.tokenizer"""

import argparse
from typing import Any

import numpy as np

from benchmarks.common import paired, report


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--captions", type=int, default=10_000)
    parser.add_argument("--words", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    from open_clip.tokenizer import SimpleTokenizer

    from hypvl.data.tokenizer import Tokenizer

    texts = corpus(args.captions, args.words)
    figures: dict[str, Any] = paired(
        lambda: Tokenizer()(texts), lambda: SimpleTokenizer()(texts), repeats=args.repeats
    )
    warm = Tokenizer()
    warm(texts)
    figures["warm"] = paired(lambda: warm(texts), lambda: None, repeats=args.repeats)["ours_seconds"]
    figures["captions_per_second"] = args.captions / figures["ours_seconds"]
    figures["captions_per_second_warm"] = args.captions / figures.pop("warm")
    same = (
        Tokenizer()(texts[:100]) == SimpleTokenizer()(texts[:100])[:, : Tokenizer()(texts[:100]).shape[1]]
    ).all()
    report("tokenizer", {**figures, "captions": args.captions, "words": args.words, "equal_ids": bool(same)})


if __name__ == "__main__":
    main()

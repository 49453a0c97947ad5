"""Deterministic damage to bytes: flips, cuts, holes, repeated and swapped parts."""

import random

KINDS = ("flip", "flip_many", "header", "cut", "zeros", "repeat", "swap", "insert", "remove")


def damaged(data: bytes, kind: str, rng: random.Random) -> tuple[bytes, list[tuple[int, int]]]:
    """The damaged bytes, and the parts [begin, end) of the original that are no longer what or where they were."""
    size = len(data)
    at = rng.randrange(size)
    length = min(size - at, rng.choice((1, 7, 512, 1000, 4096)))
    changed = bytearray(data)
    if kind in ("flip", "flip_many", "header"):
        places = [at] if kind == "flip" else [rng.randrange(size) for _ in range(rng.choice((5, 50, 500)))]
        if kind == "header":  # the first block of a TAR, the magic of an image, the header of anything
            places = [rng.randrange(min(512, size)) for _ in range(3)]
        for place in places:
            changed[place] ^= rng.randrange(1, 256)
        return bytes(changed), [(place, place + 1) for place in places]
    if kind == "cut":
        return data[:at], [(at, size)]
    if kind == "zeros":
        changed[at : at + length] = bytes(length)
        return bytes(changed), [(at, at + length)]
    if kind == "repeat":
        return data[: at + length] + data[at : at + length] + data[at + length :], [(at + length, size)]
    if kind == "swap":
        middle = rng.randrange(at, size)
        return data[:at] + data[middle:] + data[at:middle], [(at, size)]
    if kind == "insert":
        return data[:at] + rng.randbytes(length) + data[at:], [(at, size)]
    if kind == "remove":
        return data[:at] + data[at + length :], [(at, size)]
    raise ValueError(kind)

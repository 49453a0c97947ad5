"""Damaged and hostile archives: TAR (also compressed), ZIP, gzip, unpacked into a folder."""

import bz2
import contextlib
import functools
import gzip
import io
import lzma
import random
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator

from hypvl.io.archives import Archive, read_zip_member, unpack, zip_damage
from tests.fuzz.damage import KINDS, damaged
from tests.fuzz.harness import ELSEWHERE, Case, FuzzFailure, Outcome, Sandbox
from tests.fuzz.tars import all_headers, plain_tar


@functools.cache
def whole_zip() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for i in range(5):
            archive.writestr(f"s/{i}.txt", f"content {i}" * 200)
    return out.getvalue()


def zip_of(*members: tuple[str, bytes, int], compressed: bool = True) -> bytes:
    """A ZIP of (name, content, mode of Unix)."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED) as archive:
        for name, content, mode in members:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            info.compress_type = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
            archive.writestr(info, content)
    return out.getvalue()


@functools.cache
def all_zips() -> list[tuple[str, bytes]]:
    return list(strange_zips(str(ELSEWHERE)))


def strange_zips(outside: str) -> Iterator[tuple[str, bytes]]:
    file = stat.S_IFREG | 0o644
    for name in (
        "../outside/written",
        f"{outside}/written",
        "a/../../outside/written",
        "..\\outside\\written",
        "C:\\written",
        "C:written",
        "/written",
        "..",
        ".",
        "/",
        "//",
        "a//b",
        "a/./b",
        "",
        "a\0b",
        "a" * 300,
        "a/" * 70 + "b",
        "\x1b[31m",
        "\u202ea",
        "CON",
        "a/",
        "../",
        "\\\\server\\share\\x",
        "~/x",
        "$(touch written)",
        "a\nb",
        "\uff23ON",
        "\uff0e\uff0e/outside/written",
    ):
        yield f"name {name[:40]!r}", zip_of((name, b"x", file))
    for mode in (stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK, 0o170000):
        yield f"mode {mode:o}", zip_of(("a", f"{outside}/canary".encode(), mode | 0o777), ("a/b", b"x", file))
    yield "setuid", zip_of(("a", b"x", stat.S_IFREG | 0o7777))
    yield "file and folder", zip_of(("a", b"x", file), ("a/b", b"x", file))
    yield "the same twice", zip_of(("a", b"x", file), ("a", b"y", file))
    yield "upper and lower", zip_of(("a", b"x", file), ("A", b"y", file))
    yield "bomb", zip_of(*((f"{i}", bytes(10_000_000), file) for i in range(2)))
    yield "many members", zip_of(*((f"{i}", b"", file) for i in range(3000)), compressed=False)
    yield "nested", zip_of(("a.zip", whole_zip() * 3, file))
    yield "comment", whole_zip()[:-2] + b"\xff\xff" + bytes(65_535)
    yield "two ends", whole_zip() + whole_zip()[-22:]
    yield "before it", b"#!/bin/sh\ntouch written\n" + whole_zip()
    data = bytearray(whole_zip())
    at = data.rindex(b"PK\x01\x02")
    data[at + 24 : at + 28] = b"\xff" * 4  # its size
    yield "lying size", bytes(data)
    data[at + 42 : at + 46] = (0).to_bytes(4, "little")
    yield "overlapping members", bytes(data)
    encrypted = bytearray(whole_zip())
    encrypted[encrypted.rindex(b"PK\x01\x02") + 8] |= 1
    yield "encrypted", bytes(encrypted)
    unknown = bytearray(whole_zip())
    unknown[unknown.rindex(b"PK\x01\x02") + 10] = 99
    yield "unknown compression", bytes(unknown)
    for text in (
        b"",
        b"PK",
        b"PK\x05\x06" + bytes(18),
        b"PK\x05\x06" + b"\xff" * 18,
        b"PK\x03\x04" * 99,
        b"<html>",
        bytes(99_999),
    ):
        yield f"file of {text[:12]!r} {len(text)}", text


def _check(box: Sandbox, data: bytes, kind: Archive) -> Outcome:
    path = box.inputs / f"a.{kind}"
    path.write_bytes(data)
    folder = box.out / "set"
    try:
        unpack(path, folder, kind=kind, name="a.bin" if kind == "gz" else None)
    finally:
        left = (
            [one for one in folder.iterdir() if one.name.startswith(".unpacking")] if folder.is_dir() else []
        )
        links = [one for one in folder.rglob("*") if one.is_symlink() or not (one.is_dir() or one.is_file())]
        if left or links:
            raise FuzzFailure(f"left behind: {left + links}")
        if kind == "zip":
            zip_damage(path)
    if kind == "zip":
        with contextlib.suppress(KeyError):
            read_zip_member(path, "s/0.txt")
    return Outcome(good=sum(one.is_file() for one in folder.rglob("*")))


def _case(make: Callable[[Sandbox], bytes], kind: Archive) -> Callable[[Sandbox], Outcome]:
    return lambda box: _check(box, make(box), kind)


def _spoilt(data: Callable[[], bytes], kind: str, seed: int) -> Callable[[Sandbox], bytes]:
    return lambda box: damaged(data(), kind, random.Random(f"{kind}{seed}"))[0]


def _strange_zip(number: int) -> Callable[[Sandbox], bytes]:
    return lambda box: all_zips()[number][1]


def _strange_tar(number: int) -> Callable[[Sandbox], bytes]:
    def make(box: Sandbox) -> bytes:
        data, parts = plain_tar()
        at = parts["0003"][0]
        return data[:at] + all_headers()[number][1] + data[at:]

    return make


@functools.cache
def _bombs() -> dict[str, tuple[bytes, Archive]]:
    zeros = bytes(30_000_000)
    return {
        "gzip": (gzip.compress(zeros, 1), "gz"),
        "gzip as tar": (gzip.compress(zeros, 1), "tar"),
        "gzip twice": (gzip.compress(gzip.compress(zeros, 9)), "gz"),
        "xz": (lzma.compress(zeros, preset=0), "tar"),
        "bz2": (bz2.compress(zeros, 1), "tar"),
        "zlib": (zlib.compress(bytes(999)), "gz"),
        "empty": (b"", "gz"),
        "HTML": (b"<html>", "tar"),
        "gzip and HTML": (gzip.compress(b"x") + b"<html>", "gz"),
    }


BOMBS = ("gzip", "gzip as tar", "gzip twice", "xz", "bz2", "zlib", "empty", "HTML", "gzip and HTML")
COMPRESSED: dict[str, tuple[Callable[[], bytes], Archive]] = {
    "tar": (lambda: plain_tar()[0], "tar"),
    "tgz": (lambda: gzip.compress(plain_tar()[0]), "tar"),
    "txz": (lambda: lzma.compress(plain_tar()[0]), "tar"),
    "tbz": (lambda: bz2.compress(plain_tar()[0]), "tar"),
    "zip": (whole_zip, "zip"),
    "gz": (lambda: gzip.compress(plain_tar()[0]), "gz"),
}


def _bomb(name: str) -> Callable[[Sandbox], Outcome]:
    return lambda box: _check(box, *_bombs()[name])


def archive_cases() -> list[Case]:
    zips = [name for name, _ in all_zips()]
    tars = [name for name, _ in all_headers()]
    return [
        *(Case(f"archive: zip {name}", _case(_strange_zip(i), "zip")) for i, name in enumerate(zips)),
        *(
            Case(f"archive: tar {name}", _case(_strange_tar(i), "tar"))
            for i, name in enumerate(tars)
            if i % 3 == 0 or i < 40 or i > 280
        ),
        *(
            Case(f"archive: {name} {kind} {seed}", _case(_spoilt(make, kind, seed), archive))
            for name, (make, archive) in COMPRESSED.items()
            for kind in KINDS
            for seed in range(2)
        ),
        *(Case(f"archive: bomb {name}", _bomb(name)) for name in BOMBS),
    ]

"""Damaged TARs for ImageTextShards and the stream: bytes, headers, names, kinds of members, their order."""

import bz2
import functools
import gzip
import io
import lzma
import random
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

from hypvl.io.tar import BLOCK
from tests.data.helpers import jpeg
from tests.fuzz.damage import KINDS, damaged
from tests.fuzz.harness import ELSEWHERE, Case, FuzzFailure, Outcome, Sandbox
from tests.fuzz.readers import Read, read_shards, read_stream

SAMPLES = 6


@functools.cache
def plain_tar(format: int = tarfile.USTAR_FORMAT) -> tuple[bytes, dict[str, tuple[int, int]]]:
    """A whole TAR, and the part [begin, end) of it that each sample takes."""
    out, parts = io.BytesIO(), {}
    with tarfile.open(fileobj=out, mode="w", format=format) as tar:
        for i in range(SAMPLES):
            begin = out.tell()
            for name, content in ((f"{i:04}.jpg", jpeg(i)), (f"{i:04}.txt", f"caption {i}".encode())):
                _add(tar, name, content)
            parts[f"{i:04}"] = (begin, out.tell())
    return out.getvalue(), parts


def _add(tar: tarfile.TarFile, name: str, content: bytes, **fields: object) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    tar.addfile(info, io.BytesIO(content) if info.isreg() else None)


def header(name: bytes, size: bytes, *, kind: bytes = b"0", link: bytes = b"", prefix: bytes = b"") -> bytes:
    """A header block with any bytes in its fields and the checksum that belongs to them."""
    block = bytearray(BLOCK)
    block[:100] = name[:100].ljust(100, b"\0")
    block[100:124] = b"0000644\0" + b"0000000\0" * 2
    block[124:136] = size[:12].ljust(12, b"\0")
    block[136:148] = b"00000000000\0"
    block[148:156] = b" " * 8
    block[156:157] = kind
    block[157:257] = link[:100].ljust(100, b"\0")
    block[257:265] = b"ustar\x0000"
    block[345:500] = prefix[:155].ljust(155, b"\0")
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK)


@functools.cache
def all_headers() -> list[tuple[str, bytes]]:
    return list(strange_headers(str(ELSEWHERE)))


def strange_headers(outside: str) -> Iterator[tuple[str, bytes]]:
    """(what it is, blocks of one member) that stand between whole samples."""
    octal = b"%011o\0"
    target = f"{outside}/written".encode()
    content = padded(b"hello")
    for size in (b"-0000000001", b"99999999999", b"abc", b"", b"\x80" + b"\xff" * 11, b"\xff" * 12, b"\x80" + b"\0" * 3
                 + b"\x7f" * 8, b"77777777777", b" 7 7 7 7 7 ", b"0x10", "٣".encode(), b"1_0"):  # fmt: skip
        yield f"size {size!r}", header(b"9999.jpg", size) + content
    for name in (b"../outside/written", target, b"/written", b"a/../../outside/written", b"./../outside/written.txt",
                 b"..", b".", b"", b"\xff\xfe.jpg", b"a\nb.jpg", b"\x1b[31mred.jpg", b"a" * 100, b"C:\\written.jpg",
                 b"..\\outside\\written.txt", "‮gpj.txt".encode(), b"0001.jpg", b"0001.", b".jpg", b"a//b///c.jpg",
                 b"-rf.txt", b"$(touch written).txt", b"`touch written`.jpg", b"a" * 90 + b".jpg"):  # fmt: skip
        yield f"name {name!r}", header(name, octal % 5) + content
    for kind in [bytes([k]) for k in range(256) if k not in (0, ord("0"))]:
        yield f"kind {kind!r}", header(b"9999.jpg", octal % 5, kind=kind, link=target) + content
    for kind in (b"1", b"2"):
        for link in (
            target,
            b"../outside/canary",
            b"/etc/passwd",
            b"0000.jpg",
            b"9999.jpg",
            b"../../../../etc/passwd",
        ):
            yield f"link {kind!r} {link!r}", header(b"9999.jpg", octal % 0, kind=kind, link=link)
    for value in ("path=../outside/written", f"path={outside}/written", "size=-1", "size=99999999999999999999",
                  "size=abc", "size=4611686018427387904", "path=" + "x" * 5000, "linkpath=/etc/passwd", "path=",
                  "GNU.sparse.major=1", "GNU.sparse.name=../outside/written", "GNU.sparse.realsize=99999999999",
                  "hdrcharset=BINARY", "mtime=nan", "path=a\0b.jpg", "comment=" + "y" * 70_000):  # fmt: skip
        record = _record(value)
        yield (
            f"pax {value[:40]!r}",
            (
                header(b"pax", octal % len(record), kind=b"x")
                + padded(record)
                + header(b"9999.jpg", octal % 5)
                + content
            ),
        )
    for raw in (
        b"0 path=x\n",
        b"99999999 path=x\n",
        b"-5 path=x\n",
        b"abc",
        b"\0" * 40,
        b"12 path=x",
        b" ",
        b"5 a=b\n" * 90,
    ):
        yield (
            f"pax records {raw[:20]!r}",
            header(b"pax", octal % len(raw), kind=b"x")
            + padded(raw)
            + header(b"9999.jpg", octal % 5)
            + content,
        )
    for length in (0, 5, 1 << 20, (1 << 20) + 1, 1 << 30):
        yield (
            f"long name of {length}",
            header(b"././@LongLink", octal % length, kind=b"L")
            + padded(b"n" * min(length, 1 << 12))
            + header(b"9999.jpg", octal % 5)
            + content,
        )
    yield "sparse", header(b"9999.jpg", octal % 5, kind=b"S") + content
    block = bytearray(header(b"9999.jpg", octal % 5, kind=b"S"))
    block[482] = 1
    yield "sparse with a map", bytes(block) + (bytes(504) + b"\1" + bytes(7)) * 20 + content
    yield "end marks", bytes(BLOCK * 40)
    yield "a TAR in the TAR", _member("9999.tar", plain_tar()[0]) + _member("9999.txt", b"a tar")
    yield "a TAR as image", _member("9999.jpg", plain_tar()[0]) + _member("9999.txt", b"a tar")
    yield "HTML as image", _member("9999.jpg", b"<!DOCTYPE html><h1>404") + _member("9999.txt", b"gone")
    yield "an empty image", _member("9999.jpg", b"") + _member("9999.txt", b"empty")
    yield "an empty caption", _member("9999.jpg", jpeg(9)) + _member("9999.txt", b"")
    yield "many extensions", b"".join(_member(f"9999.x{i}", b"") for i in range(300))
    yield "the same again", _member("0001.jpg", jpeg(9)) * 3
    yield "deep folders", _member("d/" * 40 + "9.jpg", jpeg(9)) + _member("d/" * 40 + "9.txt", b"deep")


def _record(value: str) -> bytes:
    body = f" {value}\n".encode("utf-8", "surrogateescape")
    length = len(body) + 1
    while len(str(length)) + len(body) != length:
        length += 1
    return str(length).encode() + body


def _member(name: str, content: bytes) -> bytes:
    return header(name.encode(), b"%011o\0" % len(content)) + padded(content)


def whole_shuffles(rng: random.Random) -> bytes:
    """The members of a whole TAR in another order, some twice, some in a second TAR behind it."""
    members = [
        (f"{i:04}.{e}", jpeg(i) if e == "jpg" else f"caption {i}".encode())
        for i in range(SAMPLES)
        for e in ("jpg", "txt")
    ]
    rng.shuffle(members)
    cut = rng.randrange(len(members) + 1)
    end = bytes(2 * BLOCK)
    first, second = (b"".join(_member(*member) for member in part) for part in (members[:cut], members[cut:]))
    return rng.choice(
        (first + second + end, first + end + second + end, first + end * 9 + second, first + second)
    )


def _check_rest(read: Read, touched: list[tuple[int, int]]) -> None:
    """Samples that were not touched are read as they were, or are counted as lost with the rest of the TAR."""
    parts = plain_tar()[1]
    for key, (begin, end) in parts.items():
        if any(begin < last and first < end for first, last in touched):
            continue
        if read.good.get(key) != pristine()[key] and not read.bad:
            raise FuzzFailure(f"{key} was not touched, but is neither read nor counted: {read}")


@functools.cache
def pristine() -> dict[str, str]:
    """Digest of each sample of the whole TAR."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "whole.tar"
        path.write_bytes(plain_tar()[0])
        return read_shards(path).good


def _write(box: Sandbox, data: bytes) -> Path:
    path = box.inputs / "0000.tar"
    path.write_bytes(data)
    return path


def _byte_case(seed: int, kind: str, read: Callable[[Path], Read]) -> Callable[[Sandbox], Outcome]:
    def run(box: Sandbox) -> Outcome:
        rng = random.Random(f"{kind}{seed}")
        format = rng.choice((tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT, tarfile.GNU_FORMAT))
        data, touched = damaged(plain_tar(format)[0], kind, rng)
        result = read(_write(box, data))
        _check_rest(result, touched)
        return Outcome(len(result.good), len(result.bad))

    return run


def _header_case(number: int, read: Callable[[Path], Read]) -> Callable[[Sandbox], Outcome]:
    def run(box: Sandbox) -> Outcome:
        _, blocks = all_headers()[number]
        data, parts = plain_tar()
        at = parts["0003"][0]
        result = read(_write(box, data[:at] + blocks + data[at:]))
        for key in ("0000", "0001", "0002"):  # what stands before is read, whatever follows
            if key not in result.good and key not in result.bad:
                raise FuzzFailure(f"{key} is lost: {result}")
        if not result.bad and len(result.good) < SAMPLES:
            raise FuzzFailure(f"{SAMPLES - len(result.good)} samples are neither read nor counted")
        return Outcome(len(result.good), len(result.bad))

    return run


def _order_case(seed: int, read: Callable[[Path], Read]) -> Callable[[Sandbox], Outcome]:
    def run(box: Sandbox) -> Outcome:
        result = read(_write(box, whole_shuffles(random.Random(seed))))
        return Outcome(len(result.good), len(result.bad))

    return run


def _compressed_case(seed: int, compress: Callable[[bytes], bytes]) -> Callable[[Sandbox], Outcome]:
    def run(box: Sandbox) -> Outcome:
        rng = random.Random(seed)
        data, _ = damaged(compress(plain_tar()[0]), KINDS[seed % len(KINDS)], rng)
        result = read_stream(_write(box, data))
        if not result.bad and result.good != pristine():
            raise FuzzFailure(f"samples are neither read nor counted: {result}")
        return Outcome(len(result.good), len(result.bad))

    return run


def _cases(title: str, read: Callable[[Path], Read], *, seeds: int) -> list[Case]:
    headers = [name for name, _ in all_headers()]
    return [
        *(Case(f"{title}: {kind} {i}", _byte_case(i, kind, read)) for i in range(seeds) for kind in KINDS),
        *(Case(f"{title}: {name}", _header_case(i, read)) for i, name in enumerate(headers)),
        *(Case(f"{title}: order {i}", _order_case(i, read)) for i in range(2 * seeds)),
    ]


def shard_cases() -> list[Case]:
    return _cases("shards", read_shards, seeds=12)


def stream_cases() -> list[Case]:
    compressed = [
        Case(f"stream: {compress.__module__} {i}", _compressed_case(i, compress))
        for compress in (gzip.compress, bz2.compress, lzma.compress)
        for i in range(2 * len(KINDS))
    ]
    return [*_cases("stream", read_stream, seeds=8), *compressed]

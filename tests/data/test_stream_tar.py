"""TARs read once from the beginning to the end: nothing of a damaged one is lost in silence."""

import bz2
import gzip
import io
import lzma
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from hypvl.data import stream_tar
from hypvl.data.stream_tar import stream_samples
from tests.data.helpers import write_tar

PLAIN = [(f"{i}.{e}", f"{i}{e}".encode()) for i in range(4) for e in ("jpg", "txt")]
WHOLE = {str(i): {"jpg": f"{i}jpg".encode(), "txt": f"{i}txt".encode()} for i in range(4)}


@pytest.fixture
def data(tmp_path: Path) -> bytes:
    return write_tar(tmp_path / "a.tar", PLAIN, tarfile.USTAR_FORMAT).read_bytes()


@pytest.mark.parametrize("compress", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_samples_are_given_in_order_compressed_or_not(
    data: bytes, compress: Callable[[bytes], bytes]
) -> None:
    assert dict(stream_samples(io.BytesIO(compress(data)))) == WHOLE


def test_a_damaged_header_is_not_taken_for_the_end(data: bytes) -> None:
    """tarfile reads a TAR as a stream up to a damaged header and says nothing of the rest."""
    at = 4 * 1024  # the header of 2.jpg
    read = dict(stream_samples(io.BytesIO(data[:at] + b"\xff" * 100 + data[at + 100 :])))
    assert read.pop("(rest)") == f"damaged TAR: damaged at byte {at} (bad checksum)"
    assert read == {key: WHOLE[key] for key in "01"}


def test_a_member_that_is_cut_off_and_the_rest_are_counted(data: bytes) -> None:
    read = list(stream_samples(io.BytesIO(data[: 3 * 1024 + 514])))
    assert read == [
        ("0", WHOLE["0"]), ("1", "cut off inside 1.txt"), ("(rest)", "damaged TAR: cut off inside 1.txt")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("damaged", "words"),
    [
        (b"no TAR at all", "cut off at byte 13, inside a header"),
        (b"x" * 2000, "is not a TAR file"),
        (b"\x1f\x8b" + b"x" * 50, "compression method|not a gzipped|Unknown"),
        (b"BZh" + b"x" * 50, "Invalid data stream"),
        (b"\xfd7zXZ\x00" + b"x" * 50, "Corrupt input data|input format"),
    ],
)
def test_what_is_no_tar_is_one_bad_sample(damaged: bytes, words: str) -> None:
    ((key, reason),) = stream_samples(io.BytesIO(damaged))
    assert key == "(rest)"
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(reason)


def test_a_member_that_is_larger_than_a_sample_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(stream_tar, "MAX_SAMPLE", 1000)
    path = write_tar(tmp_path / "a.tar", [("0.jpg", bytes(50_000_000)), ("0.txt", b"large"), ("1.jpg", b"1")])
    with path.open("rb") as file:
        tracemalloc.start()
        read = dict(stream_samples(file))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert str(read["0"]).startswith("its members have 50000005 bytes, more than the 1000")
    assert read["1"] == {"jpg": b"1"}
    assert peak < 20_000_000


def test_errors_of_the_source_are_its_own(data: bytes) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() >= 2048:
                raise ConnectionResetError("gone")
            return super().read(min(size or 0, 1024))

    with pytest.raises(ConnectionResetError):
        list(stream_samples(Broken(data)))

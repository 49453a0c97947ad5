import io
import tarfile

import numpy as np
import pytest

from hypvl.data.tar_index import build_index, in_blocks, load_index, save_index
from hypvl.errors import DataError
from tests.data.helpers import write_tar


def index_of(data: bytes):
    return build_index(lambda offset, length: data[offset : offset + length], len(data), "t.tar")


def contents(data: bytes):
    index = index_of(data)
    return [
        (index.key(i), {name: data[offset : offset + size] for name, offset, size in index.members(i)})
        for i in range(len(index))
    ]


def tar_bytes(tmp_path, members, **options) -> bytes:
    return write_tar(tmp_path / "t.tar", members, **options).read_bytes()


PLAIN = [("a.jpg", b"A" * 700), ("a.json", b"{}"), ("b.jpg", b"B"), ("b.json", b"[]")]
B = 512 + 1024 + 512 + 512  # where b.jpg's header lies


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_groups_by_the_name_up_to_its_first_dot(tmp_path, format):
    long = "d" * 90 + "/" + "f" * 90
    members = [
        ("x/1.jpg", b"one"), ("x/1.seg.PNG", b"two"), ("./v1.2/1.jpg", b"three"),
        (long + ".txt", b"four"), ("é.txt", b"five"),
        ("x/1.json", b"six"),  # not beside its sample, and still part of it
        (".hidden.jpg", b"-"), ("x/._1.jpg", b"-"), ("README", b"-"),
    ]  # fmt: skip
    assert contents(tar_bytes(tmp_path, members, format=format)) == [
        ("x/1", {"jpg": b"one", "seg.png": b"two", "json": b"six"}),
        ("v1.2/1", {"jpg": b"three"}),
        (long, {"txt": b"four"}),
        ("é", {"txt": b"five"}),
    ]


def test_the_same_name_again_is_another_sample(tmp_path):
    members = [("a.txt", b"1"), ("b.txt", b"2"), ("a.txt", b"3"), ("a.jpg", b"4")]
    assert contents(tar_bytes(tmp_path, members)) == [
        ("a", {"txt": b"1"}), ("b", {"txt": b"2"}), ("a", {"txt": b"3", "jpg": b"4"}),
    ]  # fmt: skip


def test_folders_and_links_are_no_samples():
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, kind in [
            ("dir.x", tarfile.DIRTYPE),
            ("l.jpg", tarfile.SYMTYPE),
            ("h.jpg", tarfile.LNKTYPE),
        ]:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "a.jpg"
            tar.addfile(info)
        info = tarfile.TarInfo("a.jpg")
        info.size = 1
        tar.addfile(info, io.BytesIO(b"A"))
    assert contents(out.getvalue()) == [("a", {"jpg": b"A"})]


@pytest.mark.parametrize(
    ("cut", "whole", "lost"),
    [
        (0, [], "(end of file)"),
        (100, [], "(end of file)"),  # inside the first header
        (512 + 300, [], "a"),  # inside a.jpg
        (512 + 1024, [], "(end of file)"),  # a.jpg whole, nothing after it
        (B, ["a"], "(end of file)"),  # just before b
        (B + 512, ["a"], "b"),  # header of b.jpg only
        (B + 1024 + 200, ["a"], "b"),  # b.jpg whole, its json lost
        (B + 1024 + 512 + 1, ["a"], "b"),  # inside b.json
        (B + 2048, ["a", "b"], "(end of file)"),  # only the end mark is missing
    ],
)
def test_a_cut_tar_keeps_what_is_whole_and_names_one_loss(tmp_path, cut, whole, lost):
    data = tar_bytes(tmp_path, PLAIN)[:cut]
    found = contents(data)
    if cut == 512 + 1024:  # with no sample to compare, a lone jpg may be a whole one
        assert found.pop(0) == ("a", {"jpg": b"A" * 700})
    assert [key for key, members in found if members] == whole
    assert [key for key, members in found if not members] == [lost]
    assert f"cut off at byte {cut}" in index_of(data).damage


def test_a_damaged_header_ends_the_index_there(tmp_path):
    data = bytearray(tar_bytes(tmp_path, PLAIN))
    data[B + 5] ^= 0xFF
    assert [key for key, _ in contents(bytes(data))] == ["a", "(end of file)"]
    assert "damaged at byte 2560" in index_of(bytes(data)).damage


def test_a_negative_length_is_damage_not_an_endless_walk(tmp_path):
    info = tarfile.TarInfo("b.jpg")
    info.size = 1
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[124:136] = b"\xff" * 11 + b"\x00"  # -256 in base 256
    header[148:156] = b" " * 8
    header[148:155] = b"%06o\0" % sum(header)
    data = tar_bytes(tmp_path, PLAIN[:2])[:B] + bytes(header) + b"\0" * 1024
    assert [key for key, _ in contents(data)] == ["a", "(end of file)"]


def test_any_damage_ends_in_an_index_or_a_data_error(tmp_path):
    rng = np.random.default_rng(0)
    for format in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        file = tar_bytes(tmp_path, [("é" * 80 + ".txt", b"x"), *PLAIN], format=format)[:9000]
        for _ in range(150):
            data = bytearray(file)
            for at in rng.integers(len(data), size=3):
                data[at] = int(rng.integers(256))
            try:
                found = contents(bytes(data[: rng.integers(1, len(data))]))
            except DataError:
                continue
            assert len(found) <= 4


@pytest.mark.parametrize(
    ("data", "words"),
    [(b"\x1f\x8b" + b"\0" * 600, "compressed with gzip.*gunzip"), (b"<html>" * 200, "is not a TAR file")],
)
def test_what_is_no_tar_is_refused(data, words):
    with pytest.raises(DataError, match=words):
        index_of(data)


def test_an_index_file_is_used_only_for_the_same_state_of_its_tar(tmp_path):
    index = index_of(tar_bytes(tmp_path, PLAIN)[:-7000])
    path = tmp_path / "i"
    save_index(index, path, {"size": 1, "mtime_ns": 2})
    loaded = load_index(path, {"size": 1, "mtime_ns": 2})
    assert loaded is not None and loaded.digest == index.digest and loaded.damage == index.damage
    assert [loaded.key(i) for i in range(len(loaded))] == [index.key(i) for i in range(len(index))]
    assert loaded.members(0) == index.members(0)
    assert load_index(path, {"size": 1, "mtime_ns": 3}) is None
    path.write_bytes(path.read_bytes()[:-40])  # written half, say
    assert load_index(path, {"size": 1, "mtime_ns": 2}) is None
    path.write_bytes(b"")
    assert load_index(path, {"size": 1, "mtime_ns": 2}) is None
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_digest_tells_names_and_places_apart(tmp_path):
    digests = {
        index_of(tar_bytes(tmp_path, members)).digest
        for members in (
            PLAIN,
            PLAIN[:3],
            [("c.jpg", b"A" * 700), *PLAIN[1:]],
            [("a.jpg", b"A" * 701), *PLAIN[1:]],
        )
    }
    assert len(digests) == 4
    assert index_of(tar_bytes(tmp_path, PLAIN)).digest in digests


def test_blocks_give_the_same_bytes_with_fewer_reads():
    data, reads = bytes(range(256)) * 8, []

    def read(offset, length):
        reads.append((offset, length))
        return data[offset : offset + length]

    buffered = in_blocks(read, 512)
    for offset, length in [(0, 10), (100, 300), (500, 100), (2040, 100), (3000, 5)]:
        assert buffered(offset, length) == data[offset : offset + length]
    assert reads == [(0, 512), (500, 512), (2040, 512), (3000, 512)]

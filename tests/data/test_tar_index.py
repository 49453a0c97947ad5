import dataclasses
import io
import os
import tarfile

import numpy as np
import pytest

from hypvl.data.tar_index import MemberError, ReadAhead, build_index, load_index, read_members, save_index
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
    result = contents(data)
    if cut == 512 + 1024:  # with no sample to compare, a lone jpg may be a whole one
        assert result.pop(0) == ("a", {"jpg": b"A" * 700})
    assert [key for key, members in result if members] == whole
    assert [key for key, members in result if not members] == [lost]
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
                result = contents(bytes(data[: rng.integers(1, len(data))]))
            except DataError:
                continue
            assert len(result) <= 4


@pytest.mark.parametrize(
    ("data", "words"),
    [(b"\x1f\x8b" + b"\0" * 600, "compressed with gzip.*gunzip"), (b"<html>" * 200, "is not a TAR file")],
)
def test_what_is_no_tar_is_refused(data, words):
    with pytest.raises(DataError, match=words):
        index_of(data)


def test_an_index_file_is_used_only_for_the_same_state_of_its_tar(tmp_path):
    data = tar_bytes(tmp_path, PLAIN)[:-7000]
    index, size = index_of(data), len(data)
    path = tmp_path / "i"
    save_index(index, path, {"size": size, "mtime_ns": 2})
    loaded = load_index(path, {"size": size, "mtime_ns": 2})
    assert loaded is not None and loaded.digest == index.digest and loaded.damage == index.damage
    assert [loaded.key(i) for i in range(len(loaded))] == [index.key(i) for i in range(len(index))]
    assert loaded.members(0) == index.members(0)
    assert load_index(path, {"size": size, "mtime_ns": 3}) is None
    path.write_bytes(path.read_bytes()[:-40])  # written half, say
    assert load_index(path, {"size": size, "mtime_ns": 2}) is None
    path.write_bytes(b"")
    assert load_index(path, {"size": size, "mtime_ns": 2}) is None
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def reader(data: bytes):
    return lambda offset, length: data[offset : offset + length]


def test_joined_tars_are_one_index(tmp_path):
    first, second = tar_bytes(tmp_path, PLAIN), tar_bytes(tmp_path, [("a.jpg", b"C"), ("c.jpg", b"D")])
    assert [key for key, _ in contents(first + second)] == ["a", "b", "a", "c"]
    assert contents(first + second)[2:] == [("a", {"jpg": b"C"}), ("c", {"jpg": b"D"})]
    assert index_of(first + second).damage is None
    assert "is not another TAR" in index_of(first + b"junk" * 200).damage


def test_a_sparse_member_makes_its_sample_unreadable_not_short(tmp_path):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, pax in (("a.jpg", {"GNU.sparse.major": "1"}), ("a.json", {}), ("b.jpg", {})):
            info = tarfile.TarInfo(name)
            info.pax_headers = pax
            tar.addfile(info)
    index = index_of(out.getvalue())
    assert [(index.key(i), len(index.members(i))) for i in range(len(index))] == [("a", 0), ("b", 1)]
    with pytest.raises(MemberError, match="sparse file"):
        read_members(reader(out.getvalue()), index, 0)


def test_only_what_the_tar_itself_says_is_read(tmp_path):
    data = tar_bytes(tmp_path, [*PLAIN, ("é" * 80 + ".txt", b"long")])
    index = index_of(data)
    assert read_members(reader(data), index, 0) == {"jpg": b"A" * 700, "json": b"{}"}
    assert read_members(reader(data), index, 2, {"txt", "jpg"}) == {"txt": b"long"}
    swapped = index.offsets.copy()
    swapped[[0, 2]] = swapped[[2, 0]]
    for change in (
        {"offsets": swapped},
        {"offsets": index.offsets + 512},
        {"sizes": index.sizes - 1},
        {"extension_names": ("json", "jpg", "txt")},
        {"keys": index.keys[::-1].copy()},
        {"leads": index.leads * 0},
    ):
        with pytest.raises(MemberError, match=r"is not where the index says; delete the \.hypvl-index"):
            read_members(reader(data), dataclasses.replace(index, **change), 0)
    with pytest.raises(MemberError, match="the TAR has changed"):
        read_members(reader(data[:1000]), index, 0)


def test_a_sample_larger_than_any_pair_is_refused_unread(tmp_path):
    info = tarfile.TarInfo("a.jpg")
    info.size = 3 << 30
    index = build_index(reader(info.tobuf()), 4 << 30, "t.tar")
    with pytest.raises(MemberError, match="3221225472 bytes, more than the 536870912"):
        read_members(lambda *_: pytest.fail("read"), index, 0)


def test_an_index_of_somebody_else_is_not_believed(tmp_path):
    data = tar_bytes(tmp_path, PLAIN)
    path, identity = tmp_path / "i", {"size": len(data)}
    save_index(index_of(data), path, identity)
    assert load_index(path, identity) is not None
    for mode in (0o664, 0o646):
        path.chmod(mode)
        assert load_index(path, identity) is None
    path.chmod(0o600)
    assert load_index(path, identity) is not None
    if os.geteuid() == 0:
        os.chown(path, 12345, -1)
        assert load_index(path, identity) is None


def test_an_index_that_does_not_fit_its_tar_is_not_believed(tmp_path):
    data = tar_bytes(tmp_path, PLAIN)
    index, path = index_of(data), tmp_path / "i"
    for change in (
        {"offsets": index.offsets + 9800},
        {"offsets": index.offsets * 0},
        {"sizes": index.sizes * -1},
        {"sizes": index.sizes.astype(float)},
        {"sizes": index.sizes[:3]},
        {"extensions": index.extensions + 7},
        {"starts": index.starts[::-1].copy()},
        {"starts": index.starts[:-1]},
        {"key_ends": index.key_ends[::-1].copy()},
        {"key_ends": index.key_ends + 10},
        {"leads": index.leads + (1 << 22)},
        {"keys": index.keys.reshape(-1, 1)},
        {"extension_names": (1, 2)},
        {"extension_names": 3},
        {"damage": 7},
    ):
        save_index(dataclasses.replace(index, **change), path, {"size": len(data)})
        assert load_index(path, {"size": len(data)}) is None, change


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

    buffered = ReadAhead(read, 512)
    for offset, length in [(0, 10), (100, 300), (500, 100), (2040, 100), (3000, 5)]:
        assert buffered(offset, length) == data[offset : offset + length]
    assert reads == [(0, 512), (500, 512), (2040, 512), (3000, 512)]

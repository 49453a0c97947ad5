"""TAR headers: joined archives, sparse files, numbers that are none, and the same members as tarfile sees."""

import io
import tarfile
from collections.abc import Sequence

import pytest

from hypvl.io.tar import TarDamageError, TarMember, member_at, walk_tar


def tar(*members: tarfile.TarInfo, format: int = tarfile.PAX_FORMAT, junk: bytes = b"x") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as archive:
        for member in members:
            archive.addfile(member, io.BytesIO(junk * member.size))
    return out.getvalue()


def file(name: str, size: int = 3, pax: dict[str, str] | None = None) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.pax_headers = size, pax or {}
    return info


def walk(data: bytes) -> list[TarMember]:
    return list(walk_tar(lambda offset, length: data[offset : offset + length], "t.tar"))


def names(members: Sequence[TarMember]) -> list[str]:
    return [member.name for member in members]


@pytest.mark.parametrize("gap", [0, 512, 10 * 512, 1 << 17])
def test_joined_tars_are_read_on(gap: int) -> None:
    first, second = tar(file("a"), file("b")), tar(file("c", 700), file("d"))
    members = walk(first + bytes(gap) + second)
    assert names(members) == ["a", "b", "c", "d"]
    data = first + bytes(gap) + second
    assert all(data[m.offset : m.offset + m.size] == b"x" * m.size for m in members)
    assert [m.begin for m in members[:2]] == [0, 1024]
    assert members[2].begin == len(first) + gap


def test_bytes_after_the_end_that_are_not_a_tar_are_an_error() -> None:
    data = tar(file("a"))
    assert names(walk(data + bytes(300))) == ["a"]
    for junk in (b"junk" * 300, b"junk"):
        result = []
        with pytest.raises(
            TarDamageError, match=r"cut off|what follows its end mark at byte 10240 is not another TAR"
        ):
            for member in walk_tar(lambda at, n, data=data + junk: data[at : at + n], "t.tar"):
                result.append(member)
        assert names(result) == ["a"]


@pytest.mark.parametrize("size", ["²", "٣", "-1", "+3", "1_0", "9" * 5000, "1e3", ""])
def test_a_size_that_is_no_number_is_damage(size: str) -> None:
    with pytest.raises(TarDamageError, match="a length of -1 bytes"):
        walk(tar(file("a", pax={"size": size})))


def test_a_size_in_an_extended_header_counts() -> None:
    data = bytearray(tar(file("a", 3, {"size": "3"})))
    assert walk(bytes(data))[0].size == 3
    with pytest.raises(TarDamageError, match="cut off"):
        walk(tar(file("a", 3, {"size": str(1 << 61)})))


@pytest.mark.parametrize("record", ["² path=b\n", "0 path=b\n", "3 path=b\n", "-9 path=b\n", "+9 path=b\n"])
def test_records_of_no_length_are_damage(record: str) -> None:
    data = tar(file("a", 3, {"comment": "x" * 40}))
    start = data.index(b" comment=") - 2
    with pytest.raises(TarDamageError, match="damaged extended header"):
        walk(data[:start] + record.encode() + data[start + len(record.encode()) :])


def test_an_extended_header_of_many_records_takes_linear_time() -> None:
    data = tar(file("a", 3, {f"k{i}": "v" for i in range(60_000)}))
    assert names(walk(data)) == ["a"]


def test_headers_of_any_length_are_refused_not_read() -> None:
    def read(offset: int, length: int) -> bytes:
        assert length <= 1 << 20
        return header[offset : offset + length]

    long = file("././@LongLink", 1 << 33)
    long.type = tarfile.GNUTYPE_LONGNAME
    header = long.tobuf(tarfile.GNU_FORMAT)
    with pytest.raises(TarDamageError, match="a length of 8589934592 bytes"):
        list(walk_tar(read, "t.tar"))


def test_sparse_members_are_known_and_passed() -> None:
    old = file("old", 512)
    old.type = tarfile.GNUTYPE_SPARSE
    header = bytearray(old.tobuf(tarfile.GNU_FORMAT))
    header[386:410] = b"00000000000\0" + b"00000001000\0"
    header[482] = 1  # its map goes on in the next block
    header[148:156] = b" " * 8
    header[148:155] = b"%06o\0" % sum(header)
    data = bytes(header) + bytes(512) + b"y" * 512 + tar(file("after"))
    assert [(m.name, m.kind) for m in walk(data)] == [("old", "sparse"), ("after", "file")]
    pax = {"GNU.sparse.major": "1", "GNU.sparse.name": "new", "GNU.sparse.realsize": "3000000000"}
    new = file("GNUSparseFile.1/new", 512, pax)
    assert [(m.name, m.kind) for m in walk(tar(new, file("after")))] == [("new", "sparse"), ("after", "file")]


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_headers_alone_tell_the_member(format: int) -> None:
    long = "d" * 90 + "/" + "f" * 90
    data = tar(file("a", 700), file(long, 5), file("é", 9), format=format)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        expected = [(m.name, m.offset_data, m.size) for m in archive]
    members = walk(data)
    assert [(m.name, m.offset, m.size) for m in members] == expected
    for member in members:
        alone = member_at(data[member.begin : member.offset])
        assert alone == member._replace(begin=0, offset=member.offset - member.begin)
    assert member_at(b"x" * 512) is None and member_at(b"") is None and member_at(bytes(1024)) is None

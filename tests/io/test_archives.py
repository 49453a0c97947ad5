"""Archives that would write elsewhere, hold too much or are damaged."""

import bz2
import gzip
import io
import os
import tarfile
import zipfile
from pathlib import Path

import pytest

from hypvl.errors import DataError
from hypvl.io import archives
from hypvl.io.archives import Archive, UnsafeArchiveError, read_zip_member, unpack


def tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as out:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            out.addfile(entry, io.BytesIO(content))
    return path


def test_archives_are_unpacked_and_merged(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    unpack(tar(tmp_path / "a.tgz", {"s/a/1": b"one", "s/a/2": b"two"}), folder, kind="tar")
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as out:
        out.writestr("s/a/2", "new")
        out.writestr("s/b/3", "three")
    unpack(tmp_path / "b.zip", folder, kind="zip")
    (tmp_path / "c.gz").write_bytes(gzip.compress(b"four"))
    unpack(tmp_path / "c.gz", folder, kind="gz", name="c.bin")
    result = {p.relative_to(folder).as_posix(): p.read_text() for p in folder.rglob("*") if p.is_file()}
    assert result == {"s/a/1": "one", "s/a/2": "new", "s/b/3": "three", "c.bin": "four"}


def test_unsafe_and_damaged_archives(tmp_path: Path) -> None:
    folder = tmp_path / "in" / "set"
    with pytest.raises(DataError, match="unsafe to unpack"):
        unpack(tar(tmp_path / "a.tgz", {"fine": b"x", "../out": b"x"}), folder, kind="tar")
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as out:
        out.writestr("fine", "x")
        out.writestr("../out", "x")
    with pytest.raises(DataError, match=r"'\.\./out' leads out of the folder"):
        unpack(tmp_path / "b.zip", folder, kind="zip")
    (tmp_path / "c.tgz").write_bytes((tmp_path / "a.tgz").read_bytes()[:60])
    with pytest.raises(DataError, match="is damaged"):
        unpack(tmp_path / "c.tgz", folder, kind="tar")
    (tmp_path / "c.zip").write_bytes(b"no zip")
    with pytest.raises(DataError, match="is damaged"):
        unpack(tmp_path / "c.zip", folder, kind="zip")
    (tmp_path / "c.gz").write_bytes(b"no gzip")
    with pytest.raises(DataError, match="is damaged"):
        unpack(tmp_path / "c.gz", folder, kind="gz")
    assert list(folder.iterdir()) == [] and not (tmp_path / "in" / "out").exists()


def special(path: Path, *members: tarfile.TarInfo, then: dict[str, bytes] | None = None) -> Path:
    with tarfile.open(path, "w") as out:
        for member in members:
            out.addfile(member, io.BytesIO(b"x" * member.size))
        for name, content in (then or {}).items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            out.addfile(entry, io.BytesIO(content))
    return path


def member(name: str, kind: bytes, link: str = "", size: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, size
    return info


def there(folder: Path) -> dict[str, str]:
    return {p.relative_to(folder).as_posix(): p.read_text() for p in folder.rglob("*") if p.is_file()}


def test_a_long_path_of_links_leads_nowhere(tmp_path: Path) -> None:
    """Python's own filter follows links up to a path's longest length only; from there a link leads out."""
    victim = tmp_path / "victim"
    victim.write_text("mine")
    step, members, inside = "d" * 247, [], ""
    for letter in "abcdefghijklmnop":
        members += [member(inside + step, tarfile.DIRTYPE), member(inside + letter, tarfile.SYMTYPE, step)]
        inside += f"{letter}/"
    members += [
        member(inside + "l" * 254, tarfile.SYMTYPE, "../" * 16),
        member("escape", tarfile.SYMTYPE, inside + "l" * 254 + "/../../../"),
        member("hard", tarfile.LNKTYPE, "escape/victim"),
        member("hard", tarfile.REGTYPE, size=3),
    ]
    archive = special(tmp_path / "a.tar", *members, then={"escape/new": b"new"})
    with pytest.raises(UnsafeArchiveError, match="'a' is a link, a device or a sparse file"):
        unpack(archive, tmp_path / "set" / "in", kind="tar")
    assert victim.read_text() == "mine"
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a.tar", "in", "set", "victim"]


@pytest.mark.parametrize(
    "bad",
    [
        member("l", tarfile.SYMTYPE, "a"),
        member("l", tarfile.LNKTYPE, "a"),
        member("l", tarfile.FIFOTYPE),
        member("l", tarfile.CHRTYPE),
        member("l", tarfile.GNUTYPE_SPARSE),
        member("/l", tarfile.REGTYPE, size=1),
        member("a/../../l", tarfile.REGTYPE, size=1),
        member("a/../../l", tarfile.DIRTYPE),
        member("x/" * 70 + "l", tarfile.REGTYPE, size=1),
        member("a/b", tarfile.REGTYPE, size=1),
        member(".", tarfile.REGTYPE, size=1),
        member("a", tarfile.DIRTYPE),
    ],
    ids=lambda info: f"{info.type!r}-{info.name[:9]}",
)
def test_members_that_are_refused(tmp_path: Path, bad: tarfile.TarInfo) -> None:
    archive = special(tmp_path / "a.tar", member("a", tarfile.REGTYPE, size=1), bad)
    with pytest.raises(UnsafeArchiveError, match="unsafe to unpack"):
        unpack(archive, tmp_path / "set", kind="tar")
    assert there(tmp_path).keys() == {"a.tar"}


def test_links_in_a_zip_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as out:
        link = zipfile.ZipInfo("l")
        link.external_attr = 0o120777 << 16
        out.writestr(link, "/etc/passwd")
    with pytest.raises(UnsafeArchiveError, match="'l' is a link"):
        unpack(tmp_path / "a.zip", tmp_path / "set", kind="zip")


def test_a_link_in_the_folder_is_not_followed_out_of_it(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "set" / "real").mkdir(parents=True)
    (tmp_path / "set" / "out").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set" / "in").symlink_to("real")
    unpack(tar(tmp_path / "a.tgz", {"in/1": b"one"}), tmp_path / "set", kind="tar")
    assert (tmp_path / "set" / "real" / "1").read_text() == "one"
    with pytest.raises(UnsafeArchiveError, match="out: is a link that leads out of"):
        unpack(tar(tmp_path / "b.tgz", {"out/1": b"one"}), tmp_path / "set", kind="tar")
    assert not any((tmp_path / "elsewhere").iterdir())


def test_joined_archives_are_all_unpacked(tmp_path: Path) -> None:
    first, second = ({"a": b"1", "b": b"2"}, {"b": b"new", "c": b"3"})
    parts = [gzip.decompress(tar(tmp_path / "x.tgz", members).read_bytes()) for members in (first, second)]
    for name, data in {"j.tar": b"".join(parts), "j.tar.bz2": bz2.compress(b"".join(parts))}.items():
        (tmp_path / name).write_bytes(data)
        unpack(tmp_path / name, tmp_path / f"of-{name}", kind="tar")
        assert there(tmp_path / f"of-{name}") == {"a": "1", "b": "new", "c": "3"}
    (tmp_path / "junk.tar").write_bytes(parts[0] + b"junk" * 200)
    with pytest.raises(DataError, match=r"junk.tar: is damaged \(what follows its end mark at byte 10240"):
        unpack(tmp_path / "junk.tar", tmp_path / "set", kind="tar")


def test_archives_that_hold_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {f"{i}": b"\0" * 1000 for i in range(5)}
    folder = tmp_path / "set"
    for kind, archive in (("tar", tar(tmp_path / "a.tgz", files)), ("zip", tmp_path / "a.zip")):
        with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as out:
            for name, content in files.items():
                out.writestr(name, content)
        monkeypatch.setattr(archives, "MAX_UNPACKED", 4999)
        with pytest.raises(UnsafeArchiveError, match="more than 4999 bytes come out"):
            unpack(archive, folder, kind=kind)
        monkeypatch.setattr(archives, "MAX_UNPACKED", 5000)
        monkeypatch.setattr(archives, "MAX_MEMBERS", 4)
        with pytest.raises(UnsafeArchiveError, match="more than 4 members"):
            unpack(archive, folder, kind=kind)
        assert not any(folder.iterdir())
        monkeypatch.setattr(archives, "MAX_MEMBERS", 5)
        unpack(archive, tmp_path / kind, kind=kind)
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"\0" * 5000))
    monkeypatch.setattr(archives, "MAX_UNPACKED", 4999)
    with pytest.raises(UnsafeArchiveError, match="more than 4999 bytes"):
        unpack(tmp_path / "a.gz", folder, kind="gz")


@pytest.mark.parametrize("kind", ["tar", "zip", "gz"])
def test_a_bomb_is_stopped_by_what_it_grows_to(
    tmp_path: Path, kind: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hypvl.io.archives._FREE_GROWTH", 1000)
    content = bytes(2_000_000)
    bomb = tmp_path / "bomb"
    if kind == "zip":
        with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as out:
            out.writestr("a", content)
    elif kind == "tar":
        special(bomb, then={"a": content})
        bomb.write_bytes(bz2.compress(bomb.read_bytes()))
    else:
        bomb.write_bytes(gzip.compress(content))
    assert bomb.stat().st_size < 2500
    with pytest.raises(UnsafeArchiveError, match="bytes come out of"):
        unpack(bomb, tmp_path / "set", kind=kind)
    assert not any((tmp_path / "set").iterdir())


def test_a_lying_zip_and_a_cut_member(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as out:
        out.writestr("a", "content")
    data = (tmp_path / "a.zip").read_bytes()
    (tmp_path / "b.zip").write_bytes(data.replace(b"content", b"CONTENT"))
    with pytest.raises(DataError, match=r"is damaged \(Bad CRC-32"):
        unpack(tmp_path / "b.zip", tmp_path / "set", kind="zip")
    with pytest.raises(DataError, match=r"is damaged \(Bad CRC-32"):
        read_zip_member(tmp_path / "b.zip", "a")
    assert read_zip_member(tmp_path / "a.zip", "a") == b"content"
    with pytest.raises(UnsafeArchiveError, match="'a' has 7 bytes, expected at most 6"):
        read_zip_member(tmp_path / "a.zip", "a", max_bytes=6)
    cut = special(tmp_path / "c.tar", member("a", tarfile.REGTYPE, size=3000)).read_bytes()[:2000]
    (tmp_path / "c.tar").write_bytes(cut)
    with pytest.raises(DataError, match="ends 1512 bytes early"):
        unpack(tmp_path / "c.tar", tmp_path / "set", kind="tar")
    with pytest.raises(DataError, match=r"none.zip: cannot be read \(No such file"):
        unpack(tmp_path / "none.zip", tmp_path / "set", kind="zip")


def test_a_full_disk_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = tar(tmp_path / "a.tgz", {"a": b"1"})

    def full(path: Path) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("hypvl.io.archives.open_new", full)
    with pytest.raises(
        DataError, match=r"set: cannot be written \(No space left on device\); choose a folder"
    ):
        unpack(archive, tmp_path / "set", kind="tar")
    assert not any((tmp_path / "set").iterdir())


def test_names_of_members_do_not_reach_the_screen_raw(tmp_path: Path) -> None:
    with pytest.raises(UnsafeArchiveError) as caught:
        unpack(tar(tmp_path / "a.tgz", {"../\x1b]0;\x07" + "x" * 300: b""}), tmp_path / "set", kind="tar")
    assert "\x1b" not in str(caught.value) and len(str(caught.value)) < 400

import functools
import http.server
import json
import os
import pickle
import random
import threading
from pathlib import Path

import braceexpand
import numpy as np
import pytest
from loguru import logger

from hypvl.data import shards as module
from hypvl.data.mappers import GenericMapper, RedCapsMapper
from hypvl.data.sample import BadSample, PairDataset
from hypvl.data.shards import ImageTextShards, expand_shards
from hypvl.data.transforms import RandomResizedCrop, Squeeze
from hypvl.errors import DataError
from tests.data.helpers import Letters, redcaps, text_of, write_tar


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "hypvl"


def make(tarfiles, mapper=None, transform=None, **options):
    return ImageTextShards(
        tarfiles if isinstance(tarfiles, list) else str(tarfiles),
        RedCapsMapper(0.0) if mapper is None else mapper,
        Squeeze(8) if transform is None else transform,
        Letters(),
        **options,
    )


def shard(folder, name, seeds):
    folder.mkdir(exist_ok=True, parents=True)
    return write_tar(folder / name, [member for seed in seeds for member in redcaps(f"{seed:04d}", seed)])


def captions(dataset):
    return [text_of(dataset.sample(row, np.random.default_rng(0))["text"]) for row in range(len(dataset))]


def test_rows_go_through_the_shards_in_order(tmp_path):
    shard(tmp_path, "b.tar", [3, 4])
    shard(tmp_path, "a.tar", [0, 1, 2])
    dataset = make(tmp_path / "*.tar")
    assert isinstance(dataset, PairDataset)
    assert dataset.shard_sizes() == [3, 2] and len(dataset) == 5
    assert captions(dataset) == [f"caption {i}" for i in range(5)]
    sample = dataset.sample(3, np.random.default_rng(0))
    assert sample["key"] == "b.tar/0003" and sample["image"].shape == (3, 8, 8)


def test_a_sample_is_a_function_of_row_and_generator(tmp_path):
    shard(tmp_path, "a.tar", [0, 1])
    dataset = make(tmp_path / "a.tar", RedCapsMapper(0.5), RandomResizedCrop(8))
    drawn = [dataset.sample(0, np.random.default_rng(seed)) for seed in (1, 2, 3, 4, 5, 1)]
    same, again = drawn[0], drawn[-1]
    assert np.array_equal(same["image"], again["image"]) and np.array_equal(same["text"], again["text"])
    assert len({d["image"].numpy().tobytes() for d in drawn}) == 5
    assert len({text_of(d["text"]) for d in drawn}) == 2
    other = make(tmp_path / "a.tar", RedCapsMapper(0.0), RandomResizedCrop(8))
    assert np.array_equal(
        other.sample(0, np.random.default_rng(1))["image"], same["image"]
    )  # whatever the mapper


@pytest.fixture
def files(tmp_path, monkeypatch):
    for name in ("s-00.tar", "s-01.tar", "s-02.tar", "t.tar", "odd,[name].tar", "deep/er/u.tar"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ("s-*.tar", ["s-00.tar", "s-01.tar", "s-02.tar"]),
        ("s-{02..00}.tar", ["s-02.tar", "s-01.tar", "s-00.tar"]),
        ("{t,s-01}.tar", ["t.tar", "s-01.tar"]),
        ("t.tar, s-{00,02}.tar", ["t.tar", "s-00.tar", "s-02.tar"]),
        (["t.tar", "s-0[12].tar"], ["t.tar", "s-01.tar", "s-02.tar"]),
        ("{s-0[12],t}.tar", ["s-01.tar", "s-02.tar", "t.tar"]),
        ("odd,[name].tar", ["odd,[name].tar"]),
        ("**/u.tar", ["deep/er/u.tar"]),
        ("http://h/{0..1}.tar?a=*", ["http://h/0.tar?a=*", "http://h/1.tar?a=*"]),
        ("pipe:cat a,b {1,2}", ["pipe:cat a,b 1", "pipe:cat a,b 2"]),
    ],
)
def test_expand_shards(files, given, names):
    assert expand_shards(given) == names


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("none/*.tar", r"none/\*\.tar: matches no file; check dataset.tarfiles, and see hypvl docs datasets"),
        (
            "datasets/demo/train/*.tar",
            r"\.tar: matches no file; make it with hypvl demo-data",
        ),
        (["t.tar", "gone-*.tar"], r"gone-\*\.tar: matches no file"),
        ("s-{00..03}.tar", r"s-03\.tar: no such file"),
        ("deep", r"deep: is a folder; .*deep/\*\.tar"),
        ("s-{00..03.tar", "braces do not match"),
        ([], "names no shard"),
        (" ", "names no shard"),
    ],
)
def test_what_names_no_shard_is_an_error(files, given, words):
    with pytest.raises(DataError, match=words):
        len(make(given))


@pytest.mark.parametrize(
    ("pattern", "count"),
    [
        ("{0..999999999}.tar", "1000000000"),
        ("{999999999..0..2}.tar", "500000000"),
        ("{1..1000}-{1..1000}-{a,b}.tar", "2000000"),
        ("{{1..1000}{1..1000}{1..1000},x}.tar", "1000000001"),
        ("{1..2}" * 100, "far too many"),
        ("http://me:SECRET@h/{0..9999999}.tar?token=SECRET", "10000000"),
    ],
)
def test_brace_lists_have_a_limit(pattern, count):
    with pytest.raises(DataError, match=f"stands for {count} shards; expected at most 1000000") as caught:
        expand_shards(pattern)
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize("pattern", ["{" * 5000 + "}" * 5000, "{1..2", "{}}", "{0.." + "9" * 5000 + "}"])
def test_braces_that_cannot_be_read(pattern):
    with pytest.raises(DataError, match="braces do not match"):
        expand_shards([pattern])


def test_a_list_longer_than_a_name_may_be_is_a_list(files):
    assert expand_shards(",".join(["t.tar"] * 2000)) == ["t.tar"] * 2000


def test_braces_are_counted_as_they_are_expanded():
    rng = random.Random(0)
    for _ in range(3000):
        pieces = ["{", "}", ",", "a", "{1..3}", "{c..a}", "{4..1..2}", "\\{", "x"]
        pattern = "".join(rng.choice(pieces) for _ in range(9))
        try:
            counted = module._count_braces(pattern)
        except ValueError:  # also for }{, which the library takes for a pair
            continue
        assert counted == len(list(braceexpand.braceexpand(pattern))), pattern
    for pattern, count in {
        "{1..3}{a,b}": 6,
        "{a{0..9},b{0..9}}": 20,
        "{x}": 1,
        "\\{1..9\\}": 1,
        "{,a}": 2,
    }.items():
        assert module._count_braces(pattern) == count == len(list(braceexpand.braceexpand(pattern)))


def test_bad_samples_are_named(tmp_path):
    members = [
        *redcaps("good", 1),
        ("torn.jpg", redcaps("x", 2)[0][1][:200]), ("torn.json", b'{"caption": "a"}'),
        ("silent.jpg", redcaps("x", 3)[0][1]), ("silent.json", b"{}"),
        ("broken.jpg", redcaps("x", 4)[0][1]), ("broken.json", b"{"),
        *redcaps("cut", 5),
    ]  # fmt: skip
    path = write_tar(tmp_path / "a.tar", members)
    end = path.read_bytes().rindex(b'"caption 5"')
    path.write_bytes(path.read_bytes()[:end])
    dataset = make(path)
    reasons = {}
    for row in range(len(dataset)):
        try:
            dataset.sample(row, np.random.default_rng(0))
        except BadSample as bad:
            reasons[bad.key] = bad.reason
    assert len(dataset) == 5 and list(reasons) == [f"a.tar/{k}" for k in ("torn", "silent", "broken", "cut")]
    for key, words in {
        "torn": "decode",
        "silent": "caption",
        "broken": "json",
        "cut": "cut off at byte",
    }.items():
        assert words in reasons[f"a.tar/{key}"]


def test_the_index_is_kept_beside_and_built_once(tmp_path, monkeypatch):
    path = shard(tmp_path / "s", "a.tar", [0, 1])
    built = []
    monkeypatch.setattr(module, "build_index", lambda *a: built.append(a[2]) or BUILD(*a))
    make(path).prepare()
    assert [p.name for p in path.parent.iterdir() if p != path] == ["a.tar.hypvl-index"]
    assert len(make(path)) == 2 and built == [str(path)]

    shard(tmp_path / "s", "a.tar", [0, 1, 2])  # another content
    assert len(make(path)) == 3 and len(built) == 2
    before = path.stat()
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 10**9))
    assert len(make(path)) == 3 and len(built) == 3
    (tmp_path / "s" / "a.tar.hypvl-index").write_bytes(b"rubbish")
    assert len(make(path)) == 3 and len(built) == 4


BUILD = module.build_index


def test_in_a_read_only_folder_the_index_goes_to_the_users_cache(tmp_path, monkeypatch, cache):
    path = shard(tmp_path / "s", "a.tar", [0, 1])
    save = module.save_index

    def read_only(index, place: Path, identity):
        if place.parent == path.parent:  # as root a test cannot take its own rights away
            raise PermissionError(13, "Permission denied")
        save(index, place, identity)

    monkeypatch.setattr(module, "save_index", read_only)
    make(path).prepare()
    assert [p.name for p in path.parent.iterdir()] == ["a.tar"]
    assert len(list((cache / "index").iterdir())) == 1
    monkeypatch.setattr(module, "build_index", lambda *_: pytest.fail("built again"))
    assert len(make(path)) == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_the_index_of_another_user_is_neither_believed_nor_replaced(tmp_path, cache):
    path = shard(tmp_path / "s", "a.tar", [0, 1])
    make(path).prepare()
    theirs = path.with_name("a.tar.hypvl-index")
    os.chown(theirs, 12345, -1)
    assert captions(make(path)) == ["caption 0", "caption 1"]
    assert theirs.stat().st_uid == 12345 and len(list((cache / "index").iterdir())) == 1


def test_a_repr_hides_secrets(tmp_path):
    shown = repr(make("http://me:SECRET@h/a.tar?token=SECRET"))
    assert "SECRET" not in shown and "***@h/a.tar" in shown


def test_an_index_that_cannot_be_written_anywhere_is_a_warning(tmp_path, monkeypatch):
    path = shard(tmp_path / "s", "a.tar", [0, 1])
    (tmp_path / "s" / "a.tar.hypvl-index").mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(path))  # a file: no folder can be made in it
    messages: list[str] = []
    sink = logger.add(messages.append, level="WARNING", format="{message}")
    dataset = make(path)
    assert captions(dataset) == ["caption 0", "caption 1"]
    logger.remove(sink)
    assert len(messages) == 1 and "every process builds it again" in messages[0]


def test_the_fingerprint_is_of_the_data_not_of_its_place(tmp_path):
    a = make(shard(tmp_path / "1", "a.tar", [0, 1]))
    assert make(shard(tmp_path / "2", "b.tar", [0, 1])).fingerprint == a.fingerprint
    others = [
        make(shard(tmp_path / "3", "a.tar", [0, 2])),
        make(tmp_path / "1" / "a.tar", RedCapsMapper(0.5)),
        make(tmp_path / "1" / "a.tar", transform=Squeeze(9)),
        make([str(tmp_path / "1" / "a.tar")] * 2),
    ]
    assert len({a.fingerprint, *(other.fingerprint for other in others)}) == 5


def test_a_fingerprint_has_no_addresses(tmp_path):
    path = shard(tmp_path, "a.tar", [0])
    mappers = [lambda *_: {}, lambda *_: {}]
    first, second = (make(path, mapper) for mapper in mappers)
    assert first.fingerprint == second.fingerprint


def test_pickles_without_its_indexes(tmp_path):
    dataset = make(shard(tmp_path, "a.tar", range(40)))
    len(dataset)
    data = pickle.dumps(dataset)
    assert len(data) < 1500
    assert captions(pickle.loads(data))[:2] == ["caption 0", "caption 1"]


def test_http_shards_give_the_same_samples(tmp_path, cache):
    local = make(shard(tmp_path / "s", "a.tar", [0, 1, 2]))

    class Handler(http.server.SimpleHTTPRequestHandler):  # no range requests
        def log_message(self, *_):
            pass

    handler = functools.partial(Handler, directory=str(tmp_path / "s"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        remote = make(f"http://127.0.0.1:{server.server_port}/a.tar", cache_dir=tmp_path / "c")
        assert captions(remote) == captions(local)
        assert remote.fingerprint == local.fingerprint
        assert remote.sample(0, np.random.default_rng(0))["key"] == "a.tar/0000"
        with pytest.raises(DataError, match="404"):
            len(make(f"http://127.0.0.1:{server.server_port}/b.tar"))
        server.shutdown()


def test_pipes_only_when_allowed(tmp_path):
    path = shard(tmp_path / "s", "a.tar", [0, 1])
    with pytest.raises(DataError, match=r"pipe:cat .*allow_pipe"):
        len(make(f"pipe:cat {path}"))
    assert captions(make(f"pipe:cat {path}", allow_pipe=True)) == ["caption 0", "caption 1"]


def test_empty_shards(tmp_path):
    write_tar(tmp_path / "none.tar", [])
    shard(tmp_path, "some.tar", [0])
    assert captions(make(tmp_path / "*.tar")) == ["caption 0"]
    with pytest.raises(DataError, match="no samples in 1 TAR files"):
        len(make(tmp_path / "none.tar"))


def test_a_tar_that_shrinks_while_in_use_is_a_bad_sample(tmp_path):
    path = shard(tmp_path, "a.tar", [0, 1])
    dataset = make(path)
    assert len(dataset) == 2
    os.truncate(path, 1000)
    with pytest.raises(BadSample, match=r"a.tar/0001: .*the TAR has changed"):
        dataset.sample(1, np.random.default_rng(0))
    dataset = make(path)
    assert len(dataset) == 1  # indexed anew: one lost sample
    path.unlink()
    fresh = make(shard(tmp_path, "b.tar", [0]))
    assert len(fresh) == 1
    (tmp_path / "b.tar").unlink()
    with pytest.raises(BadSample, match=r"b.tar/0000: cannot be read"):
        fresh.sample(0, np.random.default_rng(0))


def test_members_far_apart_are_read_one_by_one(tmp_path):
    jpg, notes = redcaps("a", 7)
    filler = [(f"f{i}.txt", b"x" * 5000) for i in range(10)]
    dataset = make(write_tar(tmp_path / "a.tar", [jpg, *filler, notes]))
    assert text_of(dataset.sample(0, np.random.default_rng(0))["text"]) == "caption 7"


def test_generic_shards(tmp_path):
    image = redcaps("a", 7)[0][1]
    notes = json.dumps({"caption": "two"}).encode()
    members = [("x/1.png", image), ("x/1.txt", b"one"), ("x/2.jpeg", image), ("x/2.json", notes)]
    assert captions(make(write_tar(tmp_path / "a.tar", members), GenericMapper())) == ["one", "two"]

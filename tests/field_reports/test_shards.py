"""TAR files as people have them."""

import json
import multiprocessing
import os
import shutil
import signal
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hypvl.data.loader import Loader
from hypvl.data.mappers import GenericMapper
from hypvl.data.sample import BadSample
from hypvl.data.shards import ImageTextShards
from hypvl.data.transforms import Squeeze
from tests.data.helpers import Letters, encode, jpeg, text_of, write_tar

ODD_FOLDERS = [
    "with space",
    "münchen 山",
    "run#1",
    "lr=0.1,wd=2",
    "v[1]",
    "v{1}",
    "100%",
    "a'b\"c",
    "~tilde",
    "-dash",
]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def shards(tarfiles: object, **options: object) -> ImageTextShards:
    given = [str(place) for place in tarfiles] if isinstance(tarfiles, list) else str(tarfiles)
    return ImageTextShards(given, GenericMapper(), Squeeze(8), Letters(), **options)  # type: ignore[arg-type]


def pair(name: str, caption: str, seed: int = 0) -> list[tuple[str, bytes]]:
    return [(f"{name}.jpg", jpeg(seed)), (f"{name}.txt", caption.encode())]


def read(dataset: ImageTextShards) -> list[tuple[str, str]]:
    """(key, caption) of every row."""
    samples = [dataset.sample(row, np.random.default_rng(0)) for row in range(len(dataset))]
    return [(sample["key"], text_of(sample["text"])) for sample in samples]


def test_upper_case_extensions_are_extensions(tmp_path: Path) -> None:
    """webdataset: `0.JPG` with `0.TXT` is skipped as it has no `jpg`; extensions must match in any case."""
    write_tar(
        tmp_path / "a.tar",
        [("0.JPG", jpeg(0)), ("0.TXT", b"loud"), ("1.Jpeg", jpeg(1)), ("1.Json", b'{"caption": "mixed"}')],
    )
    assert read(shards(tmp_path / "a.tar")) == [("a.tar/0", "loud"), ("a.tar/1", "mixed")]


def test_upper_case_keys_stay_apart(tmp_path: Path) -> None:
    """webdataset: keys that differ in case only are merged or lost; `A` and `a` must be two samples."""
    write_tar(tmp_path / "a.tar", [*pair("A", "upper"), *pair("a", "lower")])
    assert read(shards(tmp_path / "a.tar")) == [("a.tar/A", "upper"), ("a.tar/a", "lower")]


def test_dots_in_names_follow_the_convention_and_are_told(tmp_path: Path) -> None:
    """webdataset: `img.v2.jpg` has the key `img`, so such samples vanish silently; each must be named."""
    write_tar(tmp_path / "a.tar", [*pair("img.v2", "lost"), *pair("plain", "kept")])
    dataset = shards(tmp_path / "a.tar")
    with pytest.raises(BadSample, match=r"a\.tar/img: missing txt or json \(it has v2\.jpg, v2\.txt\)"):
        dataset.sample(0, np.random.default_rng(0))
    assert text_of(dataset.sample(1, np.random.default_rng(0))["text"]) == "kept"


def test_dots_in_folders_belong_to_the_key(tmp_path: Path) -> None:
    """webdataset: a dot in a folder's name cuts keys there; only dots of the file's name may."""
    write_tar(tmp_path / "a.tar", [*pair("./cc3m.v1/x.y/0", "one"), *pair("cc3m.v1/x.z/0", "two")])
    assert read(shards(tmp_path / "a.tar")) == [
        ("a.tar/cc3m.v1/x.y/0", "one"),
        ("a.tar/cc3m.v1/x.z/0", "two"),
    ]


def test_files_of_macos_are_no_samples(tmp_path: Path) -> None:
    """webdataset: TARs packed on a Mac hold `._` copies and .DS_Store, which count as broken samples; they must not."""
    members = [
        ("._.", b"x"),
        (".DS_Store", b"x"),
        ("set/._0.jpg", b"AppleDouble"),
        ("set/._0.txt", b"\x00\x05"),
    ]
    write_tar(
        tmp_path / "a.tar",
        [*members, *pair("set/0", "real"), ("set/.DS_Store", b"x"), ("__MACOSX/set/._0.jpg", b"x")],
    )
    assert read(shards(tmp_path / "a.tar")) == [("a.tar/set/0", "real")]


def test_directory_members_and_nested_folders(tmp_path: Path) -> None:
    """webdataset: `tar cf x.tar folder` has members for folders and equal names in several; none may be mixed up."""
    for folder, caption in (("a/deep", "first"), ("b/deep", "second")):
        (tmp_path / "in" / folder).mkdir(parents=True)
        for name, content in pair("0", caption):
            (tmp_path / "in" / folder / name).write_bytes(content)
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for folder in ("a", "b"):
            tar.add(tmp_path / "in" / folder, folder)
    assert sorted(read(shards(tmp_path / "a.tar"))) == [
        ("a.tar/a/deep/0", "first"),
        ("a.tar/b/deep/0", "second"),
    ]


def test_members_in_any_order(tmp_path: Path) -> None:
    """webdataset: TARs that are not sorted by name give halves of samples; members must find their sample."""
    members = [*pair("0", "zero", 0), *pair("1", "one", 1)]
    write_tar(tmp_path / "a.tar", [members[0], members[2], members[3], members[1]])
    assert read(shards(tmp_path / "a.tar")) == [("a.tar/0", "zero"), ("a.tar/1", "one")]


def test_the_same_key_twice_is_two_samples(tmp_path: Path) -> None:
    """webdataset: "duplicate file name in tar file" ends the epoch; a key that comes again must be another sample."""
    write_tar(tmp_path / "a.tar", [*pair("0", "first", 0), *pair("0", "second", 1)])
    assert read(shards(tmp_path / "a.tar")) == [("a.tar/0", "first"), ("a.tar/0", "second")]


def test_a_png_called_jpg(tmp_path: Path) -> None:
    """img2dataset: what was downloaded as .jpg is often PNG, WebP or GIF; the content must be read, exactly."""
    for format in ("PNG", "GIF"):
        write_tar(
            tmp_path / f"{format}.tar",
            [("0.jpg", encode(Image.new("RGB", (9, 9), (200, 0, 0)), format)), ("0.txt", b"red")],
        )
        image = shards(tmp_path / f"{format}.tar").sample(0, np.random.default_rng(0))["image"]
        assert image.flatten(1).unique(dim=1).flatten().tolist() == [200, 0, 0]


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ([("0.jpg", b""), ("0.txt", b"a")], "image: cannot decode"),
        ([("0.jpg", jpeg(0)[:400]), ("0.txt", b"a")], "image: cannot decode"),
        ([("0.jpg", jpeg(0)), ("0.txt", b"")], "empty caption"),
        ([("0.jpg", jpeg(0)), ("0.txt", b" \n\t ")], "empty caption"),
        ([("0.jpg", jpeg(0)), ("0.txt", b"caf\xe9")], "txt is not UTF-8"),
        ([("0.jpg", jpeg(0)), ("0.json", b"")], "broken json"),
        ([("0.jpg", jpeg(0)), ("0.json", b'{"caption": null}')], "missing caption"),
        ([("0.jpg", jpeg(0)), ("0.json", b'{"caption": 3}')], "caption is int, expected text"),
        ([("0.jpg", jpeg(0)), ("0.json", b'["a"]')], "json is a list, expected an object"),
        ([("0.jpg", jpeg(0))], r"missing txt or json \(it has jpg\)"),
        ([("0.txt", b"a")], r"missing image \(it has txt\)"),
    ],
)
def test_one_bad_sample_is_replaced_and_named(
    tmp_path: Path, members: list[tuple[str, bytes]], reason: str
) -> None:
    """webdataset: one empty or cut-off member ends training after days; it must be replaced, counted, and named."""
    write_tar(tmp_path / "a.tar", [*members, *pair("1", "good")])
    dataset = shards(tmp_path / "a.tar", max_bad_fraction=1.0)
    with pytest.raises(BadSample, match=f"a.tar/0: {reason}"):
        dataset.sample(0, np.random.default_rng(0))
    loader = Loader(dataset, global_batch_size=2, rank=0, world_size=1, num_workers=0, seed=0)
    batch = next(loader)
    assert batch["key"] == ["a.tar/1"] * 2
    assert {key for key, _ in batch["bad"]} == {"a.tar/0"}


def test_lists_of_captions(tmp_path: Path) -> None:
    """open_clip: a list under `caption` is tokenised as its repr; one of its texts must be drawn, each at times."""
    write_tar(
        tmp_path / "a.tar", [("0.jpg", jpeg(0)), ("0.json", json.dumps({"caption": ["one", "two"]}).encode())]
    )
    dataset = shards(tmp_path / "a.tar")
    drawn = {text_of(dataset.sample(0, np.random.default_rng(seed))["text"]) for seed in range(12)}
    assert drawn == {"one", "two"}


@pytest.mark.parametrize("name", ODD_FOLDERS)
def test_odd_folders(tmp_path: Path, name: str) -> None:
    """MERU: a glob in a folder with brackets, spaces or signs finds nothing; a path that exists must be opened."""
    folder = tmp_path / name
    folder.mkdir()
    write_tar(folder / "0.tar", pair("0", "found"))
    assert read(shards(folder / "0.tar")) == [("0.tar/0", "found")]
    assert read(shards([folder / "0.tar"])) == [("0.tar/0", "found")]


def test_links_trailing_slashes_and_relative_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """webdataset: shards behind symbolic links or `//` are missed by globs; they must be found, in order of name."""
    (tmp_path / "real").mkdir()
    for i in range(2):
        write_tar(tmp_path / "real" / f"{i}.tar", pair(str(i), f"caption {i}"))
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat" / "x.tar").symlink_to(tmp_path / "real" / "1.tar")
    both = [("0.tar/0", "caption 0"), ("1.tar/1", "caption 1")]
    assert read(shards(f"{tmp_path}/link/*.tar")) == both
    assert read(shards(f"{tmp_path}/real//*.tar")) == both
    assert read(shards(f"{tmp_path}/link/../real/{{0..1}}.tar")) == both
    assert read(shards(tmp_path / "flat" / "x.tar")) == [("x.tar/1", "caption 1")]
    monkeypatch.chdir(tmp_path / "link")
    assert read(shards("./*.tar")) == both
    assert read(shards("../real/0.tar")) == both[:1]


def test_a_moved_data_set_stays_the_same_data(tmp_path: Path) -> None:
    """webdataset: moved shards are read in another order on resume; order and fingerprint must stay."""
    (tmp_path / "a").mkdir()
    for i in range(3):
        write_tar(
            tmp_path / "a" / f"{i}.tar", [m for k in range(4) for m in pair(f"{i}{k}", f"caption {i}{k}")]
        )
    before = shards(f"{tmp_path}/a/*.tar")
    first = [build(before)["key"], before.fingerprint]
    shutil.move(tmp_path / "a", tmp_path / "elsewhere")
    after = shards(f"{tmp_path}/elsewhere/*.tar")
    assert [build(after)["key"], after.fingerprint] == first


def build(dataset: ImageTextShards) -> dict[str, list[str]]:
    return next(Loader(dataset, global_batch_size=8, rank=0, world_size=1, num_workers=0, seed=3))  # type: ignore[return-value]


def test_fewer_shards_than_readers(tmp_path: Path) -> None:
    """webdataset: one shard for 2 ranks x 2 workers leaves some waiting for ever; each must get its share."""
    write_tar(tmp_path / "a.tar", [m for i in range(8) for m in pair(f"{i}", f"caption {i}", i)])
    keys = []
    for rank in range(2):
        with Loader(
            shards(tmp_path / "a.tar"), global_batch_size=4, rank=rank, world_size=2, num_workers=2, seed=0
        ) as loader:
            keys += [key for _ in range(2) for key in next(loader)["key"]]
    assert sorted(keys) == [f"a.tar/{i}" for i in range(8)]  # an epoch over both ranks, nothing twice


def test_a_batch_larger_than_the_data(tmp_path: Path) -> None:
    """open_clip: a batch larger than the data set gives no batch at all and an endless loop; it must be filled up."""
    write_tar(tmp_path / "a.tar", [m for i in range(3) for m in pair(f"{i}", f"caption {i}", i)])
    batch = build(shards(tmp_path / "a.tar"))
    assert len(batch["key"]) == 8
    assert sorted(batch["key"].count(f"a.tar/{i}") for i in range(3)) == [2, 3, 3]


def test_the_last_samples_are_not_dropped(tmp_path: Path) -> None:
    """open_clip: the incomplete last batch of an epoch is dropped, the same samples each time; all must be seen."""
    write_tar(tmp_path / "a.tar", [m for i in range(5) for m in pair(f"{i}", f"caption {i}", i)])
    with Loader(
        shards(tmp_path / "a.tar"), global_batch_size=2, rank=0, world_size=1, num_workers=0, seed=0
    ) as loader:
        keys = [key for _ in range(5) for key in next(loader)["key"]]  # two epochs
    assert [sorted(keys[:5]), sorted(keys[5:])] == [[f"a.tar/{i}" for i in range(5)]] * 2


def test_long_and_foreign_names(tmp_path: Path) -> None:
    """webdataset: names beyond 100 bytes or ASCII are cut; keys must come whole, in any TAR dialect."""
    name = "山/" + "sehr-langer-name-" * 12 + "ü"
    for dialect in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        place = write_tar(tmp_path / f"{dialect}.tar", pair(name, "long"), format=dialect)
        assert read(shards(place)) == [(f"{dialect}.tar/{name}", "long")]


def test_signals_to_all_processes_do_not_end_the_readers(tmp_path: Path) -> None:
    """open_clip: `timeout` and job schedulers signal the workers too, which die and end the run; they must read on."""
    write_tar(tmp_path / "a.tar", [m for i in range(8) for m in pair(f"{i}", f"caption {i}", i)])

    def keys(*signals: signal.Signals) -> list[str]:
        with Loader(
            shards(tmp_path / "a.tar"), global_batch_size=2, rank=0, world_size=1, num_workers=2, seed=0
        ) as loader:
            result = list(next(loader)["key"])
            for number in signals:
                for worker in multiprocessing.active_children():
                    os.kill(worker.pid, number)  # type: ignore[arg-type]
            return result + [key for _ in range(9) for key in next(loader)["key"]]

    assert keys(signal.SIGTERM, signal.SIGINT) == keys()

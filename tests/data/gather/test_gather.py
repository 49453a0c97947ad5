"""Lists of captions and addresses become shards that training reads, whatever the servers do."""

import dataclasses
import io
import json
import os
import signal
import socket
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hypvl.cli import gather_pairs as command
from hypvl.data.gather.fetch import FetchError, FetchOptions, fetch, fetch_all
from hypvl.data.gather.pair_list import ListOptions, choose_rows, open_list
from hypvl.data.gather.run import Plan, gather_pairs
from hypvl.data.gather.shard import ImageSettings, prepare_image
from hypvl.data.mappers import GenericMapper
from hypvl.data.shards import ImageTextShards
from hypvl.data.table import ImageTextTable
from hypvl.data.transforms import RandomResizedCrop
from hypvl.errors import ConfigError, DataError
from tests.data.gather.server import LARGE, serving
from tests.data.helpers import Letters, encode, jpeg, text_of, write_tar

QUICK = FetchOptions(threads=8, per_host=8, timeout=0.3, attempts=2, max_bytes=100_000)
PATHS = {
    "/good/0": None, "/large": None, "/nothing": "HTTP 404", "/png": None, "/html": "no image", "/torn": "no image",
    "/cut": "cut off", "/huge": "too large", "/noai": "opted out", "/moved": None, "/circle": "bad redirect",
    "/file": "bad redirect", "/busy": None, "/slow": "too slow",
}  # fmt: skip


@pytest.fixture(scope="module")
def site():
    with serving() as made:
        yield made


@pytest.fixture
def listed(site, tmp_path):
    """A list as Conceptual Captions writes it, with a quotation mark, and a row that is none."""
    lines = [f'the "{path}" of a dog\t{site.url}{path}' for path in PATHS]
    lines += ["no address\tftp://somewhere/a.jpg", "one field", f"\t{site.url}/good/9"]
    path = tmp_path / "pairs.tsv"
    path.write_text("\n".join(lines) + "\n")
    return path


def members(path):
    with tarfile.open(path) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive}


def test_what_servers_do_is_counted_by_reason(listed, tmp_path):
    out = tmp_path / "out"
    summary = gather_pairs(Plan(ListOptions(listed), ImageSettings(size=40), QUICK, per_shard=10), out)
    wanted = {}
    for reason in filter(None, PATHS.values()):
        wanted[reason] = wanted.get(reason, 0) + 1
    assert summary.reasons == {**wanted, "bad row": 3}
    assert (summary.pairs, summary.written, summary.shards) == (17, 5, 2)
    failures = [json.loads(line) for n in (0, 1) for line in (out / f"failures/0000{n}.jsonl").open()]
    assert {entry["row"]: entry["reason"] for entry in failures} == {
        **{i: reason for i, reason in enumerate(PATHS.values()) if reason}, **dict.fromkeys((14, 15, 16), "bad row"),
    }  # fmt: skip
    assert [entry["detail"] for entry in failures[-3:]] == [
        "no http(s) address", "another number of fields than the first line", "no caption",
    ]  # fmt: skip
    first = members(out / "00000.tar")
    assert list(first) == [f"{row:09d}.{kind}" for row in (0, 1, 3, 9) for kind in ("jpg", "txt", "json")]
    assert first["000000001.txt"] == b'the "/large" of a dog'
    assert first["000000000.jpg"] == jpeg(0, width=30, height=20)  # small enough: byte for byte
    assert Image.open(io.BytesIO(first["000000001.jpg"])).size == (53, 40)  # the shorter side
    notes = json.loads(first["000000001.json"])
    assert (notes["width"], notes["original_width"], notes["row"]) == (53, 80, 1)


def test_training_reads_both_layouts(site, tmp_path):
    good, listed = ("/good/0", "/large", "/png", "/moved"), tmp_path / "pairs.tsv"
    listed.write_text(
        "".join(f'the "{path}" of a dog\t{site.url}{path}\n' for path in (*good[:2], "/torn", *good[2:]))
    )
    plan = Plan(ListOptions(listed), ImageSettings(size=40), QUICK, per_shard=4)
    gather_pairs(plan, tmp_path / "tar")
    shards = ImageTextShards(str(tmp_path / "tar/*.tar"), GenericMapper(), RandomResizedCrop(8), Letters())
    captions = [text_of(shards.sample(row, np.random.default_rng(0))["text"]) for row in range(len(shards))]
    assert captions == [f'the "{path}" of a dog' for path in good]
    gather_pairs(Plan(plan.source, plan.images, QUICK, layout="folder", per_shard=4), tmp_path / "folder")
    table = ImageTextTable(
        tmp_path / "folder/pairs.tsv", image_transform=RandomResizedCrop(8), tokenizer=Letters()
    )
    samples = [table.sample(row, np.random.default_rng(0)) for row in range(len(table))]
    assert [text_of(sample["text"]) for sample in samples] == captions
    assert (tmp_path / "folder/images/00000/000000001.jpg").is_file()


def test_a_run_goes_on_with_what_is_missing(site, tmp_path):
    path = tmp_path / "pairs.tsv"
    path.write_text("".join(f"a dog {i}\t{site.url}/good/{i}\n" for i in range(9)))
    plan = Plan(ListOptions(path), fetching=QUICK, per_shard=3)
    whole = gather_pairs(plan, tmp_path / "a")
    bytes_of = {file.name: file.read_bytes() for file in (tmp_path / "a").glob("*.tar")}
    (tmp_path / "a" / "00001.tar").unlink()
    site.asked.clear()
    again = gather_pairs(plan, tmp_path / "a")
    assert sorted(site.asked) == ["/good/3", "/good/4", "/good/5"]
    assert (again.pairs, again.written) == (whole.pairs, whole.written) == (9, 9)
    assert {file.name: file.read_bytes() for file in (tmp_path / "a").glob("*.tar")} == bytes_of
    with pytest.raises(DataError, match="other settings"):
        gather_pairs(Plan(ListOptions(path), ImageSettings(size=99), QUICK, per_shard=3), tmp_path / "a")


@pytest.mark.slow
def test_a_killed_run_continues(site, tmp_path):
    path = tmp_path / "pairs.tsv"
    path.write_text("".join(f"a dog {i}\t{site.url}/good/{i}\n" for i in range(40)))
    words = [
        "gather-pairs",
        str(path),
        "--output-dir",
        str(tmp_path / "out"),
        "--per-shard",
        "4",
        "--threads",
        "2",
    ]
    site.hold, site.most = 0.05, 0
    try:
        process = subprocess.Popen([sys.executable, "-m", "hypvl", *words], env=os.environ)
        end = time.monotonic() + 60
        while not (tmp_path / "out/00002.tar").exists() and time.monotonic() < end:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
    finally:
        site.hold = 0.0
    done = sorted(file.name for file in (tmp_path / "out").glob("*.tar"))
    assert 3 <= len(done) < 10
    site.asked.clear()
    assert command.main([*words[1:], "--quiet"]) == 0
    assert len(list((tmp_path / "out").glob("*.tar"))) == 10
    assert sum(site.asked.values()) <= 4 * (10 - len(done))


def test_few_at_a_time_from_one_host(site):
    site.hold, site.most = 0.03, 0
    options = FetchOptions(threads=12, per_host=3, timeout=2.0)
    try:
        urls = [f"{site.url}/good/{i}" for i in range(12)]
        results = dict(fetch_all(urls, options, lambda number, content: (number, len(content))))
    finally:
        site.hold = 0.0
    assert site.most == 3
    assert [results[i][0] for i in range(12)] == list(range(12))


def test_what_may_pass_is_tried_again_and_other_failures_are_not(site):
    site.asked.clear()
    urls = [site.url + path for path in ("/busy?again", "/nothing", "/cut")]
    results = dict(fetch_all(urls, QUICK, lambda _, content: content, backoff=0.01))
    assert results[0] == LARGE
    assert (results[1].reason, results[2].reason) == ("HTTP 404", "cut off")
    assert dict(site.asked) == {"/busy?again": 2, "/nothing": 1, "/cut": 2}


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/a.jpg", "/etc/passwd", "http://[::1"])
def test_only_the_web_is_asked(url):
    with pytest.raises(FetchError) as caught:
        fetch(url, QUICK)
    assert caught.value.reason == "refused"


def test_an_error_of_the_disk_ends_the_run(site):
    def full(number, content):
        raise OSError(28, "no space left")

    with pytest.raises(OSError, match="no space left"):
        list(fetch_all([f"{site.url}/good/{i}" for i in range(20)], QUICK, full))


def test_images_are_kept_or_made_smaller():
    small = jpeg(0, width=30, height=20)
    assert prepare_image(small, ImageSettings(size=20)).jpeg == small
    made = prepare_image(small, ImageSettings(size=10, quality=80))
    assert (made.width, made.height) == Image.open(io.BytesIO(made.jpeg)).size == (15, 10)
    upright = prepare_image(turned(small), ImageSettings(size=100))
    assert (upright.width, upright.height) == (20, 30)
    assert Image.open(io.BytesIO(upright.jpeg)).getexif().get(0x0112) is None
    with pytest.raises(FetchError, match="too small"):
        prepare_image(small, ImageSettings(min_side=21))
    with pytest.raises(FetchError, match="too long"):
        prepare_image(small, ImageSettings(max_aspect_ratio=1.4))
    prepare_image(small, ImageSettings(max_aspect_ratio=1.5))


def turned(data):
    image = Image.open(io.BytesIO(data))
    exif = image.getexif()
    exif[0x0112] = 6
    return encode(image, "JPEG", exif=exif)


def test_lists_of_every_kind_give_the_same_pairs(tmp_path):
    pairs = [(f'dog "{i}"', f"https://h/{i}.jpg") for i in range(5)]
    (tmp_path / "a.tsv").write_text("".join(f"{caption}\t{url}\n" for caption, url in pairs))
    (tmp_path / "b.csv").write_text(
        "url,caption\n"
        + "".join('{},"{}"\n'.format(url, caption.replace('"', '""')) for caption, url in pairs)
    )
    (tmp_path / "c.jsonl").write_text("".join(json.dumps({"URL": u, "TEXT": c}) + "\n" for c, u in pairs))
    parquet = pytest.importorskip("pyarrow.parquet", reason="Parquet needs pyarrow")
    import pyarrow

    table = pyarrow.table({"link": [u for _, u in pairs], "TEXT": [c for c, _ in pairs]})
    parquet.write_table(table, tmp_path / "d.parquet", row_group_size=2)
    for name, options in (
        ("a.tsv", {}),
        ("b.csv", {}),
        ("c.jsonl", {}),
        ("d.parquet", {"url_column": "link"}),
    ):
        found = open_list(ListOptions(tmp_path / name, **options))
        assert len(found) == 5
        assert [(pair.caption, pair.url) for pair in found.read([0, 2, 3, 4])] == [
            pairs[i] for i in (0, 2, 3, 4)
        ]
    with pytest.raises(
        DataError, match=r"no column 'url' or 'URL' or 'image_url'; it has link, TEXT; set --url-column"
    ):
        open_list(ListOptions(tmp_path / "d.parquet"))
    with pytest.raises(DataError, match="so it has no header"):
        open_list(ListOptions(tmp_path / "a.tsv", url_column="url"))


def test_a_subset_is_the_same_every_time(tmp_path):
    rows = choose_rows(1000, subset=10, seed=3)
    assert rows.tolist() == [31, 42, 61, 80, 607, 710, 732, 756, 923, 978]
    assert choose_rows(1000, subset=10, seed=4).tolist() != rows.tolist()
    assert set(rows) <= set(choose_rows(1000, subset=20, seed=3))  # a larger one has the smaller one in it
    with pytest.raises(DataError, match="--subset: got 11, but the list has 10 rows"):
        choose_rows(10, subset=11, seed=0)


def test_the_command_prints_a_summary(listed, tmp_path, capsys):
    words = [
        str(listed),
        "--output-dir",
        str(tmp_path / "out"),
        "--subset",
        "8",
        "--seed",
        "1",
        "--timeout",
        "0.3",
    ]
    assert command.main([*words, "--attempts", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "of 8 pairs written" in lines[0]
    assert lines[-1].startswith("each failed address: failures/")
    assert command.main([*words, "--attempts", "1", "--quiet"]) == 0
    assert capsys.readouterr().out == ""
    with pytest.raises(
        ConfigError, match=r"--quality: got 101; expected a whole number of at least 1 and up to 100"
    ):
        command.main([*words, "--quality", "101"])


def test_a_shard_without_a_network_is_not_finished(site, tmp_path, capsys):
    path, out = tmp_path / "pairs.tsv", tmp_path / "out"
    with socket.create_server(("127.0.0.1", 0)) as unused:
        nobody = f"http://127.0.0.1:{unused.getsockname()[1]}"
    urls = [
        f"{nobody}/0",
        f"{nobody}/1",
        f"{site.url}/good/2",
        *(f"{site.url}/good/{i}" for i in range(3, 6)),
    ]
    path.write_text("".join(f"a dog\t{url}\n" for url in urls))
    words = [str(path), "--output-dir", str(out), "--per-shard", "3", "--attempts", "1"]
    assert command.main(words) == 1
    assert "00000: 2 of 3 addresses gave no connection; check the network" in capsys.readouterr().err
    assert [file.name for file in out.glob("*.tar")] == ["00001.tar"]
    few = dataclasses.replace(QUICK, attempts=1)
    whole = gather_pairs(Plan(ListOptions(path), fetching=few, per_shard=6), tmp_path / "whole")
    assert (whole.written, dict(whole.reasons)) == (
        4,
        {"no connection": 2},
    )  # a third: dead hosts of an old list


def test_secrets_of_addresses_are_not_kept(site, tmp_path):
    path = tmp_path / "pairs.tsv"
    path.write_text(f"a\t{site.url}/good/1?token=abcdef\nb\t{site.url}/nothing?X-Amz-Signature=abcdef\n")
    gather_pairs(Plan(ListOptions(path), fetching=QUICK), tmp_path / "out")
    everything = b"".join(file.read_bytes() for file in Path(tmp_path / "out").rglob("*") if file.is_file())
    assert b"token=***" in everything and b"Signature=***" in everything and b"abcdef" not in everything


def test_what_img2dataset_writes_is_read_as_it_is(tmp_path):
    """Its ``webdataset`` format: jpg, txt and json in a TAR, with a Parquet and a JSON file beside it."""
    notes = {
        "url": "https://h/0.jpg", "caption": "a dog", "key": "000000000", "status": "success", "error_message": None,
        "width": 30, "height": 20, "original_width": 300, "original_height": 200, "exif": "{}", "sha256": "00",
    }  # fmt: skip
    members = [
        ("000000000.jpg", jpeg(0)),
        ("000000000.txt", b"a dog"),
        ("000000000.json", json.dumps(notes).encode()),
    ]
    write_tar(tmp_path / "00000.tar", members)
    (tmp_path / "00000.parquet").write_bytes(b"PAR1")
    (tmp_path / "00000_stats.json").write_text("{}")
    for pattern in ("*.tar", "{00000..00000}.tar"):
        for key in (None, "caption"):
            shards = ImageTextShards(
                str(tmp_path / pattern), GenericMapper(caption_key=key), RandomResizedCrop(8), Letters()
            )
            assert text_of(shards.sample(0, np.random.default_rng(0))["text"]) == "a dog"

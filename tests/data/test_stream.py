"""Streams: full batches for every reader, whatever the shards; resumed at the next shards."""

import collections
import http.server
import threading

import pytest

from hypvl.config import LazyConfig, instantiate
from hypvl.data import stream as module
from hypvl.data.loader import Loader
from hypvl.data.mappers import GenericMapper
from hypvl.data.mix import MixedSources
from hypvl.data.shards import ImageTextShards
from hypvl.data.stream import MixedStreams, Reader, WebDatasetStream
from hypvl.data.stream_loader import StreamLoader, open_loader
from hypvl.data.transforms import RandomResizedCrop
from hypvl.errors import ConfigError, DataError
from tests.data.gather.server import serving
from tests.data.helpers import Letters, write_tar
from tests.data.test_mix import members

SHARDS, PER_SHARD = 4, 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stream")
    for i in range(SHARDS):
        write_tar(folder / f"a{i}.tar", members("a", range(i * PER_SHARD, (i + 1) * PER_SHARD)))
    write_tar(folder / "b.tar", members("b", range(5)))
    return folder


def stream(tarfiles, **options):
    given = {"samples_per_epoch": 24, "shuffle_window": 5, "max_bad_fraction": 0.5, **options}
    return WebDatasetStream(tarfiles, GenericMapper(), RandomResizedCrop(8), Letters(), **given)


def loader(dataset, *, rank=0, world_size=1, num_workers=0, batch=4, **options):
    return StreamLoader(
        dataset,
        global_batch_size=batch,
        rank=rank,
        world_size=world_size,
        num_workers=num_workers,
        seed=3,
        **options,
    )


def read(dataset, batches, *, world_size=1, state=None, **options):
    """(key, crop) of each sample by rank, positions, bad ones, and the state of all ranks."""
    samples, positions, bad, places = [], [], [], []
    for rank in range(world_size):
        with loader(dataset, rank=rank, world_size=world_size, **options) as one:
            if state is not None:
                one.check_resume(state)
                one.resume(state)
            for _ in range(batches):
                batch = next(one)
                assert len(batch["key"]) == one.batch_size
                images = [image.numpy().tobytes() for image in batch["image"]]
                samples += zip(batch["key"], images, strict=True)
                positions += batch["position"].tolist()
                bad += batch["bad"]
            places.append(one.places())
            after = one.state(batches * 4)
    return samples, sorted(positions), bad, {**after, "places": places}


def keys_of(folder):
    return {f"a{i}.tar/{i * PER_SHARD + j:04d}" for i in range(SHARDS) for j in range(PER_SHARD)}


def test_an_epoch_has_every_sample_once(folder):
    dataset = stream(str(folder / "a*.tar"))
    samples, positions, bad, _ = read(dataset, 12)
    keys = [key for key, _ in samples]
    assert positions == list(range(48)) and not bad
    assert set(keys) == keys_of(folder) and max(collections.Counter(keys).values()) <= 3
    first = keys[: len(keys) // 2 - 5]
    assert len(set(first)) == len(first)  # but for what the buffer holds, one epoch after the other
    assert first != sorted(first)
    assert read(dataset, 12)[0] == samples  # the same seed, the same samples and crops
    assert [key for key, _ in read(stream(str(folder / "a*.tar"), shuffle_window=1), 2)[0]] != keys[:8]


@pytest.mark.parametrize(("world_size", "num_workers"), [(2, 0), (1, 2), (2, 2)])
def test_readers_share_the_shards_and_every_batch_is_full(folder, world_size, num_workers):
    dataset = stream(str(folder / "a*.tar"), shuffle_window=1)
    options = {"num_workers": num_workers, "start_method": "fork"} if num_workers else {}
    samples, positions, _, state = read(dataset, 4, world_size=world_size, **options)
    assert positions == list(range(16))
    assert len({key for key, _ in samples}) == 16  # no reader reads what another one does
    assert len([place for rank in state["places"] for place in rank]) == world_size * max(1, num_workers)


def test_more_readers_than_shards(folder):
    samples, positions, _, _ = read(stream(str(folder / "b.tar")), 6, world_size=4)
    assert positions == list(range(24))
    assert {key for key, _ in samples} == {f"b.tar/{i:04d}" for i in range(5)}


def test_a_run_goes_on_with_the_next_shards(folder):
    dataset = stream(str(folder / "a*.tar"), shuffle_window=1)
    whole, *_ = read(dataset, 18)
    first, _, _, state = read(dataset, 4)  # 16 samples: two shards, and four of six samples of the third
    assert state["places"] == [[3]]
    rest, *_ = read(dataset, 4, state=state, consumed=16)
    assert rest == whole[18:34]  # the fourth shard; the two samples before it are left out
    assert first == whole[:16]


def test_other_readers_begin_behind_the_earliest(folder):
    dataset = stream(str(folder / "a*.tar"), shuffle_window=1)
    *_, state = read(dataset, 4, world_size=2)
    assert state["places"] == [[4], [5]]  # eight samples each: of two shards
    whole, *_ = read(dataset, 12)
    rest, *_ = read(dataset, 6, state=state, consumed=16)
    assert rest == whole[24:]  # the shard with number 4 is the first of the second epoch


def test_resuming_other_data_or_rows_is_refused(folder):
    dataset = stream(str(folder / "a*.tar"))
    *_, state = read(dataset, 1)
    with loader(stream(str(folder / "b.tar"))) as other, pytest.raises(DataError, match="as a fingerprint"):
        other.check_resume(state)
    del state["places"]
    with loader(dataset) as other, pytest.raises(DataError, match="by rows, not as a stream"):
        other.check_resume(state)


def test_bad_samples_are_left_out_and_counted(folder, tmp_path):
    write_tar(tmp_path / "0.tar", members("a", range(6), broken=[2]))
    data = (folder / "a1.tar").read_bytes()
    (tmp_path / "1.tar").write_bytes(data[: len(data) // 2])
    dataset = stream(str(tmp_path / "*.tar"))
    with loader(dataset) as one:
        bad = [entry for _ in range(4) for entry in next(one)["bad"]]
        assert one.bad.bad == len(bad)
    reasons = dict(bad)
    assert "decode" in reasons["0.tar/0002"]
    assert reasons["1.tar/(rest)"].startswith("damaged TAR: cut off")
    strict = loader(stream(str(tmp_path / "*.tar"), max_bad_fraction=0.0))
    with strict, pytest.raises(DataError, match=r"more than dataset\.max_bad_fraction=0\.0"):
        next(strict), next(strict), next(strict)


def test_shards_without_any_good_sample_stop_the_run(tmp_path):
    write_tar(tmp_path / "empty.tar", [])
    with (
        loader(stream(str(tmp_path / "empty.tar"))) as one,
        pytest.raises(DataError, match="1 shards in a row hold no"),
    ):
        next(one)
    (tmp_path / "no.tar").write_bytes(b"<html>" * 1000)
    with (
        loader(stream(str(tmp_path / "no.tar"))) as one,
        pytest.raises(DataError, match="100 samples in a row"),
    ):
        next(one)


def test_commands_run_only_when_allowed(folder, tmp_path):
    mark = tmp_path / "mark"
    command = f"pipe:touch {mark}; cat {folder}/a{{0..3}}.tar"
    with pytest.raises(DataError, match=r"runs a command; set dataset\.allow_pipe=true on the command line"):
        stream(command).prepare()
    assert not mark.exists()
    samples, *_ = read(stream(f"pipe:cat {folder}/a{{0..3}}.tar", allow_pipe=True), 4)
    assert len({key for key, _ in samples}) == 16
    assert all(key.startswith("pipe-") for key, _ in samples)


def test_a_config_that_is_data_cannot_run_commands(tmp_path):
    mark = tmp_path / "mark"
    text = f"""
dataset:
  _target_: hypvl.data.stream.WebDatasetStream
  tarfiles: "pipe:touch {mark}"
  samples_per_epoch: 5
  mapper: {{_target_: hypvl.data.mappers.GenericMapper}}
  image_transform: {{_target_: hypvl.data.transforms.RandomResizedCrop, size: 8}}
"""
    for grant in ("true", "'true'", "1", "${dataset.samples_per_epoch}"):
        with pytest.raises(ConfigError, match=r"'dataset\.allow_pipe' is .* lets the config run commands"):
            LazyConfig.from_yaml(f"{text}  allow_pipe: {grant}\n")
    config = LazyConfig.from_yaml(text)
    with pytest.raises(DataError, match="runs a command"):
        instantiate(config.dataset).prepare()
    allowed = LazyConfig.apply_overrides(config, ["+dataset.allow_pipe=true"])  # typed on the command line
    instantiate(allowed.dataset).prepare()
    assert not mark.exists()


def test_a_command_that_fails_is_tried_again(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_BACKOFF", 0.0)
    times = tmp_path / "times"
    once = f"pipe:echo x >> {times}; head -c 20000 {folder}/a0.tar; test $(wc -l < {times}) -gt 1 && tail -c +20001 "
    shards = f"{once}{folder}/a0.tar"
    samples, _, bad, _ = read(stream(shards, allow_pipe=True, shuffle_window=1), 1, batch=6)
    assert len({key for key, _ in samples}) == 6 and not bad
    with (
        loader(stream("pipe:exit 3", allow_pipe=True)) as one,
        pytest.raises(
            DataError, match=r"pipe:exit 3: cannot be read \(its command ends with status 3; 4 attempts"
        ),
    ):
        next(one)


def test_only_commands_reach_a_shell(tmp_path):
    """webdataset's own opener hands web addresses to a shell; ours never does."""
    mark = tmp_path / "mark"
    with serving() as site:
        one = loader(stream(f"{site.url}/';touch${{IFS}}{mark};'.tar"))
        with one, pytest.raises(DataError, match="404"):
            next(one)
    assert not mark.exists()


def test_shards_of_a_web_server_are_streamed(folder):
    class Files(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(folder))

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Files) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}/a{{0..3}}.tar"
        samples, *_ = read(stream(url, cache_dir=folder / "cache", shuffle_window=1), 6)
        server.shutdown()
    assert len({key for key, _ in samples}) == 24


def test_streams_are_mixed_in_about_the_shares(folder):
    sources = {"a": stream(str(folder / "a*.tar")), "b": stream(str(folder / "b.tar"))}
    mixed = MixedStreams(sources, {"a": 3, "b": 1}, max_bad_fraction=0.5)
    with loader(mixed) as one:
        keys = [key for _ in range(6) for key in next(one)["key"]]
        assert one.taken == {"a": 18, "b": 6}
        places = one.places()
        state = {**one.state(24), "places": [places]}
    assert {key.partition(":")[0] for key in keys} == {"a", "b"}
    assert set(places[0]) == {"a", "b"}
    rest, *_ = read(mixed, 2, state=state, consumed=24)
    assert len(rest) == 8
    read(mixed, 2, state=state, consumed=24, world_size=2)
    with pytest.raises(DataError, match="the run read other sources"):
        MixedStreams({"c": sources["a"]}, {"c": 1}).rearranged(places, Reader(0, 1))


def test_streams_and_indexed_sources_do_not_mix(folder):
    rows = ImageTextShards(str(folder / "b.tar"), GenericMapper(), RandomResizedCrop(8), Letters())
    with pytest.raises(ConfigError, match=r"dataset\.sources\.a: is a stream"):
        MixedSources({"a": stream(str(folder / "b.tar"))}, {"a": 1})
    with pytest.raises(ConfigError, match=r"dataset\.sources\.a: is no stream"):
        MixedStreams({"a": rows}, {"a": 1})
    settings = {"global_batch_size": 4, "rank": 0, "world_size": 1, "num_workers": 0, "seed": 0}
    with pytest.raises(ConfigError, match="dataset: is a stream, which has no rows"):
        Loader(stream(str(folder / "b.tar")), **settings)
    assert isinstance(open_loader(rows, **settings), Loader)
    assert isinstance(open_loader(stream(str(folder / "b.tar")), **settings), StreamLoader)

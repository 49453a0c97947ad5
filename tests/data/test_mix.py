"""A mixture is as exact and as resumable as one set."""

import collections
import math
from pathlib import Path

import pytest
from loguru import logger

from hypvl.config import LazyConfig
from hypvl.data.mappers import GenericMapper
from hypvl.data.mix import LARGEST_BLOCK, MixedSources, MixPattern, check_mix
from hypvl.data.sample import BadSample
from hypvl.data.shards import ImageTextShards
from hypvl.data.transforms import RandomResizedCrop
from hypvl.errors import DataError
from tests.data.helpers import Letters, jpeg, write_tar
from tests.data.test_loader import B, loader, sequence

ROOT = Path(__file__).resolve().parents[2]


def members(name, seeds, broken=()):
    return [
        pair
        for seed in seeds
        for pair in (
            (f"{seed:04d}.jpg", b"no image" if seed in broken else jpeg(seed)),
            (f"{seed:04d}.txt", f"{name} {seed}".encode()),
        )
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mix")
    write_tar(folder / "a0.tar", members("a", range(9), broken=[3]))
    write_tar(folder / "a1.tar", members("a", range(9, 14)))
    write_tar(folder / "b.tar", members("b", range(6), broken=[1, 2]))
    return folder


def source(folder, pattern, **options):
    return ImageTextShards(
        str(folder / pattern), GenericMapper(), RandomResizedCrop(8), Letters(), shuffle_window=5, **options
    )


@pytest.fixture(scope="module")
def mixture(folder):
    sources = {"a": source(folder, "a*.tar"), "b": source(folder, "b.tar")}
    return MixedSources(sources, {"a": 0.75, "b": 0.25}, max_bad_fraction=0.5)


@pytest.fixture(scope="module")
def expected(mixture):
    return sequence(mixture, 6)


def test_every_block_has_exactly_the_shares(expected):
    samples, bad = expected
    assert [position for position, *_ in samples] == list(range(6 * B))
    for start in range(0, 6 * B, 4):
        assert sum(key.startswith("b:") for _, key, *_ in samples[start : start + 4]) == 1
    # Bad samples of both sources were replaced within their own: the shares above hold all the same.
    assert {key for key, _ in bad} == {"a:a0.tar/0003", "b:b.tar/0001", "b:b.tar/0002"}
    assert all(text.startswith(key[0]) for _, key, _, text in samples)


def test_each_source_runs_through_its_own_epochs(expected):
    of_a = [key for _, key, *_ in expected[0] if key.startswith("a:")]
    good = {f"a:a{int(i > 8)}.tar/{i:04d}" for i in range(14)} - {"a:a0.tar/0003"}
    assert set(of_a[:14]) == good  # one epoch: 13 that are good, one in place of the bad one
    assert set(of_a[14:28]) == good


@pytest.mark.parametrize(("world_size", "num_workers"), [(2, 0), (1, 2), (2, 2)])
def test_ranks_and_workers_do_not_change_the_sequence(mixture, expected, world_size, num_workers):
    options = {"num_workers": num_workers, "start_method": "fork"} if num_workers else {}
    assert sequence(mixture, 6, world_size=world_size, **options) == expected


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("stop", [1, 4])
def test_a_run_resumes_exactly(mixture, expected, stop, num_workers):
    with loader(mixture) as one:
        for _ in range(stop):
            next(one)
        state = one.state(stop * B)
    with loader(mixture, consumed=state["consumed"]) as other:
        other.check_resume(state)
    rest, _ = sequence(mixture, 6 - stop, consumed=stop * B, world_size=2, num_workers=num_workers)
    assert rest == expected[0][stop * B :]


def test_another_mix_or_order_does_not_resume(folder, mixture):
    with loader(mixture) as one:
        state = one.state(B)
    for other in (
        MixedSources(mixture.sources, {"a": 0.5, "b": 0.5}),
        MixedSources({"a": source(folder, "a*.tar"), "b": source(folder, "a0.tar")}, mixture.mix),
    ):
        with loader(other) as new, pytest.raises(DataError, match=r"shuffle_window, mix\)"):
            new.check_resume(state)
    scaled = MixedSources(mixture.sources, {"a": 3, "b": 1})
    assert scaled.fingerprint == mixture.fingerprint
    with loader(scaled) as new:
        new.check_resume(state)  # the same shares


def test_shares_are_counted(mixture):
    with loader(mixture) as one:
        next(one), next(one)
        assert one.taken == {"a": 12, "b": 4}


def test_the_shares_are_logged_before_training(mixture):
    lines = []
    sink = logger.add(lines.append, format="{message}")
    mixture.prepare()
    logger.remove(sink)
    assert lines[-1] == "mix: a 75.00% of 14, b 25.00% of 6; exact in every 4 samples\n"


def test_a_source_keeps_its_order_beside_another_one(folder, expected):
    third = {"a": source(folder, "a*.tar"), "b": source(folder, "b.tar"), "c": source(folder, "a1.tar")}
    mixture = MixedSources(third, {"a": 0.5, "b": 0.25, "c": 0.25}, max_bad_fraction=0.5)
    samples, _ = sequence(mixture, 6)
    of_a = [key for _, key, *_ in samples if key.startswith("a:")]
    before = [key for _, key, *_ in expected[0] if key.startswith("a:")]
    wanted = {"a:a0.tar/0003"}  # what stands in for it is drawn from its place, too
    assert of_a == before[: len(of_a)] and not wanted & set(of_a)


def test_mixtures_nest(folder, mixture):
    outer = MixedSources(
        {"inner": mixture, "c": source(folder, "a1.tar")}, {"inner": 1, "c": 1}, max_bad_fraction=0.5
    )
    samples, _ = sequence(outer, 4)
    counts = collections.Counter(key.rpartition(":")[0] for _, key, *_ in samples)
    assert counts == {"c": 16, "inner:a": 12, "inner:b": 4}


@pytest.mark.parametrize(
    ("weights", "counts"),
    [
        ({"a": 0.7, "b": 0.3}, [7, 3]),
        ({"a": 2, "b": 1}, [2, 1]),
        ({"a": 0.1, "b": 0.2, "c": 0.7}, [1, 2, 7]),
        ({"a": 0.333, "b": 0.667}, [333, 667]),
        ({"a": 1e-4, "b": 0.9999}, [1, 9999]),
        ({"a": math.pi, "b": math.e}, [5361, 4639]),  # pi / (pi + e) = 0.536117...
    ],
)
def test_blocks_are_the_smallest_with_whole_counts(weights, counts):
    assert MixPattern(weights).counts.tolist() == counts
    assert sum(counts) <= LARGEST_BLOCK


def test_any_position_can_be_asked_without_those_before():
    weights = {"a": 5, "b": 3, "c": 1}
    pattern, seen = MixPattern(weights), collections.Counter()
    for position in range(200):
        source, before = pattern.at(7, position)
        assert before == seen[source]
        assert MixPattern(weights).at(7, position) == (source, before)
        seen[source] += 1
    far = 10**12
    assert pattern.at(7, far)[1] == MixPattern(weights).at(7, far)[1]
    orders = {tuple(pattern.at(seed, position)[0] for position in range(27)) for seed in range(4)}
    assert len(orders) == 4  # the order in a block is drawn


@pytest.mark.parametrize(
    ("mix", "message"),
    [
        ({"a": 0.7}, r"mix: got weights for a, but the sources are a, b; give one weight"),
        ({"a": 0.7, "c": 0.3}, r"mix: got weights for a, c, but the sources are a, b"),
        ({"a": 1, "b": 0}, r"mix\.b: got 0; expected a number above 0"),
        ({"a": 1, "b": -1}, r"mix\.b: got -1; expected a number above 0"),
        ({"a": 1, "b": float("nan")}, r"mix\.b: got nan"),
        ({"a": 1, "b": "0.3"}, r"mix\.b: got '0\.3'"),
        ({"a": 1, "b": 1e-6}, r"mix\.b: got 1e-06, a share of 1\.0e-06; expected at least 0\.0001"),
        ({}, r"mix: got weights for nothing"),
    ],
)
def test_wrong_weights_are_refused_in_one_sentence(mix, message):
    with pytest.raises(ValueError, match=message):
        check_mix({"a": None, "b": None}, mix)


@pytest.mark.parametrize(
    ("overrides", "mix", "sources"),
    [
        (["dataset.mix.cc12m=0.7"], {"redcaps": 0.7, "cc12m": 0.7}, {"redcaps", "cc12m"}),
        (["dataset.mix={redcaps: 1, cc12m: 3}"], {"redcaps": 1, "cc12m": 3}, {"redcaps", "cc12m"}),
        (["~dataset.sources.cc12m", "~dataset.mix.cc12m"], {"redcaps": 0.7}, {"redcaps"}),
    ],
)
def test_the_command_line_changes_weights_and_leaves_sources_out(overrides, mix, sources):
    config = LazyConfig.load(ROOT / "configs/common/data/redcaps_cc12m.py")
    dataset = LazyConfig.apply_overrides(config, overrides).dataset
    assert dict(dataset.mix) == mix and set(dataset.sources) == sources
    assert check_mix(dataset.sources, dataset.mix).names == tuple(mix)


def test_a_source_without_its_weight_is_not_left_out():
    config = LazyConfig.load(ROOT / "configs/common/data/redcaps_cc12m.py")
    dataset = LazyConfig.apply_overrides(config, ["~dataset.sources.cc12m"]).dataset
    with pytest.raises(
        ValueError, match=r"weights for redcaps, cc12m, but the sources are redcaps; give one"
    ):
        check_mix(dataset.sources, dataset.mix)


def test_sources_must_be_training_sets(folder):
    with pytest.raises(DataError, match=r"a list has no fingerprint"):
        MixedSources({"a": [1]}, {"a": 1})


def test_a_source_that_is_all_bad_stops_the_run(folder):
    class Broken:
        fingerprint = "broken"

        def __len__(self):
            return 5

        def sample(self, row, generator):
            raise BadSample(f"row {row}", "torn")

    mixture = MixedSources({"a": source(folder, "a1.tar"), "bad": Broken()}, {"a": 7, "bad": 1})
    with (
        loader(mixture) as one,
        pytest.raises(DataError, match=r"100 samples in a row .*the first: bad:row \d: torn"),
    ):
        next(one)

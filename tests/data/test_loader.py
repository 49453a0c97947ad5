import dataclasses
import os
import random
import signal

import numpy as np
import pytest
import torch

from hypvl.data import workers as workers_module
from hypvl.data.loader import Loader, Share
from hypvl.data.mappers import RedCapsMapper
from hypvl.data.sample import BadSample
from hypvl.data.shards import ImageTextShards
from hypvl.data.transforms import RandomResizedCrop
from hypvl.errors import ConfigError, DataError
from tests.data.helpers import Letters, redcaps, text_of, write_tar

B = 8


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Two shards (fewer than ranks x workers) of 11 and 9 samples; four are broken, each in its way."""
    folder = tmp_path_factory.mktemp("shards")
    for name, seeds in (("a.tar", range(11)), ("b.tar", range(11, 20))):
        members = dict(m for seed in seeds for m in redcaps(f"{seed:04d}", seed))
        if name == "a.tar":
            members["0003.jpg"] = members["0003.jpg"][:200]
            members["0005.json"] = b"{}"
            members["0007.json"] = b"{"
        write_tar(folder / name, list(members.items()))
    path = folder / "b.tar"
    path.write_bytes(path.read_bytes()[: path.read_bytes().rindex(b'"caption 19"')])
    return ImageTextShards(
        str(folder / "*.tar"), RedCapsMapper(0.5), RandomResizedCrop(8), Letters(),
        shuffle_window=6, max_bad_fraction=0.5,
    )  # fmt: skip


def loader(dataset, *, rank=0, world_size=1, num_workers=0, seed=3, batch_size=B, **options):
    return Loader(
        dataset, global_batch_size=batch_size, rank=rank, world_size=world_size, num_workers=num_workers,
        seed=seed, **options,
    )  # fmt: skip


def sequence(dataset, batches, *, world_size=1, **options):
    """(position, key, crop, caption) of that many global batches, joined over the ranks, and all bad keys."""
    samples, bad = [], []
    for rank in range(world_size):
        with loader(dataset, rank=rank, world_size=world_size, **options) as one:
            for _ in range(batches * options.get("accumulate", 1)):
                batch = next(one)
                crops = [image.numpy().tobytes() for image in batch["image"]]
                texts = [text_of(row) for row in batch["text"]]
                samples += zip(batch["position"].tolist(), batch["key"], crops, texts, strict=True)
                bad += batch["bad"]
    return sorted(samples), sorted(bad)


@pytest.fixture(scope="module")
def expected(dataset):
    return sequence(dataset, 7)


def test_the_sequence_is_full_and_replaces_what_is_bad(expected):
    samples, bad = expected
    assert [position for position, *_ in samples] == list(range(7 * B))
    broken = {
        "a.tar/0003": "decode",
        "a.tar/0005": "missing caption",
        "a.tar/0007": "json",
        "b.tar/0019": "cut off",
    }
    assert {key for key, _ in bad} == set(broken)
    assert all(broken[key] in reason for key, reason in bad)
    assert not {key for _, key, *_ in samples} & set(broken)
    assert {key for _, key, *_ in samples[:40]} == {
        f"{'a' if i < 11 else 'b'}.tar/{i:04d}" for i in range(20)
    } - set(broken)  # two epochs show every good sample
    prefixed = sum(text.startswith("i took a picture : ") for *_, text in samples)
    assert 15 < prefixed < 41  # 28 expected, sd 3.7


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_ranks_share_the_same_sequence(dataset, expected, world_size):
    assert sequence(dataset, 7, world_size=world_size) == expected


@pytest.mark.parametrize(("world_size", "num_workers"), [(1, 1), (1, 2), (2, 2), (4, 1)])
def test_workers_do_not_change_the_sequence(dataset, expected, world_size, num_workers):
    options = {"world_size": world_size, "num_workers": num_workers, "start_method": "fork"}
    assert sequence(dataset, 7, **options) == expected


@pytest.mark.slow
@pytest.mark.parametrize(
    ("world_size", "num_workers", "start_method"),
    [(1, 1, "fork"), (2, 1, "fork"), (4, 2, "fork"), (1, 1, "spawn")],
)
def test_more_ranks_and_workers(dataset, expected, world_size, num_workers, start_method):
    options = {"world_size": world_size, "num_workers": num_workers, "start_method": start_method}
    assert sequence(dataset, 7, **options) == expected


@pytest.mark.parametrize("stop", range(8))
def test_a_run_resumes_after_any_batch_on_other_ranks(dataset, expected, stop):
    world_size = 1 + stop % 2
    first, _ = sequence(dataset, stop, world_size=world_size)
    rest, _ = sequence(dataset, 7 - stop, world_size=3 - world_size, consumed=stop * B)
    assert first + rest == expected[0]


def test_what_was_read_ahead_does_not_count(dataset, expected):
    with loader(dataset, num_workers=2, prefetch_factor=4, start_method="fork") as one:
        taken = [next(one) for _ in range(2)]
        state = one.state(2 * B)
    assert [p for batch in taken for p in batch["position"].tolist()] == list(range(2 * B))
    rest, _ = sequence(dataset, 5, consumed=state["consumed"])
    assert rest == expected[0][2 * B :]


def test_micro_batches_split_the_same_global_batches(dataset, expected):
    assert sequence(dataset, 7, world_size=2, accumulate=2) == expected
    one = loader(dataset, rank=1, world_size=2, accumulate=2, consumed=B)
    assert [next(one)["position"].tolist() for _ in range(3)] == [[10, 11], [14, 15], [18, 19]]
    assert one.batch_size == 2


def test_another_seed_is_another_sequence(dataset, expected):
    other, _ = sequence(dataset, 7, seed=4)
    assert [key for _, key, *_ in other] != [key for _, key, *_ in expected[0]]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_main_generators_are_untouched(dataset, num_workers):
    before = torch.random.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    with loader(dataset, num_workers=num_workers) as one:
        next(one), next(one)
    after = torch.random.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    assert torch.equal(before[0], after[0]) and before[1:] == after[1:]


def test_state_and_refusals(dataset):
    one = loader(dataset)
    state = one.state(5 * B)
    assert state["consumed"] == 40 and state["seed"] == 3 and state["global_batch_size"] == B
    one.check_resume(state)
    loader(dataset, rank=1, world_size=2, num_workers=1).check_resume(state)
    for key, words in {
        "seed": "train.seed was 9",
        "global_batch_size": "total_batch_size was 9",
        "fingerprint": "the data",
    }.items():
        with pytest.raises(DataError, match=f"cannot resume: .*{words}"):
            one.check_resume(state | {key: 9})
    with pytest.raises(DataError, match="seed was None"):
        one.check_resume({})


def test_the_window_is_part_of_the_fingerprint():
    a, b = Colours(20), Colours(20)
    b.shuffle_window = 5
    assert loader(a).state(0)["fingerprint"] != loader(b).state(0)["fingerprint"]


class Colours:
    """The least a dataset must have: length, fingerprint, sample; rows below ``bad`` are bad."""

    fingerprint = "colours"

    def __init__(self, rows, bad=0, error=None):
        self.rows, self.bad, self.error = rows, bad, error

    def __len__(self):
        return self.rows

    def sample(self, row, generator):
        if self.error is not None:
            raise self.error
        if row < self.bad:
            raise BadSample(f"row {row}", "torn")
        return {
            "key": str(row),
            "image": torch.zeros(3, 1, 1, dtype=torch.uint8),
            "text": torch.tensor([row + 1]),
        }


def test_fewer_rows_than_a_batch_go_round():
    batch = next(loader(Colours(3), batch_size=12))
    assert sorted(batch["index"].tolist()) == sorted([0, 1, 2] * 4)


def test_too_many_bad_samples_stop_the_run():
    one = loader(Colours(100, bad=20), batch_size=20)
    with pytest.raises(DataError, match=r"of \d+ samples .*row \d+: torn.*dataset.max_bad_fraction=0.1"):
        for _ in range(50):
            next(one)
    assert 0.1 < one.bad.fraction < 0.4 and one.bad.good >= 100
    allowed = loader(Colours(100, bad=20), batch_size=20, max_bad_fraction=0.3)
    for _ in range(50):
        next(allowed)
    assert allowed.bad.fraction == pytest.approx(0.2, abs=0.04)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_nothing_but_bad_samples_is_an_error_not_a_hang(num_workers):
    with loader(Colours(10, bad=10), num_workers=num_workers) as one, pytest.raises(DataError) as caught:
        next(one)
    assert str(caught.value).startswith("100 samples in a row could not be read (the first: row ")
    assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize(("num_workers", "error"), [(0, ZeroDivisionError), (1, RuntimeError)])
def test_errors_of_the_program_are_not_hidden(num_workers, error):
    with (
        loader(Colours(10, error=error("oops")), num_workers=num_workers) as one,
        pytest.raises(error, match="oops"),
    ):
        next(one)


def test_a_dead_worker_is_explained():
    class Deadly(Colours):
        def sample(self, row, generator):
            import os
            import signal

            os.kill(os.getpid(), signal.SIGKILL)

    with (
        loader(Deadly(10), num_workers=1, start_method="fork") as one,
        pytest.raises(DataError, match=r"a data worker has died.*fewer workers than train.num_workers=1"),
    ):
        next(one)


def test_closing_ends_the_workers():
    import multiprocessing

    before = set(multiprocessing.active_children())
    one = loader(Colours(10), num_workers=2, start_method="fork")
    next(one)
    started = set(multiprocessing.active_children()) - before
    assert len(started) == 2
    one.close()
    assert not any(process.is_alive() for process in started)
    with pytest.raises(StopIteration):
        next(one)


def workers_of(one):
    import multiprocessing

    before = set(multiprocessing.active_children())
    next(one)
    return list(set(multiprocessing.active_children()) - before)


@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2"])
def test_signals_to_the_process_group_do_not_end_workers(dataset, number):
    import os
    import signal

    with loader(dataset, num_workers=2, start_method="fork") as one:
        for worker in workers_of(one):
            os.kill(worker.pid, getattr(signal, number))
        positions = [next(one)["position"].tolist() for _ in range(6)]
    assert positions == [list(range(B * i, B * (i + 1))) for i in range(1, 7)]


@pytest.mark.parametrize("stopped", [True, False])
def test_closing_kills_a_worker_that_does_not_end(monkeypatch, stopped):
    """One that is stopped, or waits for data that do not come."""
    import os
    import signal
    import time

    class Slow(Colours):
        samples = 0  # of this worker

        def sample(self, row, generator):
            self.samples += 1
            if self.samples > 1 and not stopped:  # the first batch is there
                time.sleep(60)
            return super().sample(row, generator)

    monkeypatch.setattr("hypvl.data.workers._PATIENCE", 0.3)
    one = loader(Slow(1000), num_workers=2, start_method="fork", batch_size=1)
    workers = workers_of(one)
    if stopped:
        os.kill(workers[0].pid, signal.SIGSTOP)
    started = time.monotonic()
    one.close()
    assert time.monotonic() - started < 4
    assert not any(worker.is_alive() for worker in workers)


LEFT = """
import os, signal, sys
from tests.data.test_loader import Colours, loader, workers_of
one = loader(Colours(1000), num_workers=2, start_method=sys.argv[1])
if __name__ == "__main__":
    print(*[worker.pid for worker in workers_of(one)], flush=True)
    if sys.argv[2] == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
@pytest.mark.parametrize("start_method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("end", ["killed", "exit"])
def test_workers_end_with_the_main_process(tmp_path, start_method, end):
    """Also when it is killed, or forgets them: they ignore the SIGTERM by which Python ends its children."""
    import os
    import subprocess
    import sys
    import time
    from pathlib import Path

    (tmp_path / "left.py").write_text(LEFT)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, str(tmp_path / "left.py"), start_method, end]
    output = subprocess.run(command, stdout=subprocess.PIPE, env=environment, timeout=120).stdout
    pids = [int(pid) for pid in output.split()]
    deadline = time.monotonic() + (
        1 if start_method != "forkserver" else 15
    )  # there torch looks every 5 seconds
    while time.monotonic() < deadline and any(map(running, pids)):
        time.sleep(0.05)
    assert len(pids) == 2 and not any(map(running, pids))


def running(pid):
    from pathlib import Path

    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")")[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_numbers_that_do_not_fit_are_named(dataset):
    with pytest.raises(
        ConfigError, match="got 8 for 3 processes x 1 micro-batches; expected a multiple of 3"
    ):
        loader(dataset, world_size=3)
    with pytest.raises(ConfigError, match="got 8 for 2 processes x 3 micro-batches"):
        loader(dataset, world_size=2, accumulate=3)
    with pytest.raises(ConfigError, match=r"consumed: got 5 samples; expected a multiple of .* 8"):
        loader(dataset, consumed=5)
    with pytest.raises(ConfigError, match="rank: got 2; expected 0 to 1"):
        Share(8, rank=2, world_size=2)


def test_signals_do_not_end_a_worker_that_has_just_begun(dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    start = workers_module._start_worker

    def struck(worker: int) -> None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            os.kill(os.getpid(), number)
        start(worker)
        assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())  # nothing stays blocked

    with loader(dataset) as batches:
        expected = [next(batches)["key"] for _ in range(4)]
    monkeypatch.setattr(workers_module, "_start_worker", struck)
    with loader(dataset, num_workers=2) as batches:
        assert [next(batches)["key"] for _ in range(4)] == expected
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_rows_are_filled_with_the_pad_token_of_the_tokenizer(dataset):
    class Roberta(Letters):
        """Pads with 1."""

        pad_token = 1

        def __call__(self, texts):
            rows = super().__call__(texts)
            return torch.where(rows == 0, 1, rows)

    with loader(dataclasses.replace(dataset, tokenizer=Roberta())) as one:
        batch = next(one)
    ends = [row.tolist().index(1) if 1 in row else len(row) for row in batch["text"]]
    assert batch["text_lengths"].tolist() == ends and len(set(ends)) > 1
    assert not (batch["text"] == 0).any()


def test_data_without_a_tokenizer_needs_a_model(dataset):
    alone = dataclasses.replace(dataset, tokenizer=None)
    with pytest.raises(ConfigError, match=r"dataset.tokenizer: is None, the text encoder's own.*give one"):
        next(loader(alone))

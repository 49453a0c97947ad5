"""What a run does when it is asked to stop or to save: between two steps, whatever it waits for, and once."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from hypvl import distributed
from hypvl.io.processes import save_requests_held
from hypvl.launch import _forwarding
from hypvl.training.hooks.checkpoints import Checkpoints
from hypvl.training.loop import Hook, Interrupted, Signals, StepResult, Trainer, exit_code
from tests.ranks import run_ranks
from tests.training.test_loop import batches, trainer
from tests.training.tiny import rows_of, tiny_learner

CAUGHT = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP, signal.SIGUSR2)


class Send(Hook):
    """A signal to this process after a step."""

    def __init__(self, number: signal.Signals, *, at: int) -> None:
        self.number, self.at = number, at

    def after_step(self, trainer: Trainer, step: StepResult) -> None:
        if trainer.iteration == self.at:
            os.kill(os.getpid(), self.number)


def saving(folder: Path) -> Checkpoints:
    def collect(trainer: Trainer) -> dict[str, Any]:
        return {
            "iteration": trainer.iteration,
            "model": trainer.learner.model.state_dict(),
            "rng": torch.get_rng_state(),
        }

    return Checkpoints(folder, collect=collect, period=100, keep=2)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP])
def test_a_request_to_stop_saves_between_steps_and_gives_the_signals_back(
    tmp_path: Path, number: signal.Signals
) -> None:
    before = [signal.getsignal(n) for n in CAUGHT]
    run = trainer(tiny_learner("clip"), hooks=(Send(number, at=3), saving(tmp_path)))
    run.run()
    assert (run.iteration, run.signals.stop) == (3, number)
    assert (tmp_path / "last_checkpoint.txt").read_text().strip() == "checkpoint_00000003.pth"
    assert [signal.getsignal(n) for n in CAUGHT] == before
    assert signal.set_wakeup_fd(-1) == -1


def test_a_run_under_nohup_outlives_its_terminal() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        run = trainer(tiny_learner("clip"), hooks=(Send(signal.SIGHUP, at=3),))
        run.run()
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
    assert run.iteration == 6 and run.signals.stop is None


def test_a_request_for_a_checkpoint_saves_and_goes_on(tmp_path: Path) -> None:
    run = trainer(tiny_learner("clip"), hooks=(Send(signal.SIGUSR2, at=3), saving(tmp_path)))
    run.run()
    assert run.iteration == 6 and run.signals.stop is None
    assert sorted(p.name for p in tmp_path.glob("*.pth")) == [
        "checkpoint_00000004.pth",
        "checkpoint_final.pth",
    ]


def test_a_request_for_a_checkpoint_before_the_first_step_waits_for_it(tmp_path: Path) -> None:
    """And one after the last step ends nothing."""
    before, handler = signal.pthread_sigmask(signal.SIG_BLOCK, ()), signal.getsignal(signal.SIGUSR2)
    try:
        with save_requests_held():  # to this thread: others of the test process do not hold it
            signal.pthread_kill(threading.get_ident(), signal.SIGUSR2)
            trainer(tiny_learner("clip"), hooks=(saving(tmp_path),)).run()
            signal.pthread_kill(threading.get_ident(), signal.SIGUSR2)
        os.kill(os.getpid(), signal.SIGUSR2)
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before == set()
    finally:
        signal.signal(signal.SIGUSR2, handler)
    assert sorted(p.name for p in tmp_path.glob("*.pth")) == [
        "checkpoint_00000001.pth",
        "checkpoint_final.pth",
    ]


def test_processes_that_start_do_not_end_by_a_request_for_a_checkpoint() -> None:
    """A launcher passes on what came before they were there; who does not train yet keeps it for later."""
    code = "import signal, sys; print(signal.sigwait({signal.SIGUSR2}).name)"
    processes: list[int] = []
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with _forwarding(processes) as forward:
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR2)
        rank = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        processes.append(rank.pid)
        forward()
        assert rank.communicate(timeout=30)[0] == b"SIGUSR2\n" and rank.returncode == 0
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def after(seconds: float, number: signal.Signals = signal.SIGTERM) -> None:
    threading.Timer(seconds, os.kill, (os.getpid(), number)).start()


@pytest.mark.parametrize("parts", [1, 2])
def test_it_does_not_wait_for_data_that_do_not_come(tmp_path: Path, parts: int) -> None:
    """The state is that after the last whole step, random numbers too."""

    def slow() -> Iterator[dict[str, Any]]:
        for i, batch in enumerate(batches()):
            if i == 2 * parts + parts - 1:  # in the third step, of several batches in the last of them
                after(0.2)
                time.sleep(60)
            yield batch

    started = time.monotonic()
    run = trainer(tiny_learner("clip"), hooks=(saving(tmp_path),), naive_parts=parts)
    run.loader = slow()
    torch.manual_seed(5)
    run.run()
    assert run.iteration == 2 and time.monotonic() - started < 30
    stopped = torch.load(tmp_path / "checkpoint_00000002.pth", weights_only=True)
    whole = trainer(tiny_learner("clip"), hooks=(), naive_parts=parts)
    whole.num_iterations = 2
    torch.manual_seed(5)
    whole.run()
    assert all(torch.equal(v, stopped["model"][k]) for k, v in whole.learner.model.state_dict().items())
    assert torch.equal(stopped["rng"], torch.get_rng_state())


def test_interrupted_only_where_that_is_safe() -> None:
    with Signals() as signals:
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.asked_to_stop and signals.stop is None
        signals.interruptible = True
        with pytest.raises(Interrupted):
            os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)  # once is enough
        signals.agree()
    assert signals.stop is signal.SIGTERM
    assert (exit_code(signal.SIGTERM), exit_code(signal.SIGINT)) == (143, 130)


def test_entering_again_does_not_take_the_socket_of_the_thread_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    errors: list[object] = []
    monkeypatch.setattr(threading, "excepthook", errors.append)
    signals = Signals()
    for _ in range(50):
        with signals:
            pass
    for thread in threading.enumerate():
        if thread.name == "signals":
            thread.join(timeout=10)
    assert not errors and not [thread for thread in threading.enumerate() if thread.name == "signals"]


def test_in_another_thread_nothing_is_caught() -> None:
    before = [signal.getsignal(n) for n in CAUGHT]

    def enter() -> None:
        with Signals() as signals:
            signals.agree()
            seen.append([signal.getsignal(n) for n in CAUGHT])

    seen: list[Any] = []
    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [before]


STUCK = """
import time
from hypvl.training.loop import Signals
with Signals():
    print("ready", flush=True)
    for _ in range(600):
        time.sleep(0.1)
"""


@pytest.mark.slow  # waits for what does not happen
@pytest.mark.parametrize(("pause", "code"), [(1.3, 143), (0.0, None)])
def test_a_second_request_is_obeyed_at_once_and_two_together_are_one(pause: float, code: int | None) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STUCK], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGTERM)
        time.sleep(pause)
        process.send_signal(signal.SIGTERM)
        try:
            assert process.wait(timeout=1 if code is None else 20) == code
        except subprocess.TimeoutExpired:
            assert code is None
        process.kill()


def _one_of_two(folder: str) -> tuple[int, str | None]:
    """Rank 1 waits for data that do not come; only then rank 0 is asked, too."""
    rank = distributed.rank()

    def data() -> Iterator[dict[str, Any]]:
        for i, batch in enumerate(batches()):
            if i == 2 and rank == 1:
                after(0.3)
                time.sleep(60)
            yield rows_of(batch, rank, 2)

    run = trainer(tiny_learner("clip"), hooks=(saving(Path(folder)),))
    run.loader = data()
    run.run()
    return run.iteration, None if run.signals.stop is None else run.signals.stop.name


@pytest.mark.slow
def test_ranks_stop_together_also_while_one_waits_for_data(tmp_path: Path) -> None:
    assert run_ranks(2, _one_of_two, str(tmp_path)) == [(2, "SIGTERM"), (2, "SIGTERM")]
    assert (tmp_path / "last_checkpoint.txt").read_text().strip() == "checkpoint_00000002.pth"

import errno
import json
import math
import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from loguru import logger
from rich.console import Console

from hypvl.errors import ConfigError, UserError
from hypvl.training.hooks.sinks import ConsoleLine, JsonLines, TensorBoard, Wandb, describe, write_to

RECORD = {
    "iteration": 20, "loss": 1.5, "contrastive": 1.25, "lr": 5e-4, "samples_per_second": 120.0,
    "data_wait": 0.031, "memory_gb": 2.04, "eta_seconds": 3700.0, "grad_norm": 3.0, "consumed": 640,
}  # fmt: skip


def test_a_line_says_what_a_person_watches() -> None:
    line = describe(RECORD)
    assert line == (
        "loss 1.5000  contrastive 1.25  lr 5.00e-04  120 samples/s  data wait 3%  2.0 GB  eta 1:01:40"
    )


def test_json_lines_drop_what_a_resumed_run_does_again(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    first = JsonLines(path)
    for iteration in (10, 20, 30):
        first.write({**RECORD, "iteration": iteration})
    first.close()
    with path.open("a") as file:
        file.write('{"iteration": 4')  # the machine went down while writing
    again = JsonLines(path, iteration=20)
    again.write({**RECORD, "iteration": 30})
    again.close()
    assert [json.loads(line)["iteration"] for line in path.read_text().splitlines()] == [10, 20, 30]


@pytest.mark.parametrize("place", ["os.fsync", "pathlib.Path.replace"])
def test_who_is_killed_while_records_are_dropped_loses_none(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "metrics.jsonl"
    first = JsonLines(path)
    for iteration in (10, 20, 30):
        first.write({**RECORD, "iteration": iteration})
    first.close()
    before = path.read_bytes()
    child = os.fork()
    if child == 0:
        monkeypatch.setattr(place, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        JsonLines(path, iteration=20)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert path.read_bytes() == before
    assert len(list(tmp_path.glob(".metrics.jsonl.*.part"))) == 1  # which the next run removes
    JsonLines(path, iteration=20).close()
    assert path.read_bytes() == b"".join(before.splitlines(keepends=True)[:2])


DAMAGED = [
    b'{"iteration": 4', b"4", b"[1]", b"null", b'{"loss": 1.0}', b'{"iteration": "4"}', b'{"iteration": null}',
    b"\xff\xfe\x00", b"[" * 100_000, b"",
]  # fmt: skip


@pytest.mark.parametrize("line", DAMAGED)
def test_a_damaged_line_is_dropped(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "metrics.jsonl"
    whole = b'{"iteration": 10, "loss": null}\n'
    path.write_bytes(line + b"\n" + whole + line)
    JsonLines(path, iteration=20).close()
    assert path.read_bytes() == whole


def test_what_is_not_finite_is_null(tmp_path: Path) -> None:
    sink = JsonLines(tmp_path / "metrics.jsonl")
    sink.write({"iteration": 1, "loss": math.nan, "grad_norm": math.inf, "lr": 0.5})
    sink.close()
    text = (tmp_path / "metrics.jsonl").read_text()
    assert json.loads(text) == {"iteration": 1, "loss": None, "grad_norm": None, "lr": 0.5}
    assert "NaN" not in text and "Infinity" not in text


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full")
def test_a_full_disk_is_named(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    sink = JsonLines.__new__(JsonLines)
    sink._path, sink._file = tmp_path / "metrics.jsonl", (tmp_path / "metrics.jsonl").open("ab", buffering=0)
    said = r"training records: .*metrics\.jsonl cannot be written at iteration 20 \(No space left on device\)"
    with pytest.raises(UserError, match=said):
        write_to([sink], RECORD)
    sink.close()  # nothing is left to be written


def test_steps_done_again_are_in_tensorboard_once(tmp_path: Path) -> None:
    """Also those of a try that ended before its first checkpoint."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for start, iterations in ((0, (10, 20)), (0, (10, 20, 30)), (20, (30, 40))):
        sink = TensorBoard(tmp_path, iteration=start)
        for iteration in iterations:
            sink.write({**RECORD, "iteration": iteration})
        sink.close()
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [scalar.step for scalar in events.Scalars("train/loss")] == [10, 20, 30, 40]


def test_tensorboard_writes_events(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    sink = TensorBoard(tmp_path)
    sink.write(RECORD)
    sink.close()
    events = EventAccumulator(str(tmp_path)).Reload()
    (scalar,) = events.Scalars("train/loss")
    assert (scalar.step, scalar.value) == (20, 1.5)
    assert "train/iteration" not in events.Tags()["scalars"]


def test_terminal_gets_one_live_line() -> None:
    console = Console(record=True, force_terminal=True, width=160)
    sink = ConsoleLine(40, console=console)
    sink.write(RECORD)
    sink.close()
    text = console.export_text()
    assert "20/40" in text
    assert "contrastive 1.25" in text


def test_a_resumed_run_goes_on_in_its_wandb_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def init(**given: Any) -> SimpleNamespace:
        asked.append(given["id"])
        new = f"new{len(asked)}" if given["id"] is None else given["id"]
        return SimpleNamespace(id=new, log=lambda *a, **k: None, finish=lambda: None)

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    for iteration in (0, 20, 0, 40):
        Wandb(mode="offline", project="p", name="n", folder=tmp_path, config={}, iteration=iteration).close()
    assert asked == [None, "new1", None, "new3"]  # a run that starts over is another one
    assert (tmp_path / "wandb_id.txt").read_text() == "new3\n"


def test_tensorboard_on_a_full_disk_fails_once_where_it_writes(tmp_path: Path) -> None:
    def full() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    sink = TensorBoard(tmp_path)
    sink._writer.close()
    sink._writer = SimpleNamespace(add_scalar=lambda *_: None, flush=full, close=full)  # type: ignore[assignment]
    with pytest.raises(
        UserError, match=r"TensorBoard cannot be written at iteration 20 \(No space left on device\)"
    ):
        write_to([sink], RECORD)
    sink.close()


@pytest.mark.parametrize(
    "error", [ConnectionResetError(104, "reset"), RuntimeError("a service\nthat is gone")]
)
def test_a_run_outlives_its_wandb_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Killed for its memory, or cut off: the records go on into the file, and the log says so once."""
    calls, lines = [], []  # type: ignore[var-annotated]

    def log(values: dict[str, Any], *, step: int) -> None:
        calls.append(step)
        if step > 20:
            raise error

    def finish() -> None:
        calls.append("finish")

    run = SimpleNamespace(id="a", log=log, finish=finish)
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=lambda **_: run))
    sinks = [
        Wandb(mode="online", project="p", name="n", folder=tmp_path, config={}),
        JsonLines(tmp_path / "m"),
    ]
    handle = logger.add(lambda line: lines.append(line.record["message"]), level="WARNING")
    for step in (20, 21, 22):
        write_to(sinks, RECORD | {"iteration": step})
    for sink in sinks:
        sink.close()
    logger.remove(handle)
    assert calls == [20, 21]
    said = f"{type(error).__name__}: {' '.join(str(error).split())}"
    assert lines == [
        f"iteration 21: wandb has failed ({said}) and gets no more records of this process; metrics.jsonl has all"
    ]
    assert (tmp_path / "m").read_bytes().count(b"\n") == 3


def test_wandb_that_does_not_start_refuses_a_new_run_and_not_a_resumed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def init(**_: Any) -> None:
        raise RuntimeError("no network")

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    given: dict[str, Any] = {"mode": "online", "project": "p", "name": "n", "folder": tmp_path, "config": {}}
    with pytest.raises(
        ConfigError, match=r"^train\.wandb\.mode: .* \(RuntimeError: no network\); repair that"
    ):
        Wandb(**given)
    (tmp_path / "wandb_id.txt").write_text("kept\n")
    sink = Wandb(**given, iteration=20)
    sink.write(RECORD)
    sink.close()
    assert (tmp_path / "wandb_id.txt").read_text() == "kept\n"


def test_a_terminal_that_was_closed_is_no_error() -> None:
    ours, terminal = os.openpty()
    with os.fdopen(terminal, "w") as file:
        sink = ConsoleLine(40, console=Console(file=file, force_terminal=True))
        os.close(ours)
        sink.write(RECORD)
        sink.close()
        with pytest.raises(OSError):
            print("lost", file=file, flush=True)
        os.dup2(os.open(os.devnull, os.O_WRONLY), terminal)  # for what the file still holds

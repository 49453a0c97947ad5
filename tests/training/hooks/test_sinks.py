import json
from pathlib import Path

from rich.console import Console

from hypvl.training.hooks.sinks import ConsoleLine, JsonLines, TensorBoard, describe

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

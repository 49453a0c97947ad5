"""The command that trains, on tiny shards: what it writes, how it goes on, what bad input gets."""

import json
import os
import random
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch
from loguru import logger

from hypvl.cli.common import run_main
from hypvl.cli.train import main
from hypvl.models.hub import create_model
from hypvl.training.step import Learner
from tests.data.helpers import redcaps, write_tar

ROOT = Path(__file__).resolve().parents[2]
SMALL = [
    "model.visual.width=16", "model.visual.depth=1", "model.visual.heads=2", "model.visual.patch_size=16",
    "model.textual.arch=L1_W16_A2",
    "train.num_iterations=6", "train.total_batch_size=4", "train.num_workers=0", "train.log_period=2",
    "train.checkpoint_period=3", "train.root_samples=8", "optim.lr_scheduler.warmup_steps=1",
    "++dataset.mapper={_target_: hypvl.data.mappers.RedCapsMapper}",
]  # fmt: skip


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("shards")
    for shard in range(2):
        members = [m for i in range(8) for m in redcaps(f"s{shard}-{i}", 10 * shard + i)]
        write_tar(folder / f"{shard}.tar", members)
    return f"dataset.tarfiles=[{folder}/*.tar]"


def arguments(output: Path, shards: str, *more: str, model: str = "meru") -> list[str]:
    config = str(ROOT / "configs" / f"train_{model}_demo.py")
    at_once = ["~train.objective.warmup", "train.objective.weights.entailment=0.2"] if model == "meru" else []
    return [
        "--config",
        config,
        "--num-gpus",
        "0",
        "--output-dir",
        str(output),
        shards,
        *SMALL,
        *at_once,
        *more,
    ]


def train(output: Path, shards: str, *more: str, model: str = "meru") -> int:
    code = run_main(main, arguments(output, shards, *more, model=model))
    logger.remove()  # closes the log files of the run
    return code


@pytest.fixture(scope="module")
def finished(shards: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run from its first to its last iteration."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    assert train(folder, shards) == 0
    return folder


@pytest.mark.slow
def test_compiled(tmp_path: Path, shards: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With everything around: what counts operations traces the encoders, too."""
    real = Learner.compile
    monkeypatch.setattr(Learner, "compile", lambda self: real(self, backend="eager"))
    assert train(tmp_path / "run", shards, "train.compile=true", "train.num_iterations=2") == 0


def test_a_run_leaves_everything_behind(finished: Path) -> None:
    names = {path.name for path in finished.iterdir()}
    assert names == {
        "config.yaml", "provenance.json", "metrics.jsonl", "bad_samples.jsonl", "log-rank0.txt", "tensorboard",
        "skipped_steps.jsonl", "heartbeat.json",
        "checkpoint_00000003.pth", "checkpoint_final.pth", "last_checkpoint.txt", ".lock",
    }  # fmt: skip
    records = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert [r["iteration"] for r in records] == [2, 4, 6]
    assert all(
        r["loss"] == pytest.approx(r["contrastive"] + 0.2 * r["entailment"], rel=1e-5) for r in records
    )
    origin = json.loads((finished / "provenance.json").read_text())
    assert {
        "hypvl",
        "git_commit",
        "packages",
        "seed",
        "data_fingerprint",
        "config",
        "command",
    } <= origin.keys()
    final = torch.load(finished / "checkpoint_final.pth", weights_only=True)
    assert final["iteration"] == 6
    assert {
        "format_version",
        "model",
        "objective",
        "optimizer",
        "scheduler",
        "scaler",
        "rng",
        "data",
    } <= final.keys()
    assert "root" not in final  # the hyperboloid has one


def test_the_checkpoint_alone_builds_the_model(finished: Path) -> None:
    model = create_model(finished / "config.yaml", finished / "checkpoint_final.pth")
    state = torch.load(finished / "checkpoint_final.pth", weights_only=True)["model"]
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_resuming_gives_the_same_weights_bit_for_bit(finished: Path, shards: str, tmp_path: Path) -> None:
    folder = tmp_path / "resumed"
    folder.mkdir()
    shutil.copy(finished / "checkpoint_00000003.pth", folder)
    (folder / "last_checkpoint.txt").write_text("checkpoint_00000003.pth\n")
    assert train(folder, shards, "--resume") == 0
    whole, resumed = (torch.load(f / "checkpoint_final.pth", weights_only=True) for f in (finished, folder))
    assert all(torch.equal(value, resumed["model"][name]) for name, value in whole["model"].items())
    assert whole["data"] == resumed["data"]
    assert "resumed at iteration 3" in (folder / "log-rank0.txt").read_text()


def test_resuming_needs_no_config(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    resumed = ["--resume", "--num-gpus", "0", "--output-dir"]
    assert run_main(main, [*resumed, str(folder), "train.num_iterations=7"]) == 0
    logger.remove()
    assert torch.load(folder / "checkpoint_final.pth", weights_only=True)["iteration"] == 7
    capsys.readouterr()
    assert run_main(main, [*resumed, str(tmp_path / "none")]) == 2
    assert "has no config.yaml of a run; name the config" in capsys.readouterr().err
    assert run_main(main, ["--num-gpus", "0", "--output-dir", str(folder)]) == 2
    assert re.search(r"--config: missing; name a config, or add --resume", capsys.readouterr().err)


def test_only_the_config_that_resumes_keeps_secrets(
    shards: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    secret = ["+train.wandb.name='https://me:hush@host/x?token=hush'", "train.num_iterations=2"]
    monkeypatch.setattr(sys, "argv", ["train.py", *secret])
    assert train(folder, shards, *(text.lstrip("+") for text in secret)) == 0
    assert train(folder, shards, *(text.lstrip("+") for text in secret), "--resume") == 0
    state = torch.load(folder / "checkpoint_final.pth", weights_only=True)
    shown = capsys.readouterr()
    output = (folder / "log-rank0.txt").read_text() + shown.err + shown.out
    assert "config: train.wandb" not in output  # no difference is seen
    for text in (
        output,
        (folder / "provenance.json").read_text(),
        repr(state["config"]),
        repr(state["provenance"]),
    ):
        assert "hush" not in text
    assert "https://***@host/x?token=***" in state["config"] and state["provenance"]["command"][1].endswith(
        "***'"
    )
    assert "https://me:hush@host/x?token=hush" in (folder / "config.yaml").read_text()


@pytest.mark.skipif(torch.cuda.is_available(), reason="a machine without GPU")
def test_the_cpu_is_used_only_when_asked_for(
    shards: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = arguments(tmp_path / "run", shards)
    at = given.index("--num-gpus")
    assert run_main(main, [*given[:at], *given[at + 2 :]]) == 2
    assert re.search(r"error: --num-gpus: missing, and no usable GPU .*--num-gpus 0", capsys.readouterr().err)
    assert not (tmp_path / "run").exists()


def test_a_recipe_is_known_by_its_name(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [
        "--config",
        "meru_demo",
        "--num-gpus",
        "0",
        "--output-dir",
        str(tmp_path / "run"),
        "train.seed=-1",
    ]
    assert run_main(main, given) == 2
    assert "train.seed: got -1" in capsys.readouterr().err


def test_a_spherical_model_stores_its_root(shards: str, tmp_path: Path) -> None:
    assert train(tmp_path / "clip", shards, "train.num_iterations=2", model="clip") == 0
    root = torch.load(tmp_path / "clip" / "checkpoint_final.pth", weights_only=True)["root"]
    assert root.shape == (128,)
    assert root.norm().item() == pytest.approx(1.0, abs=1e-6)


def test_the_root_takes_each_sample_at_most_once(shards: str, tmp_path: Path) -> None:
    more = ["train.num_iterations=2", "train.root_samples=100000"]
    assert train(tmp_path / "clip", shards, *more, model="clip") == 0
    assert "root: mean embedding of 16 training samples" in (tmp_path / "clip" / "log-rank0.txt").read_text()


def test_starting_from_weights_lists_what_differs(finished: Path, shards: str, tmp_path: Path) -> None:
    weights = f"train.init_checkpoint={finished / 'checkpoint_final.pth'}"
    assert train(tmp_path / "b", shards, weights, "train.num_iterations=2", model="clip") == 0
    log = (tmp_path / "b" / "log-rank0.txt").read_text()
    metrics = (tmp_path / "b" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(metrics[0])["iteration"] == 2  # a new run
    assert "unexpected: visual_head.log_scale, textual_head.log_scale, geometry.log_curv" in log.replace(
        "\n", " "
    )


def test_a_second_stage_trains_what_it_names_on_stretched_positions(
    finished: Path, shards: str, tmp_path: Path
) -> None:
    weights = finished / "checkpoint_final.pth"
    stage = [f"train.init_checkpoint={weights}", "train.num_iterations=3", "model.textual.context_length=248",
             "optim.parameters.trainable=[model.textual.posit_embed,model.scorer.*]"]  # fmt: skip
    assert train(tmp_path / "b", shards, *stage, "train.init_positions=stretch") == 0
    before, after = (
        torch.load(path, weights_only=True)["model"]
        for path in (weights, tmp_path / "b" / "checkpoint_final.pth")
    )
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"textual.posit_embed", "scorer.log_scale"}
    assert after["textual.posit_embed"].shape == (248, 16)
    assert torch.allclose(after["textual.posit_embed"][20::4], before["textual.posit_embed"][20:], atol=5e-3)
    log = (tmp_path / "b" / "log-rank0.txt").read_text()
    assert "textual.posit_embed stretched from 77 to 248" in log and re.search(
        r"all +[\d,]+ +3,969 ", log
    )  # 248 x 16 + 1 trainable


BAD = {
    "unknown key": (["train.total_batchsize=8"], r"train\.total_batchsize.*train\.total_batch_size"),
    "wrong type": (["train.total_batch_size=many"], r"train\.total_batch_size.*many"),
    "sweep": (["train.seed=1,2"], r"train\.seed"),
    "batch that ranks cannot share": (
        ["train.total_batch_size=0"],
        r"train\.total_batch_size: got 0; expected a whole number of at least 1",
    ),
    "precision": (["train.amp=half"], r"train\.amp: got 'half'"),
    "warm-up longer than the run": (["optim.lr_scheduler.warmup_steps=60"], "warmup_steps: got 60"),
    "GPUs that are not there": (["--num-gpus", "64"], "--num-gpus: got 64"),
    "frozen by a name that is not there": (
        ["optim.parameters.trainable=[model.scorer.logscale]"],
        r"'model\.scorer\.logscale' names no trainable parameter; the closest is model\.scorer\.log_scale",
    ),
    "other positions": (
        ["train.init_positions=long", "train.init_checkpoint=x.pth"],
        "train.init_positions: got 'long'",
    ),
    "no iterations": (
        ["train.num_iterations=0"],
        r"train\.num_iterations: got 0; expected a whole number of at least 1",
    ),
    "negative seed": (["train.seed=-1"], r"train\.seed: got -1"),
    "negative workers": (["train.num_workers=-1"], r"train\.num_workers: got -1"),
    "texts longer than the encoder takes": (
        ["model.textual.context_length=16", "dataset.tokenizer.context_length=77"],
        r"dataset\.tokenizer\.context_length: got 77, but model\.textual\.context_length is 16",
    ),
    "images of another size": (
        ["model.visual.image_size=32", "dataset.image_transform.size=64"],
        r"dataset\.image_transform\.size: got 64, but model\.visual\.image_size is 32",
    ),
    "a decay below 0": (
        ["optim.parameters.weight_decay=-1"],
        r"optim\.parameters\.weight_decay: got -1; expected a number of at least 0",
    ),
    "a rate that is not a number": (["optim.optimizer.lr=nan"], r"optim\.optimizer\.lr: got nan"),
    "betas of 1": (["optim.optimizer.betas=[0.9,1]"], r"optim\.optimizer\.betas\.1: got 1"),
    "a curvature below 0": (["model.geometry.curv_init=-1"], r"model\.geometry\.curv_init: got -1"),
    "a head of no features": (
        ["model.visual_head.out_features=0"],
        r"model\.visual_head\.out_features: got 0; expected a whole number of at least 1",
    ),
    "a weight that is not a number": (
        ["train.objective.weights.contrastive=nan"],
        r"train\.objective\.weights\.contrastive: got nan",
    ),
    "cones of no width": (
        ["train.objective.terms.entailment.aperture_factor=0"],
        r"train\.objective\.terms\.entailment\.aperture_factor: got 0",
    ),
    "more bad samples than all": (["dataset.max_bad_fraction=2"], r"dataset\.max_bad_fraction: got 2"),
    "clipping to nothing": (["train.grad_clip_norm=0"], r"train\.grad_clip_norm: got 0; .* above 0"),
    "no schedule": (["~optim.lr_scheduler"], r"optim\.lr_scheduler: got None; expected a mapping"),
    "a setting that is none": (["+train.note=first"], r"unknown key 'train\.note'"),
    "no samples for the root": (["train.root_samples=0"], r"train\.root_samples: got 0"),
    "fewer GPUs than none": (
        ["--num-gpus", "-1"],
        "--num-gpus: got -1; expected a whole number of at least 0",
    ),
    "no window": (["dataset.shuffle_window=0"], r"dataset\.shuffle_window: got 0"),
    "url without scheme": (
        ["--num-machines", "2", "--dist-url", "localhost:1"],
        r"--dist-url: got 'localhost:1'; expected tcp://",
    ),
    "a target that does not import": (["train.objective._target_=hypvl.losses.Nothing"], "Nothing"),
}


@pytest.mark.parametrize("case", BAD, ids=str)
def test_bad_input_is_one_line_exit_2_and_nothing_written(
    case: str, shards: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more, message = BAD[case]
    assert train(tmp_path / "run", shards, *more) == 2
    error = capsys.readouterr().err
    lines = [line for line in error.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert re.search(message, lines[0])
    assert "Traceback" not in error
    assert not (tmp_path / "run").exists()


def test_a_glob_without_files_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(tmp_path / "run", f"dataset.tarfiles=[{tmp_path}/none/*.tar]") == 1
    assert re.search(r"error: .*none/\*\.tar: matches no file", capsys.readouterr().err)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("below", ["", "x", "x/y"])
def test_a_file_as_output_folder_is_refused(
    below: str, shards: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes.md").write_text("mine")
    assert train(tmp_path / "notes.md" / below, shards) == 2
    assert re.search(r"error: --output-dir: got .*notes\.md is not a folder", capsys.readouterr().err)
    assert (tmp_path / "notes.md").read_text() == "mine"


def test_an_objective_that_misses_a_view_is_one_line(
    shards: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    needs = "++train.objective.terms.contrastive.pairs=[['image:box_image',text]]"
    assert train(tmp_path / "run", shards, needs) == 2
    assert re.search(r"error: train\.objective: needs 'box_image', but the batch", capsys.readouterr().err)
    assert not (tmp_path / "run").exists()  # known before the first step


def test_labels_that_the_data_lack_are_one_line(
    shards: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path / "run", shards, "++train.objective.terms.contrastive.labels=labels") == 2
    said = (
        r"error: train\.objective: needs 'labels', but the batch has only image, text; .*mapper\.labels=true"
    )
    assert re.search(said, capsys.readouterr().err)
    assert not (tmp_path / "run").exists()


def test_resuming_a_finished_run_changes_nothing(finished: Path, shards: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    before = (folder / "checkpoint_final.pth").read_bytes()
    assert train(folder, shards, "--resume") == 0
    assert "already at 6 of 6 iterations" in (folder / "log-rank0.txt").read_text()
    assert (folder / "checkpoint_final.pth").read_bytes() == before


def test_the_data_are_counted_once(shards: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(tmp_path / "run", shards) == 0  # with a root of embeddings at its end
    output = capsys.readouterr().err + (tmp_path / "run" / "log-rank0.txt").read_text()
    assert output.count("16 samples in 2 shards") == 1


def test_a_folder_with_a_run_is_not_overwritten(
    finished: Path, shards: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted((p.name, p.stat().st_mtime_ns) for p in finished.iterdir())
    assert train(finished, shards) == 2
    assert "already holds a run (checkpoint_final.pth); add --resume" in capsys.readouterr().err
    assert sorted((p.name, p.stat().st_mtime_ns) for p in finished.iterdir()) == before


def test_other_data_refuse_to_resume(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tar(tmp_path / "other.tar", [m for i in range(8) for m in redcaps(f"x{i}", 50 + i)])
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    assert train(folder, f"dataset.tarfiles=[{tmp_path}/other.tar]", "--resume") == 1
    assert "cannot resume" in capsys.readouterr().err


def test_bad_samples_are_replaced_counted_and_too_many_are_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    members = [m for i in range(12) for m in redcaps(f"g{i}", i)]
    write_tar(tmp_path / "data.tar", [*members, ("bad.jpg", b"no image"), ("bad.json", b'{"caption": "x"}')])
    data = f"dataset.tarfiles=[{tmp_path}/data.tar]"
    assert train(tmp_path / "kept", data, "dataset.max_bad_fraction=0.5") == 0
    log = (tmp_path / "kept" / "log-rank0.txt").read_text()
    assert re.search(r"data: \d+ of \d+ samples \(.*\) could not be read \(data(\.tar)?/bad", log)
    last = json.loads((tmp_path / "kept" / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["bad_samples"] >= 1
    listed = [json.loads(line) for line in (tmp_path / "kept" / "bad_samples.jsonl").read_text().splitlines()]
    assert [line["key"].rpartition("/")[2] for line in listed] == ["bad"]  # once, however often it was read
    assert re.findall(r"data: (\d+) more bad samples? \(", log) == ["1"]
    capsys.readouterr()
    assert train(tmp_path / "stopped", data, "dataset.max_bad_fraction=0.001") == 1
    assert "max_bad_fraction" in capsys.readouterr().err


def test_a_run_that_explodes_keeps_its_good_checkpoints(
    shards: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["train.num_iterations=40", "train.checkpoint_period=1", "train.max_skipped_steps=10"]
    assert train(tmp_path, shards, *more, "optim.optimizer.lr=1e25") == 1
    said = capsys.readouterr().err
    assert re.search(r"error: training: .*not finite", said) and "Traceback" not in said
    saved = [torch.load(path, weights_only=True) for path in sorted(tmp_path.glob("*.pth"))]
    assert saved[0]["iteration"] == 1  # the step of rate 0
    assert all(x.isfinite().all() for content in saved for x in content["model"].values())
    records = [
        json.loads(line, parse_constant=pytest.fail)
        for line in (tmp_path / "metrics.jsonl").read_text().splitlines()
    ]
    assert records[0]["iteration"] == 2 and records[-1]["skipped_steps"] >= 1


def test_global_generators_are_seeded(shards: str, tmp_path: Path) -> None:
    """Python's and NumPy's, too: two equal runs save equal states."""
    states = []
    for name in ("a", "b"):
        random.seed(name)
        assert train(tmp_path / name, shards, "train.num_iterations=2") == 0
        states.append(torch.load(tmp_path / name / "checkpoint_final.pth", weights_only=True)["rng"][0])
    assert states[0]["python"] == states[1]["python"]
    assert torch.equal(states[0]["numpy"][1], states[1]["numpy"][1])


def test_a_failing_closing_check_keeps_the_final_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Few samples are judged at the end only."""
    members = [m for i in range(10) for m in redcaps(f"g{i}", i)]
    broken = [m for i in range(3) for m in ((f"b{i}.jpg", b"no image"), (f"b{i}.json", b'{"caption": "x"}'))]
    write_tar(tmp_path / "data.tar", [*members, *broken])
    data = [
        f"dataset.tarfiles=[{tmp_path}/data.tar]",
        "dataset.max_bad_fraction=0.1",
        "train.num_iterations=2",
    ]
    assert train(tmp_path / "run", *data) == 1
    assert "max_bad_fraction" in capsys.readouterr().err
    assert torch.load(tmp_path / "run" / "checkpoint_final.pth", weights_only=True)["iteration"] == 2


def command(output: Path, shards: str, *more: str) -> list[str]:
    return [sys.executable, str(ROOT / "scripts" / "train.py"), *arguments(output, shards, *more)]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}

"""Fine-tuning: locked blocks, decayed rates, windows and an average of the weights, resumed and evaluated."""

from pathlib import Path

import pytest
import torch

from hypvl.cli.evaluate import main as evaluate
from tests.cli.test_evaluate import colors, config
from tests.cli.test_train import finished as finished, shards as shards, train

TUNED = [
    "model.visual.depth=2", "model.textual.arch=L2_W16_A2", "train.seed=1",
    "+optim.parameters.unlocked_blocks={model.textual: 1}",
    "+optim.parameters.layer_decay={model.visual: 0.5}", "+optim.parameters.backbone_scale={model.visual: 0.5}",
    "+optim.parameters.windows={model.visual*: [0,4], model.textual*: [2,null]}",
    "+optim.parameters.weight_decay_end=0.4", "optim.lr_scheduler._target_=hypvl.training.schedules.half_cosine",
    "+train.teachers.ema={_target_: hypvl.training.teachers.EMATeacher, momentum: 0.5, warmup: true}",
]  # fmt: skip


@pytest.mark.slow  # two runs
def test_locked_blocks_stay_a_resumed_run_is_the_same_and_the_average_is_evaluated(
    shards: str, tmp_path: Path
) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert train(whole, shards, *TUNED, model="clip") == 0
    stopped.mkdir()
    (stopped / "checkpoint_00000003.pth").write_bytes((whole / "checkpoint_00000003.pth").read_bytes())
    assert train(stopped, shards, *TUNED, "--resume", model="clip") == 0
    half, one, two = (
        torch.load(path, weights_only=True)
        for path in (
            whole / "checkpoint_00000003.pth", whole / "checkpoint_final.pth", stopped / "checkpoint_final.pth",
        )
    )  # fmt: skip
    for part in ("model", "teachers"):
        states = (one[part], two[part]) if part == "model" else (one[part]["ema"], two[part]["ema"])
        assert all(torch.equal(states[0][name], states[1][name]) for name in states[0]), part
    same = {name for name, tensor in one["model"].items() if torch.equal(tensor, half["model"][name])}
    parameters = set(one["optimizer_parameters"])
    assert not any(f"model.{name}" in parameters for name in same)
    locked = {"textual.token_embed.weight", "textual.posit_embed", "textual.resblocks.0.ln_1.weight"}
    assert locked <= same and not any(f"model.{name}" in parameters for name in locked)
    groups = one["optimizer"]["param_groups"]
    assert {(g.get("window"), g.get("lr_scale")) for g in groups} == {
        (None, None), ((2, None), None), ((0, 4), None), ((0, 4), 0.25), ((0, 4), 0.125), ((0, 4), 0.0625),
    }  # fmt: skip
    assert {g["weight_decay"] for g in groups if "weight_decay_end" in g} == {0.4}

    suite = config(tmp_path, colors=colors(tmp_path / "colors"))
    arguments = ["--config", suite, "--checkpoint-path", str(whole), "--device", "cpu"]
    assert evaluate([*arguments, "--weights", "ema"]) == 0
    assert (
        evaluate([*arguments, "--interpolate-from", str(whole / "checkpoint_00000003.pth"), "--alpha", "0.5"])
        == 0
    )


def test_what_is_asked_for_in_vain_is_refused_before_the_folder_is_made(
    shards: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = {
        "+optim.parameters.unlocked_blocks={model.visuals: 1}": "optim.parameters.unlocked_blocks: got 'model.vis",
        "+optim.parameters.windows={model.visual.*: [6,null]}": "optim.lr_scheduler: the window [6, null] of",
    }
    for override, message in wrong.items():
        assert train(tmp_path / "run", shards, override, model="clip") == 2
        assert f"error: {message}" in capsys.readouterr().err
        assert not (tmp_path / "run").exists()

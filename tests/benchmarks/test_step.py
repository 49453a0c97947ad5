import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from benchmarks import step
from benchmarks.step import CONTEXT, END, Ours, Theirs, batch_of, captions, flops, padded

CPU = torch.device("cpu")
TINY = (
    "model.visual.arch=vit_tiny_patch16_224",
    "+model.visual.timm_args={depth: 1, embed_dim: 16, num_heads: 2}",
    "model.visual.image_size=32",
    "model.textual.arch=L1_W16_A2",
    "model.visual_head.out_features=8",
    "model.textual_head.out_features=8",
)


@pytest.fixture
def tiny_theirs(tmp_path: Path) -> str:
    import open_clip

    vision = {"image_size": 32, "layers": 1, "width": 16, "head_width": 8, "patch_size": 16}
    text = {"context_length": CONTEXT, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    name = "hypvl-tiny"
    (tmp_path / f"{name}.json").write_text(
        json.dumps({"embed_dim": 8, "vision_cfg": vision, "text_cfg": text})
    )
    open_clip.add_model_config(tmp_path / f"{name}.json")
    return name


@pytest.mark.slow
def test_one_tiny_run_prints_every_key(
    tiny_theirs: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["step", "--batch", "4", "--repeats", "1", "--bf16", "--theirs", tiny_theirs, "--ours", *TINY]
    monkeypatch.setattr("sys.argv", arguments)
    step.main()
    figures: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert figures["benchmark"] == "step" and figures["batch"] == 4
    names = {"", "_padded", "_fused", "_bf16", "_both_bf16"}
    assert all(figures[f"throughput_ratio{name}"] > 0 for name in names)
    assert {"images_per_second", "cpu_bf16", "machine", "tokens", "device", "repeats"} <= figures.keys()


def test_captions_have_the_asked_length_and_an_end() -> None:
    made = captions(4000, 12)
    lengths = (made != 0).sum(1)
    assert lengths.float().mean().item() == pytest.approx(12, abs=0.2)
    assert ((made == END).sum(1) == 1).all() and (made.gather(1, lengths[:, None] - 1) == END).all()
    assert made.unique().numel() > 1000


@pytest.mark.slow
def test_padding_is_computed_and_changes_nothing() -> None:
    ours, batch = Ours(TINY, CPU), batch_of(4, 12, size=32)
    wide = padded(batch)
    assert wide["text"].shape == (4, CONTEXT) and wide["text_lengths"].tolist() == [CONTEXT] * 4
    assert ours.loss(wide).item() == pytest.approx(ours.loss(batch).item(), rel=1e-6)
    assert flops(ours, wide) > 1.2 * flops(ours, batch)


def test_both_losses_are_the_same_function(tiny_theirs: str) -> None:
    ours, theirs = Ours(TINY, CPU), Theirs(tiny_theirs, CPU)
    batch = batch_of(4, 12, size=32)
    _, ctx = ours.trainer.learner(batch)
    image, text = (F.normalize(ctx.features(view)) for view in ours.trainer.learner.views)
    scale = ours.trainer.learner.model.scorer.scale
    expected = theirs.loss_of(image, text, scale)
    assert ours.loss(batch).item() == pytest.approx(expected.item(), rel=1e-5)  # fp32


def test_steps_change_the_weights_of_both(tiny_theirs: str) -> None:
    ours, theirs = Ours(TINY, CPU), Theirs(tiny_theirs, CPU)
    batch = batch_of(4, 12, size=32)
    parameters = [list(ours.trainer.learner.parameters()), list(theirs.model.parameters())]
    before = [[p.detach().clone() for p in side] for side in parameters]
    ours.run([batch, batch], 2)  # the rate of the first step is 0
    theirs.run(batch["image"] / 255, padded(batch)["text"])
    for side, old in zip(parameters, before, strict=True):
        assert sum(not torch.equal(p, q) for p, q in zip(side, old, strict=True)) > 0.8 * len(old)
    assert ours.trainer.iteration == 2


@pytest.mark.slow
def test_the_figures_of_a_gpu_can_be_made_anywhere() -> None:
    args = step.parser().parse_args(["--batch", "2", "--peak-tflops", "1e-3", "--ours", *TINY])
    result = step.on_gpu(args, CPU, steps=2)
    assert result["mfu"] == pytest.approx(result["tflops_per_second"] / 1e-3)
    assert 0 <= result["data_wait"] <= 1 and result["gpu_images_per_second"] > 0

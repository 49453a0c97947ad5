"""Reading checkpoint files, good and bad, and putting their weights into a model."""

import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from hypvl.encoders.text import TextTransformer
from hypvl.errors import CheckpointError
from hypvl.models import checkpoint_io
from hypvl.models.checkpoint_io import FORMAT_VERSION, load_checkpoint, load_without_moments
from hypvl.models.convert.meru import to_hypvl
from hypvl.models.weights import load_weights
from tests.models.convert.test_meru import official


def model_like(state: dict[str, torch.Tensor]) -> nn.Module:
    """A module with exactly these names and shapes, all zero; pixel statistics are buffers."""
    model = nn.Module()
    for name, tensor in state.items():
        *path, last = name.split(".")
        module = model
        for part in path:
            if not hasattr(module, part):
                module.add_module(part, nn.Module())
            module = getattr(module, part)
        if last.startswith("pixel"):
            module.register_buffer(last, torch.zeros_like(tensor))
        else:
            module.register_parameter(last, nn.Parameter(torch.zeros_like(tensor)))
    return model


class Touch:
    """A pickle that would make a file if it were executed."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_a_published_file_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint_00000007.pth"
    torch.save({"model": official(), "optimizer": {}, "scheduler": {}, "scaler": {}, "iteration": 7}, path)
    content = load_checkpoint(path)
    assert content["iteration"] == 7
    assert torch.equal(content["model"]["visual_proj.weight"], official()["visual_proj.weight"])


def test_a_bare_state_dict_and_safetensors_are_read(tmp_path: Path) -> None:
    state = to_hypvl(official())
    torch.save(state, tmp_path / "bare.pth")
    save_file(state, tmp_path / "model.safetensors")
    assert "config" not in load_checkpoint(tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"model": {"a": 1}}')
    for name in ("bare.pth", "model.safetensors"):
        loaded = load_checkpoint(tmp_path / name)["model"]
        assert all(torch.equal(loaded[key], state[key]) for key in state)
    assert load_checkpoint(tmp_path / "model.safetensors")["config"] == {"model": {"a": 1}}


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_code_in_a_pickle_is_refused_and_never_run(tmp_path: Path, legacy: bool) -> None:
    trace, path = tmp_path / "executed", tmp_path / "evil.pth"
    payload = {"model": official(), "extra": Touch(trace)}
    torch.save(payload, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(CheckpointError, match=r"evil\.pth: a pickle with more than tensors.*not executed"):
        load_checkpoint(path)
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Touch(trace)))
    with pytest.raises(CheckpointError, match=r"plain\.pth"):
        load_checkpoint(tmp_path / "plain.pth")
    assert not trace.exists()


def test_every_truncation_is_a_clear_error(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"model": official()}, buffer)
    whole = buffer.getvalue()
    save_file(official(), tmp_path / "m.safetensors")
    safe = (tmp_path / "m.safetensors").read_bytes()
    for content, name in ((whole, "cut.pth"), (safe, "cut.safetensors")):
        for length in (0, 1, 10, len(content) // 2, len(content) - 1):
            (tmp_path / name).write_bytes(content[:length])
            with pytest.raises(CheckpointError, match=rf"{name}: .*(truncated|no checkpoint|is empty)"):
                load_checkpoint(tmp_path / name)


@pytest.mark.parametrize(
    "content",
    [
        b"<html><body>404 not found</body></html>",
        b"\x00" * 100,
        b"version https://git-lfs.github.com/spec/v1\n",
        b"hello",
    ],
    ids=["html", "zeros", "lfs", "text"],
)
def test_what_is_no_checkpoint_is_said_to_be_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"x\.pth: .*no checkpoint"):
        load_checkpoint(tmp_path / "x.pth")


def test_a_zip_that_is_not_of_torch(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.pth", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(CheckpointError, match=r"no checkpoint"):
        load_checkpoint(tmp_path / "x.pth")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], r"holds a list; expected a dict"),
        ({"weights": 1, "epoch": 2}, r"its keys are weights, epoch; expected the key `model`"),
        ({"model": {"a": "b"}}, r"expected the key `model` with a state_dict"),
        ({}, r"its keys are none"),
        (
            {"model": {"a": torch.zeros(1)}, "format_version": FORMAT_VERSION + 1},
            r"format_version 2; expected at most 1",
        ),
    ],
)
def test_files_of_another_kind(tmp_path: Path, content: Any, message: str) -> None:
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(tmp_path / "x.pth")


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere\.pth: no such file"):
        load_checkpoint(tmp_path / "nowhere.pth")
    with pytest.raises(CheckpointError, match=r"a folder"):
        load_checkpoint(tmp_path)


def test_weights_and_buffers_come_from_the_file(tmp_path: Path) -> None:
    state = official()
    state["pixel_mean"] = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)  # as HyCoCLIP files have it
    torch.save({"model": state}, tmp_path / "x.pth")
    model = model_like(to_hypvl(state))
    report = load_weights(model, tmp_path / "x.pth")
    assert not report.differs
    assert report.loaded == 13
    assert str(report) == "no difference"
    assert torch.equal(dict(model.named_buffers())["visual.pixel_mean"], state["pixel_mean"])
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, to_hypvl(state)[name]), name


def test_a_clip_file_in_a_hyperbolic_model_is_explained() -> None:
    model = model_like(to_hypvl(official()))
    with pytest.raises(
        CheckpointError,
        match=r"geometry is without a curvature in the file, hyperbolic \(.*\) in the model \(3 missing: ",
    ):
        load_weights(model, official(hyperbolic=False))


def test_another_width_is_explained_and_nothing_is_copied() -> None:
    wide = official()
    wide["visual.cls_token"] = torch.ones(1, 1, 8)
    model = model_like(to_hypvl(official()))
    with pytest.raises(
        CheckpointError,
        match=r"width of model.visual is 8 in the file, 4 in the model \(1 of another shape: .*"
        r"cls_token \(\(1, 1, 8\) in the file, expected \(1, 1, 4\)\)",
    ):
        load_weights(model, {"model": wide})
    assert all(tensor.count_nonzero() == 0 for tensor in model.state_dict().values())


def test_not_strict_copies_what_fits_and_reports_the_rest() -> None:
    given = to_hypvl(official())
    given["visual.trunk.cls_token"] = torch.ones(1, 1, 8)
    given["geometry.extra"] = torch.ones(1)
    del given["textual.posit_embed"]
    model = model_like(to_hypvl(official()))
    report = load_weights(model, given, strict=False)
    assert report.missing == ("textual.posit_embed",)
    assert report.unexpected == ("geometry.extra",)
    assert report.misshaped == ("visual.trunk.cls_token ((1, 1, 8) in the file, expected (1, 1, 4))",)
    assert report.loaded == 11
    state = model.state_dict()
    assert torch.equal(state["visual_head.projection.weight"], given["visual_head.projection.weight"])
    assert state["visual.trunk.cls_token"].count_nonzero() == 0


def test_a_file_of_which_nothing_fits_is_an_error_even_when_not_strict() -> None:
    model = model_like(to_hypvl(official()))
    with pytest.raises(CheckpointError, match=r"does not fit"):
        load_weights(model, {"scorer.other": torch.zeros(1)}, strict=False)
    with pytest.raises(CheckpointError, match=r"expected a state_dict"):
        load_weights(model, {"iteration": 3})


def texts(length: int, **options: Any) -> nn.Module:
    """A model whose text part alone is real."""
    torch.manual_seed(length)
    model = nn.Module()
    model.textual = TextTransformer("L1_W8_A2", vocab_size=30, context_length=length, **options)
    model.scorer = nn.Module()
    model.scorer.log_scale = nn.Parameter(torch.zeros(()))
    return model


def test_positions_are_stretched_on_request_only() -> None:
    short, long = texts(77), texts(248)
    state = {"model": short.state_dict()}
    before = long.textual.posit_embed.detach().clone()
    with pytest.raises(CheckpointError, match=r"1 of another shape: textual\.posit_embed \(\(77, 8\)"):
        load_weights(long, state)
    report = load_weights(long, state, strict=False)
    assert len(report.misshaped) == 1 and torch.equal(long.textual.posit_embed, before)
    assert not load_weights(long, state, positions="stretch").differs
    assert torch.equal(long.textual.posit_embed[:20], short.textual.posit_embed[:20])
    assert torch.equal(long.textual.posit_embed[20::4], short.textual.posit_embed[20:])
    again = texts(248)
    assert not load_weights(again, {"model": long.state_dict()}, positions="stretch").differs
    assert torch.equal(again.textual.posit_embed, long.textual.posit_embed)  # long already: taken as it is


def test_a_second_table_starts_equal_on_request_only() -> None:
    short, long = texts(77), texts(248, fixed_positions=20)
    with pytest.raises(CheckpointError, match=r"missing: textual\.posit_embed_res"):
        load_weights(texts(77, fixed_positions=20), {"model": short.state_dict()})
    assert not load_weights(long, {"model": short.state_dict()}, positions="stretch").differs
    assert torch.equal(long.textual.posit_embed, long.textual.posit_embed_res)
    with torch.no_grad():
        long.textual.posit_embed_res.add_(1.0)  # trained: what the file has stays
    again = texts(248, fixed_positions=20)
    load_weights(again, {"model": long.state_dict()}, positions="stretch")
    assert torch.equal(again.textual.posit_embed_res, long.textual.posit_embed_res)


def test_lengths_that_do_not_fit_and_unknown_names_are_said() -> None:
    state = {"model": texts(77).state_dict()}
    with pytest.raises(
        CheckpointError, match=r"77 positions of checkpoint become 248, but the model has 200"
    ):
        load_weights(texts(200), state, positions="stretch")
    with pytest.raises(CheckpointError, match=r"the model has no textual\.posit_embed"):
        load_weights(model_like({"scorer.log_scale": torch.zeros(())}), state, positions="stretch")
    with pytest.raises(
        ValueError, match="positions: got 'strech'; expected 'interpolate', 'stretch' or 'exact'"
    ):
        load_weights(texts(77), state, positions="strech")  # type: ignore[arg-type]


@pytest.mark.parametrize("load", [load_checkpoint, load_without_moments])
def test_a_checkpoint_that_its_run_removes_while_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, load: Callable[[Path], dict[str, Any]]
) -> None:
    """Of the run's folder the next one is read; a file that is named is said to be gone, not to be damaged."""
    real = checkpoint_io._read_torch

    def write(iteration: int) -> Path:
        path = tmp_path / f"checkpoint_{iteration:08d}.pth"
        torch.save({"model": {"a": torch.tensor([float(iteration)])}}, path)
        (tmp_path / "last_checkpoint.txt").write_text(path.name)
        return path

    def removed(path: Path, **given: Any) -> Any:
        if path.name == "checkpoint_00000001.pth":
            write(2)
            path.unlink()
        return real(path, **given)

    monkeypatch.setattr(checkpoint_io, "_read_torch", removed)
    write(1)
    assert load(tmp_path)["model"]["a"].tolist() == [2.0]
    first = write(1)
    with pytest.raises(
        CheckpointError, match="was removed while it was read, as its run keeps only the last"
    ):
        load(first)
    with pytest.raises(CheckpointError, match="no such file"):
        load(first)

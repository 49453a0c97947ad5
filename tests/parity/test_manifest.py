"""Names, shapes and numbers of parameters of the published models: ours, exported, are the same."""

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from hypvl.config import instantiate
from hypvl.models.checkpoint_io import load_checkpoint
from hypvl.models.convert.meru import NAMES, to_hypvl, to_official
from hypvl.models.dual_encoder import DualEncoder
from hypvl.models.hub import list_models, load_config
from hypvl.models.weights import load_weights
from tests.models.convert.test_meru import official
from tests.models.test_checkpoint_io import model_like
from tests.parity.reference import cases, load, number

MODELS = cases("state_dict_manifest", "models")


def definition_of(name: str, entry: dict[str, Any]) -> str:
    """The definition that a published model is built from: by its family, or MERU for its descendants."""
    kind, size = re.fullmatch(r"(\w+)_([SBL])", name).groups()  # type: ignore[union-attr]  # None fails the test
    own = f"{kind.lower()}_vit_{size.lower()}"
    return own if own in list_models() else f"meru_vit_{size.lower()}"


@cache
def exported(definition: str) -> dict[str, torch.Tensor]:
    with torch.device("meta"):
        return to_official(instantiate(load_config(definition).model).state_dict())


@cache
def parts(definition: str) -> DualEncoder:
    """The model with encoders that have a width and nothing else."""
    config = load_config(definition).model
    config.visual = {"_target_": f"{__name__}.Width", "width": 384}
    config.textual = {"_target_": f"{__name__}.Width", "width": 512}
    return instantiate(config)


class Width(nn.Module):
    """An encoder without parameters."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width, self.image_size, self.context_length = width, 224, 77


def expected_shapes(entry: dict[str, Any]) -> dict[str, tuple[int, ...]] | None:
    """name -> shape, where the manifest lists all of them: in full, or as an addition to CLIP_S."""
    content = load("state_dict_manifest")
    assert content is not None
    if "state_dict" in entry:
        listed = entry["state_dict"]
    elif "added_to_CLIP_S" in entry and "CLIP_S" in content["models"]:
        listed = {**content["models"]["CLIP_S"]["state_dict"], **entry["added_to_CLIP_S"]}
        for name in entry.get("missing_from_CLIP_S", ()):
            del listed[name]
    else:
        return None
    return {name: tuple(shape) for name, (shape, _) in listed.items()}


@pytest.mark.parametrize("case", MODELS)
def test_names_and_shapes(case: tuple[str, dict[str, Any]]) -> None:
    name, entry = case
    state = exported(definition_of(name, entry))
    shapes = {key: tuple(tensor.shape) for key, tensor in state.items()}
    assert len(state) == entry["info"]["n_state_dict"]
    listed = expected_shapes(entry)
    if listed is not None:
        assert shapes == listed
    for key in entry.get("names_not_in_CLIP_S", ()):
        assert key in shapes
    for key, shape in entry.get("shapes_that_differ_sample", {}).items():
        assert shapes[key] == tuple(shape), key
    for key in entry["info"]["buffers"]:
        assert key in shapes
    order = entry.get("order_of_first_10_keys", [])
    assert list(state)[: len(order)] == order


@pytest.mark.parametrize("case", MODELS)
def test_dtypes_and_counts(case: tuple[str, dict[str, Any]]) -> None:
    name, entry = case
    for key, (_, dtype) in entry.get("state_dict", {}).items():
        assert str(exported(definition_of(name, entry))[key].dtype) == f"torch.{dtype}", key
    with torch.device("meta"):
        model = instantiate(load_config(definition_of(name, entry)).model)
    info = entry["info"]
    assert sum(p.numel() for p in model.parameters()) == info["n_parameters_total"]
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == info["n_parameters_trainable"]
    frozen = [key for key, p in model.named_parameters() if not p.requires_grad]
    translated = {NAMES.get(key, key.replace("visual.", "visual.trunk.")) for key in info["not_trainable"]}
    assert set(frozen) == translated


@pytest.mark.parametrize("case", MODELS)
def test_scalars_at_the_start_and_clamps(case: tuple[str, dict[str, Any]]) -> None:
    name, entry = case
    if "init_scalars" not in entry:
        pytest.skip(f"{name} has no init_scalars")
    model = parts(definition_of(name, entry))
    state = model.state_dict()
    for key, value in entry["init_scalars"].items():
        # fp32 constants that were computed in another order: one unit in the last place
        assert float(state[NAMES[key]]) == pytest.approx(number(value), rel=2e-7, abs=1e-7), key
    clamp = entry.get("curv_clamp_log")
    if clamp:
        curvature = dict(model.geometry.named_parameters(recurse=False))["log_curv"]
        start = curvature.detach().clone()
        for far, bound in ((9.0, clamp["max"]), (-9.0, clamp["min"])):
            with torch.no_grad():
                curvature.fill_(far)
            model.constrain_()
            assert float(curvature.detach()) == pytest.approx(bound, rel=2e-7, abs=2e-7)
        with torch.no_grad():
            curvature.copy_(start)


@pytest.mark.parametrize("case", MODELS)
def test_a_published_state_dict_converts_there_and_back(case: tuple[str, dict[str, Any]]) -> None:
    name, entry = case
    listed = expected_shapes(entry)
    if listed is None:
        pytest.skip(f"{name} does not list all its names")
    generator = torch.Generator().manual_seed(0)
    # Stride-0 tensors: the names and shapes of a whole model without its memory.
    state = {key: torch.rand((), generator=generator).expand(shape) for key, shape in listed.items()}
    length = listed["textual.attn_mask"][0]
    state["textual.attn_mask"] = torch.ones(length, length).triu(1) > 0
    for key in ("pixel_mean", "pixel_std"):
        if key in entry:
            state[key] = torch.tensor(entry[key]).view(3, 1, 1)
    ours = to_hypvl(state)
    with torch.device("meta"):
        wanted = instantiate(load_config(definition_of(name, entry)).model).state_dict()
    assert {key: t.shape for key, t in ours.items()} == {key: t.shape for key, t in wanted.items()}
    back = to_official(ours)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[key], state[key]) for key in state)
    for key in ("pixel_mean", "pixel_std"):
        if key in entry:  # the file's buffers win over the config's
            assert ours[f"visual.{key}"].flatten().tolist() == pytest.approx(entry[key], rel=1e-7)


def test_checkpoint_files_as_published_load(tmp_path: Path) -> None:
    content = load("state_dict_manifest")
    if content is None or "checkpoint_file" not in content:
        pytest.skip("state_dict_manifest.json is not there or has no checkpoint_file")
    trained = official()
    layouts = [layout["keys"] for layout in content["checkpoint_file"].values() if isinstance(layout, dict)]
    assert layouts
    for keys in layouts:
        torch.save({key: trained if key == "model" else {} for key in keys}, tmp_path / "checkpoint.pth")
        checkpoint = load_checkpoint(tmp_path / "checkpoint.pth")
        assert list(checkpoint) == keys
        model = model_like(to_hypvl(trained))
        assert not load_weights(model, checkpoint).differs
        assert all(
            torch.equal(tensor, to_hypvl(trained)[name]) for name, tensor in model.state_dict().items()
        )

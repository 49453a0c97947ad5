"""Models by name, config, folder, hub and checkpoint."""

import copy
import json
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import timm
import torch
import yaml
from huggingface_hub.errors import LocalEntryNotFoundError
from omegaconf import OmegaConf

import hypvl
from hypvl.config import LazyConfig, instantiate
from hypvl.errors import CheckpointError, ConfigError
from hypvl.models.checkpoint_io import load_checkpoint
from hypvl.models.convert.meru import to_official
from hypvl.models.hub import (
    create_model,
    from_pretrained,
    list_models,
    load_config,
    save_pretrained,
    stored_config,
)

TINY: dict[str, Any] = {
    "_target_": "hypvl.models.dual_encoder.DualEncoder",
    "visual": {
        "_target_": "hypvl.encoders.image.TimmImageEncoder",
        "arch": "vit_tiny_patch16_224",
        "image_size": 32,
        "timm_args": {"depth": 1, "embed_dim": 16, "num_heads": 2},
    },
    "textual": {
        "_target_": "hypvl.encoders.text.TextTransformer",
        "arch": "L1_W64",
        "vocab_size": 50,
        "context_length": 9,
    },
    "visual_head": {
        "_target_": "hypvl.encoders.heads.ScaledProjectionHead",
        "_partial_": True,
        "out_features": 8,
    },
    "textual_head": {
        "_target_": "hypvl.encoders.heads.ScaledProjectionHead",
        "_partial_": True,
        "out_features": 8,
    },
    "geometry": {"_target_": "hypvl.geometry.lorentz.Lorentz", "curv_init": 0.5},
    "scorer": {"_target_": "hypvl.geometry.scorers.NegativeDistance"},
}
IMAGES = torch.arange(2 * 3 * 32 * 32, dtype=torch.int64).remainder(251).to(torch.uint8).view(2, 3, 32, 32)
TOKENS = torch.tensor([[48, 3, 49, 0], [48, 5, 6, 49]])


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    left, right = a.state_dict(), b.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@pytest.fixture
def model() -> torch.nn.Module:
    torch.manual_seed(3)
    return create_model(TINY)


def test_the_face_of_the_package() -> None:
    assert hypvl.create_model is create_model
    assert hypvl.list_models is list_models
    with pytest.raises(AttributeError, match="no attribute 'create_modell'"):
        _ = hypvl.create_modell  # type: ignore[attr-defined]
    assert set(hypvl.__all__) <= set(dir(hypvl))


def test_names_are_listed_and_filtered() -> None:
    assert set(list_models()) >= {f"{f}_vit_{s}" for f in ("clip", "meru", "atmg") for s in "sbl"}
    assert list_models("meru_vit_*") == ["meru_vit_b", "meru_vit_l", "meru_vit_s"]
    assert list_models("nothing*") == []


@pytest.mark.parametrize("name", list_models())
def test_every_definition_is_allowed_and_describes_its_name(name: str) -> None:
    definition = load_config(name).model
    family, _, size = name.partition("_vit_")
    widths = {"s": "small", "b": "base", "l": "large"}
    if not size:
        family, _, size = name.partition("_rn")
        assert definition.visual.arch == f"resnet{size}_clip"
    else:
        assert widths[size[0]] in definition.visual.arch
    geometry = instantiate(definition.geometry)
    # CLIP's sphere has its root nowhere; MERU learns a curvature from 1, ATMG keeps 0.1.
    curved = dict.fromkeys(
        ("meru", "hycoclip", "phyclip", "uncha", "meru_from_clip", "meru_from_clip_lora"), 1.0
    )
    curved |= {"argent": 1.0, "hyper3clip": 1.0, "hyper3clip_v1": 1.0}
    expected = {"atmg": 0.1, **curved}.get(family)
    assert geometry.stats().get("curv") == (None if expected is None else pytest.approx(expected, rel=1e-6))


def test_every_form_of_config_builds_the_same_model(tmp_path: Path) -> None:
    (tmp_path / "tiny.json").write_text(json.dumps({"model": TINY, "train": {"seed": 1}}))
    (tmp_path / "tiny.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create({"model": TINY})))
    (tmp_path / "tiny.py").write_text(f"model = {TINY!r}\n")
    forms: list[Any] = [TINY, {"model": TINY}, OmegaConf.create(TINY), OmegaConf.create({"model": TINY})]
    forms += [tmp_path / "tiny.json", str(tmp_path / "tiny.yaml"), tmp_path / "tiny.py"]
    models = []
    for form in forms:
        torch.manual_seed(0)
        models.append(create_model(form))
    assert all(same(models[0], other) for other in models[1:])
    assert not any(module.training for module in models[0].modules())


def test_what_it_builds_encodes(model: Any) -> None:
    assert (model.embed_dim, model.image_size, model.context_length) == (8, 32, 9)
    with torch.no_grad():
        images, texts = model.encode_image(IMAGES), model.encode_text(TOKENS)
        scores = model.scores(images, texts, query_modality="image", key_modality="text")
    assert images.shape == texts.shape == (2, 8)
    assert scores.shape == (2, 2)
    assert scores.isfinite().all()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("meru_vit_xl", r"meru_vit_xl: no model of that name.*closest: meru_vit_l"),
        ("MERU-ViT-B", r"no model of that name"),
        ("nowhere/config.py", r"nowhere/config\.py"),
        ({"train": {}}, r"config: keys train; expected the key `model`"),
        ({"model": {"_target_": "os.system", "command": "true"}}, r"os\.system"),
    ],
)
def test_what_is_no_model(name: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        create_model(name)


def test_a_json_file_cannot_name_any_function(tmp_path: Path) -> None:
    evil = copy.deepcopy(TINY)
    evil["geometry"] = {"_target_": "torch.hub.load", "repo_or_dir": "a/b", "model": "c"}
    (tmp_path / "config.json").write_text(json.dumps({"model": evil}))
    with pytest.raises(ConfigError, match=r"torch\.hub\.load"):
        create_model(tmp_path / "config.json")


def test_published_weights_by_path(tmp_path: Path, model: torch.nn.Module) -> None:
    torch.save({"model": to_official(model.state_dict()), "iteration": 3}, tmp_path / "published.pth")
    assert same(create_model(TINY, tmp_path / "published.pth"), model)
    with pytest.raises(ConfigError, match=r"without a config in it.*create_model\("):
        create_model(tmp_path / "published.pth")
    with pytest.raises(CheckpointError, match=r"does not fit the model"):
        create_model({**TINY, "visual": {**TINY["visual"], "timm_args": {"depth": 2, "embed_dim": 16, "num_heads": 2}}},
                     tmp_path / "published.pth")  # fmt: skip


def test_a_checkpoint_of_a_run_brings_its_own_config(tmp_path: Path, model: torch.nn.Module) -> None:
    text = LazyConfig.to_yaml(OmegaConf.create({"model": TINY}))
    torch.save({"format_version": 1, "model": model.state_dict(), "config": text}, tmp_path / "run.pth")
    assert same(create_model(tmp_path / "run.pth"), model)
    evil = text.replace("hypvl.geometry.lorentz.Lorentz", "os.system")
    torch.save({"model": model.state_dict(), "config": evil}, tmp_path / "evil.pth")
    with pytest.raises(ConfigError, match=r"os\.system"):
        create_model(tmp_path / "evil.pth")


def test_only_the_model_of_a_stored_config_is_checked(tmp_path: Path, model: torch.nn.Module) -> None:
    config: Any = {
        "model": copy.deepcopy(TINY),
        "train": {"size": 32, "objective": {"_target_": "mine.Loss"}},
    }
    config["model"]["visual"]["image_size"] = "${shape.side}"
    config |= {"shape": {"side": "${..width}", "other": "${model.textual.arch}"}, "width": 32}

    def write(content: Any) -> Path:
        text = yaml.safe_dump(content)
        torch.save({"model": model.state_dict(), "config": text}, tmp_path / "own_loss.pth")
        return tmp_path / "own_loss.pth"

    path = write(config)
    assert same(create_model(path), model)  # references out of the model are followed
    assert sorted(load_config(path)) == ["model", "shape", "width"]
    with pytest.raises(ConfigError, match=r"'mine\.Loss' at 'train\.objective\._target_'"):
        stored_config(yaml.safe_dump(config), source="x", parts=("model", "train"))
    config["width"] = {"_target_": "os.system", "command": "true"}  # used through a reference: checked
    with pytest.raises(ConfigError, match=r"os\.system"):
        create_model(write(config))
    config["width"], config["model"]["geometry"] = 32, {"_target_": "mine.Geometry"}
    with pytest.raises(
        ConfigError, match=r"mine\.Geometry.*--train-config LEAF\.py.*environment variable HYPVL"
    ):
        create_model(write(config))


def test_a_saved_folder_comes_back(tmp_path: Path, model: Any) -> None:
    root = torch.arange(8.0)
    folder = save_pretrained(model, {"model": TINY, "train": {"seed": 1}}, tmp_path / "a" / "b", root=root)
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert set(json.loads((folder / "config.json").read_text())) == {"format_version", "model"}
    assert same(from_pretrained(folder), model)
    assert same(create_model(folder), model)
    assert torch.equal(load_checkpoint(folder / "model.safetensors")["root"], root)
    with torch.no_grad():
        assert torch.equal(from_pretrained(folder).encode_text(TOKENS), model.encode_text(TOKENS))


def test_saving_with_the_config_of_another_model_writes_nothing(tmp_path: Path, model: Any) -> None:
    other = {**TINY, "textual": {**TINY["textual"], "context_length": 7}}
    with pytest.raises(CheckpointError, match=r"another model.*textual\.posit_embed"):
        save_pretrained(model, other, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_incomplete_folders_and_unknown_ids(tmp_path: Path, model: Any) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        from_pretrained(tmp_path / "empty")
    with pytest.raises(CheckpointError, match=r"no such folder; expected.*owner/name"):
        from_pretrained("no_such_folder")
    with pytest.raises(CheckpointError, match=r"gone\.pth: no such file; expected a checkpoint"):
        from_pretrained("gone.pth")
    (tmp_path / "page.pth").write_text("<!DOCTYPE html><title>Sign in</title>")
    with pytest.raises(
        CheckpointError,
        match=r"page\.pth: no checkpoint but a web page, .*; remove it and download the file itself",
    ):
        from_pretrained(tmp_path / "page.pth")
    for nothing in ("", "hf-hub:"):
        with pytest.raises(
            CheckpointError, match=r"source: got '.*'; expected a folder, a file, a web address"
        ):
            from_pretrained(nothing)
    folder = save_pretrained(model, TINY, tmp_path / "m")
    with pytest.raises(CheckpointError, match=r"only the hub has revisions"):
        from_pretrained(folder, revision="main")


def test_the_hub_is_asked_for_two_files(tmp_path: Path, model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_pretrained(model, TINY, tmp_path / "m")
    asked: dict[str, Any] = {}

    def download(**arguments: Any) -> str:
        asked.update(arguments)
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert same(create_model("hf-hub:owner/name"), model)
    assert same(from_pretrained("owner/name", revision="v1"), model)
    assert asked == {
        "repo_id": "owner/name", "revision": "v1", "allow_patterns": ["config.json", "model.safetensors"],
    }  # fmt: skip

    def offline(**arguments: Any) -> str:
        raise LocalEntryNotFoundError("offline")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(CheckpointError, match=r"owner/name: .*hub did not give it \(offline\)"):
        from_pretrained("owner/name")


FILES = {"_target_": "hypvl.evaluation.prediction_files.PredictionFiles", "folder": "store"}


@pytest.mark.parametrize(
    "definition", [FILES, {**TINY, "visual": FILES}, {**TINY, "image_transforms": [FILES]}]
)
@pytest.mark.parametrize("bare", [False, True])
def test_loading_a_model_builds_model_parts_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, definition: dict[str, Any], bare: bool
) -> None:
    """A checkpoint, a folder, a file or a mapping that names files to write writes nothing."""
    monkeypatch.chdir(tmp_path)
    content = definition if bare else {"model": definition}
    torch.save({"model": {"a": torch.zeros(1)}, "config": yaml.safe_dump(content)}, "x.pth")
    Path("config.json").write_text(json.dumps(content))
    Path("config.yaml").write_text(yaml.safe_dump(content))
    for source in ("x.pth", "config.json", "config.yaml", str(tmp_path), content):
        with pytest.raises(ConfigError, match=r"model\.|piece of a model"):
            load_config(source)  # type: ignore[arg-type]  # of mixed types
    assert not Path("store").exists()


def test_what_builds_no_dual_encoder_is_said() -> None:
    for node in (OmegaConf.create({"a": 1}), OmegaConf.create({**TINY, "_partial_": True})):
        with pytest.raises(ConfigError, match=r"config: `model` builds a \w+; expected a DualEnc"):
            create_model(OmegaConf.create({"model": node}))


def test_no_weights_are_fetched_where_a_file_brings_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that was trained from timm's weights loads offline, built as it was trained."""
    asked: list[bool] = []
    real = timm.create_model

    def create(name: str, *, pretrained: bool, **options: Any) -> torch.nn.Module:
        asked.append(pretrained)
        return real(name, pretrained=False, **options)

    monkeypatch.setattr("timm.create_model", create)
    visual = {**TINY["visual"], "arch": "vit_tiny_patch16_224.augreg_in21k", "pretrained": True}
    config = {"model": {**TINY, "visual": visual}}
    trained = create_model(config)
    assert asked == [True]
    save_pretrained(trained, config, tmp_path / "folder")
    torch.save({"model": trained.state_dict(), "config": yaml.safe_dump(config)}, tmp_path / "x.pth")
    for source in (tmp_path / "folder", tmp_path / "x.pth"):
        loaded = create_model(source)
        assert same(loaded, trained)
        assert loaded.visual.trunk.norm.eps == trained.visual.trunk.norm.eps == 1e-6  # not a scratch recipe's
    assert asked == [True] + [False] * (len(asked) - 1)


@pytest.mark.parametrize("device", ["nix", "cuda:999", "", "cpu:x"])
def test_a_device_that_cannot_be_used_is_said_before_anything_is_read(device: str) -> None:
    for make in (hypvl.create_model, hypvl.from_pretrained):
        with pytest.raises(
            ConfigError, match=rf"^device: '{device}' cannot be used \(.*\); expected cpu or cuda\.$"
        ):
            make("/not/there", device=device)

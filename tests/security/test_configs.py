"""Configs in checkpoints, runs, hub folders and zoos: whatever they name, nothing but parts of hypvl is built."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file

from hypvl.config import LazyConfig, instantiate
from hypvl.errors import ConfigError, UserError
from hypvl.geometry.base import Geometry
from hypvl.models.hub import create_model, from_pretrained, load_config
from hypvl.models.parts import rebuild

MODEL = "hypvl.models.dual_encoder.DualEncoder"
HEAD = "hypvl.encoders.heads.ProjectionHead"
#: Calls that would leave a mark, as plain data; MARK stands for its path.
CALLS: list[dict[str, Any]] = [
    {"_target_": "os.system", "_args_": ["touch MARK"]},
    {"_target_": "os.system", "command": "touch MARK"},
    {"_target_": "subprocess.check_output", "_args_": [["touch", "MARK"]]},
    {"_target_": "pathlib.Path.touch", "_args_": [{"_target_": "pathlib.Path", "_args_": ["MARK"]}]},
    {"_target_": "builtins.eval", "_args_": ["open('MARK', 'w')"]},
    {"_target_": "builtins.open", "_args_": ["MARK", "w"]},
    {"_target_": "hydra.utils.call", "config": {"_target_": "os.system", "command": "touch MARK"}},
    {"_target_": "hydra.utils.get_method", "path": "os.system"},
    {"_target_": "hydra._internal.instantiate._instantiate2.instantiate",
     "config": {"_target_": "os.mknod", "path": "MARK"}},
    {"_target_": "hypvl.config.os.system", "command": "touch MARK"},
    {"_target_": "hypvl.io.files.os.mknod", "_args_": ["MARK"]},
    {"_target_": "hypvl.models.hub.importlib.import_module", "_args_": ["antigravity"]},
    {"_target_": f"{MODEL}.__init__.__globals__", "x": 1},
    {"_target_": f"{HEAD}.__class__.__base__.__subclasses__"},
    {"_target_": "torch.hub.load", "repo_or_dir": "FOLDER", "model": "touch", "source": "local"},
    {"_target_": "hypvl.encoders.image_hub.TorchHubImageEncoder", "repo": "FOLDER", "entry": "touch"},
    {"_target_": "torch.load", "f": "FOLDER/evil.pth", "weights_only": False},
    {"_target_": "numpy.load", "file": "FOLDER/evil.npy", "allow_pickle": True},
    {"_target_": "functools.partial", "_args_": ["os.system", "touch MARK"], "_partial_": True},
    {"_target_": "omegaconf.OmegaConf.register_new_resolver", "name": "x", "resolver": "os.system"},
    {"_target_": "hypvl.encoders.heads.\u0420rojectionhead"},  # a Cyrillic letter
    {"_target_": "\uff48ypvl.encoders.heads.ProjectionHead"},  # of full width
    {"_target_": f"{HEAD}\n"}, {"_target_": f"{HEAD}\0"}, {"_target_": [HEAD]}, {"_target_": "${..kind}"},
]  # fmt: skip


def filled(data: Any, folder: Path) -> Any:
    text = json.dumps(data).replace("MARK", str(folder / "mark")).replace("FOLDER", str(folder))
    return json.loads(text)


def places(call: dict[str, Any]) -> list[dict[str, Any]]:
    """Where a call may hide in a config."""
    return [
        {"model": call},
        {"model": {"_target_": MODEL, "visual": call}},
        {"model": {"_target_": MODEL, "visual": {"_target_": HEAD, "in_features": [{"a": [call]}]}}},
        {"model": {"_target_": MODEL, "_args_": [call]}},
        {"model": {"_target_": MODEL, "_recursive_": False, "visual": call}},
        {"model": {"_target_": MODEL, "visual": {**call, "_partial_": True}}},
        {"model": {"_target_": MODEL, "visual": "${other}"}, "other": call},
        {"model": {"_target_": MODEL, "visual": "${other.0.x}"}, "other": [{"x": call}]},
        {
            "model": {"_target_": MODEL, "visual": {"_target_": "${name}"}},
            "name": call["_target_"],
            "other": call,
        },
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "hubconf.py").write_text(
        f"from pathlib import Path\nPath({str(tmp_path / 'mark')!r}).touch()\ndef touch(**_): ...\n"
    )
    return tmp_path


def as_checkpoint(data: Any, folder: Path) -> Path:
    torch.save({"model": {"a": torch.ones(1)}, "config": yaml.safe_dump(data)}, folder / "evil.pth")
    return folder / "evil.pth"


def as_hub_folder(data: Any, folder: Path) -> Path:
    place = folder / "hub"
    place.mkdir(exist_ok=True)
    (place / "config.json").write_text(json.dumps(data))
    save_file({"a": torch.ones(1)}, place / "model.safetensors")
    return place


def as_yaml(data: Any, folder: Path) -> Path:
    (folder / "config.yaml").write_text(yaml.safe_dump(data))
    return folder / "config.yaml"


def as_run(data: Any, folder: Path) -> Path:
    place = folder / "run"
    place.mkdir(exist_ok=True)
    as_yaml(data, place)
    as_checkpoint(data, place).rename(place / "checkpoint_final.pth")
    (place / "last_checkpoint.txt").write_text("checkpoint_final.pth")
    return place


READERS: dict[str, Callable[[Any, Path], Any]] = {
    "checkpoint": lambda data, folder: from_pretrained(as_checkpoint(data, folder)),
    "hub folder": lambda data, folder: from_pretrained(as_hub_folder(data, folder)),
    "run": lambda data, folder: create_model(as_run(data, folder)),
    "YAML": lambda data, folder: instantiate(LazyConfig.load(as_yaml(data, folder)).model),
    "mapping": lambda data, folder: create_model(data),
}


@pytest.mark.parametrize("reader", READERS)
def test_nothing_off_the_list_is_called(reader: str, folder: Path) -> None:
    for call in CALLS:
        for number, data in enumerate(places(filled(call, folder))):
            with pytest.raises(UserError) as caught:
                READERS[reader](data, folder)
            assert isinstance(caught.value, ConfigError), (call, number, caught.value)
            assert not (folder / "mark").exists(), (call, number)


@pytest.mark.parametrize(
    "key",
    [
        "\uff3ftarget\uff3f",
        "_target_ ",
        "_target_\u200b",
        "_TARGET_",
        "_target",
        "__target__",
        "a._target_",
        "_t\u0430rget_",
    ],
)
def test_a_key_that_looks_like_a_target_is_none(key: str, tmp_path: Path) -> None:
    config = LazyConfig.from_dict({"a": {key: "os.mknod", "path": str(tmp_path / "mark")}})
    assert instantiate(config.a)[key] == "os.mknod"
    assert not (tmp_path / "mark").exists()


def test_a_zoo_is_data(folder: Path) -> None:
    code = folder / "config.py"
    code.write_text(f"from pathlib import Path\nPath({str(folder / 'mark')!r}).touch()\nmodel = {{}}\n")
    zoo = folder / "zoo.json"
    zoo.write_text(json.dumps({"a": {"recipe": str(code), "url": "https://127.0.0.1:1/a.pth"}}))
    with pytest.raises(ConfigError, match=r"a\.recipe is '.*config\.py', which is code"):
        from_pretrained("a", zoo=zoo)
    assert not (folder / "mark").exists()


def test_parts_of_exports_are_built_from_the_list_only(folder: Path) -> None:
    for name in (
        "os.system",
        "hypvl.config.os.system",
        "builtins.eval",
        "hypvl.encoders.image_hub.TorchHubImageEncoder",
    ):
        record = {
            "class": name,
            "arguments": {"command": f"touch {folder / 'mark'}"},
            "state": {},
            "learned": [],
        }
        with pytest.raises(UserError, match="not on the allow-list"):
            rebuild(record, Geometry, source="export")
    assert not (folder / "mark").exists()


def test_a_python_config_beside_data_is_not_found_instead(folder: Path) -> None:
    """Names in data lead to no Python file: not beside it, not in the working folder."""
    for name in ("config.py", "meru_vit_s.py", "model.py"):
        (folder / name).write_text(
            f"from pathlib import Path\nPath({str(folder / 'mark')!r}).touch()\nmodel = 1\n"
        )
    for data in (
        {"model": "config.py"},
        {"model": "${config}"},
        {"_base_": "config.py"},
        {"defaults": ["config"]},
    ):
        for suffix in (".yaml", ".json"):
            path = folder / f"data{suffix}"
            path.write_text(json.dumps(data))
            with pytest.raises(UserError):
                create_model(path)
    with pytest.raises(UserError):
        load_config(folder)
    assert not (folder / "mark").exists()

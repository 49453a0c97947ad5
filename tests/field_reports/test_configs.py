"""Configs and command lines that other frameworks misread."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from hypvl.config import LazyCall, LazyConfig, instantiate
from hypvl.errors import ConfigError
from tests.config.parts import Part

LEAF = "from .common.base import model, train\ntrain.lr = 2 * train.lr\n"
BASE = (
    "from hypvl.config import LazyCall as L\nfrom tests.config.parts import Part\n"
    "model = L(Part)(width=8, heads=[L(Part)(size=1), L(Part)(size=2)])\n"
    "train = dict(lr=0.5, steps=100, warmup='${train.steps}', sizes=[1, 2, 3], nested=dict(a=1, b=2))\n"
)


def write(folder: Path) -> Path:
    (folder / "common").mkdir(parents=True)
    (folder / "common" / "base.py").write_text(BASE)
    (folder / "leaf.py").write_text(LEAF)
    return folder / "leaf.py"


@pytest.mark.parametrize("name", ["with space", "ünïcode 山", "run#1", "lr=0.1", "v[1]", "1.0", "a-b"])
def test_config_folders_of_any_name(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """detectron2: a config in a folder that is not a Python name cannot import its neighbours; any folder must do."""
    place = write(tmp_path / name)
    assert LazyConfig.load(place).train.lr == 1.0
    (tmp_path / "link").symlink_to(tmp_path / name)
    assert LazyConfig.load(tmp_path / "link" / "leaf.py").train.lr == 1.0
    monkeypatch.chdir(tmp_path / name)
    assert LazyConfig.load("leaf.py").train.lr == LazyConfig.load("./common/../leaf.py").train.lr == 1.0
    monkeypatch.chdir(tmp_path)
    assert LazyConfig.load(f"{name}/leaf.py").train.lr == 1.0


def test_lists_are_replaced_and_mappings_merged(tmp_path: Path) -> None:
    """MERU: an override of a list is merged with the old one; a list must be replaced, a mapping merged."""
    cfg = LazyConfig.load(write(tmp_path / "c"))
    changed = LazyConfig.apply_overrides(
        cfg, ["train.sizes=[7]", "train.nested={b:5}", "model.heads.1.size=9"]
    )
    assert changed.train.sizes == [7]
    assert changed.train.nested == {"a": 1, "b": 5}
    assert [head.size for head in changed.model.heads] == [1, 9]
    assert LazyConfig.apply_overrides(cfg, ["train.sizes=[]"]).train.sizes == []
    assert cfg.train.sizes == [1, 2, 3]


def test_references_follow_what_they_refer_to(tmp_path: Path) -> None:
    """detectron2: the schedule keeps the old number of steps after an override; references are resolved at the end."""
    cfg = LazyConfig.apply_overrides(LazyConfig.load(write(tmp_path / "c")), ["train.steps=7"])
    assert cfg.train.warmup == 7
    assert instantiate(LazyCall(Part)(total=cfg.train.warmup)) == Part(total=7)


def test_a_reference_to_a_deleted_key_is_named(tmp_path: Path) -> None:
    """OmegaConf: deleting a key that others refer to is a traceback, hours later; it must be named in one line."""
    cfg = LazyConfig.load(write(tmp_path / "c"))
    with pytest.raises(ConfigError) as caught:
        instantiate(LazyConfig.apply_overrides(cfg, ["~train.steps"]).train)
    assert "train.steps" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "value"),
    [("1e-4", 1e-4), ("1e5", 1e5), ("5.e-4", 5e-4), (".5", 0.5), ("1_000", 1000), ("-3", -3)],
)
def test_numbers_of_the_command_line_are_numbers(tmp_path: Path, override: str, value: float) -> None:
    """MERU: `lr=1e-4` arrives as the text "1e-4" through YAML 1.1 and breaks the optimizer; it must be a number."""
    cfg = LazyConfig.apply_overrides(LazyConfig.load(write(tmp_path / "c")), [f"train.lr={override}"])
    assert cfg.train.lr == value
    assert isinstance(cfg.train.lr, int | float)
    again = LazyConfig.from_yaml(LazyConfig.to_yaml(cfg), extra_targets=["tests.config.parts.Part"])
    assert again.train.lr == value
    assert type(again.train.lr) is type(cfg.train.lr)


def test_texts_that_yaml_takes_for_something_else_stay_texts() -> None:
    """OmegaConf: names such as "no", "1e3", "0o7" or "2024-01-01" come back as booleans, numbers or dates."""
    texts = [
        "no",
        "on",
        "y",
        "null",
        "~",
        "1e3",
        "0o7",
        "0x1f",
        "2024-01-01",
        "1:30",
        "",
        " ",
        "#x",
        "a: b",
        "- a",
        "山",
    ]
    cfg = OmegaConf.create({"names": texts})
    assert list(LazyConfig.from_yaml(LazyConfig.to_yaml(cfg)).names) == texts


def test_windows_line_ends_and_a_mark(tmp_path: Path) -> None:
    """open_clip: a config saved by a Windows editor (byte order mark, CR LF) is refused or has odd keys."""
    place = write(tmp_path / "c")
    place.write_bytes(b"\xef\xbb\xbf" + LEAF.replace("\n", "\r\n").encode())
    assert LazyConfig.load(place).train.lr == 1.0
    (tmp_path / "c.yaml").write_bytes("train:\r\n  lr: 1.0e-4\r\n  name: süß\r\n".encode())
    assert LazyConfig.load(tmp_path / "c.yaml").train == {"lr": 1e-4, "name": "süß"}

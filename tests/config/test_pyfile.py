"""Python config files: relative imports, no caching, nothing left behind."""

import builtins
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import DictConfig, ListConfig

from hypvl.config import LazyConfig
from hypvl.errors import ConfigError

BASE = """
from hypvl.config import LazyCall as L
from tests.config.parts import Part, narrow
from .common.model.meru import model
from .common.train import train
import math

_private = 1
version, name = 3, "base"
sizes = [160, 224]


def helper():
    return 1
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A leaf, a base and two nouns, as in configs/, in a folder with no __init__.py and an odd name."""
    root = tmp_path / "my configs-1"
    (root / "common" / "model").mkdir(parents=True)
    (root / "common" / "train.py").write_text(
        "train = dict(batch=2048, ddp=dict(static=True), steps=[1, 2])\n"
    )
    (root / "common" / "model" / "meru.py").write_text(
        "from hypvl.config import LazyCall as L\nfrom tests.config.parts import Part\n"
        "model = L(Part)(visual=L(Part)(arch='vit_l'), betas=(0.9, 0.98))\n"
    )
    (root / "train_l.py").write_text(BASE)
    (root / "train_b.py").write_text(
        "from .train_l import model, train\nmodel.visual.arch = 'vit_b'\ntrain.batch //= 2\n"
    )
    return root


def test_leaf_imports_nouns_and_edits_them(folder: Path) -> None:
    cfg = LazyConfig.load(folder / "train_b.py")
    assert cfg.model.visual.arch == "vit_b"
    assert cfg.train.batch == 1024
    assert cfg.train.ddp.static is True
    assert cfg.model.betas == [0.9, 0.98]


def test_only_values_are_part_of_the_config(folder: Path) -> None:
    cfg = LazyConfig.load(folder / "train_l.py")
    assert set(cfg) == {"model", "train", "version", "name", "sizes"}
    assert (cfg.version, cfg.name) == (3, "base")
    assert isinstance(cfg, DictConfig) and isinstance(cfg.sizes, ListConfig)


def test_two_loads_share_nothing(folder: Path) -> None:
    first = LazyConfig.load(folder / "train_l.py")
    first.model.visual.arch = "edited"
    first.sizes.append(1)
    again = LazyConfig.load(folder / "train_l.py")
    assert again.model.visual.arch == "vit_l"
    assert again.sizes == [160, 224]


def test_edits_of_one_leaf_do_not_reach_another(folder: Path) -> None:
    LazyConfig.load(folder / "train_b.py")
    assert LazyConfig.load(folder / "train_l.py").model.visual.arch == "vit_l"


def test_changing_the_base_changes_the_leaf(folder: Path) -> None:
    base = folder / "train_l.py"
    base.write_text(base.read_text() + "\ntrain.batch = 100\n")
    assert LazyConfig.load(folder / "train_b.py").train.batch == 50


def test_a_noun_imported_by_two_files_is_two_copies(folder: Path) -> None:
    (folder / "one.py").write_text("from .common.train import train\ntrain.batch = 1\none = train\n")
    (folder / "two.py").write_text("from .common.train import train\ntwo = train\n")
    (folder / "both.py").write_text("from .one import one\nfrom .two import two\ntwo.ddp.static = False\n")
    cfg = LazyConfig.load(folder / "both.py")
    assert (cfg.one.batch, cfg.two.batch) == (1, 2048)
    assert (cfg.one.ddp.static, cfg.two.ddp.static) == (True, False)


def test_one_node_used_twice_is_two_nodes_after_loading(folder: Path) -> None:
    (folder / "twice.py").write_text(
        "from .common.train import train\nteacher = train\nstudent = train\npair = dict(a=train, b=train)\n"
    )
    cfg = LazyConfig.load(folder / "twice.py")
    cfg.teacher.batch = 1
    cfg.pair.a.batch = 2
    assert cfg.student.batch == cfg.pair.b.batch == cfg.train.batch == 2048


def test_import_forms(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "leaf.py").write_text(
        "from ..common import train as noun\nfrom .. import train_l\nfrom ..common.model.meru import *\n"
        "batch = noun.train.batch\narch = train_l.model.visual.arch\n"
    )
    cfg = LazyConfig.load(folder / "sub" / "leaf.py")
    assert (cfg.batch, cfg.arch, cfg.model.visual.arch) == (2048, "vit_l", "vit_l")
    assert "noun" not in cfg and "train_l" not in cfg


def test_a_folder_with_init_gives_its_names_and_its_files(folder: Path) -> None:
    (folder / "common" / "__init__.py").write_text("seed = 7\n")
    (folder / "leaf.py").write_text("from .common import seed, train\nbatch = train.train.batch\n")
    assert LazyConfig.load(folder / "leaf.py") == {"seed": 7, "batch": 2048}


def test_a_class_may_be_assigned_to_a_target(folder: Path) -> None:
    (folder / "leaf.py").write_text(
        "from tests.config.parts import Other\nfrom .train_l import model\nmodel.visual._target_ = Other\n"
    )
    assert LazyConfig.load(folder / "leaf.py").model.visual._target_ == "tests.config.parts.Other"


@pytest.mark.parametrize("leaf", ["train_b.py", "broken.py"])
def test_nothing_is_left_behind(folder: Path, leaf: str) -> None:
    (folder / "broken.py").write_text("from .train_l import model\nraise KeyError('oops')\n")
    LazyConfig.load(folder / "train_b.py")  # whatever the configs import from libraries is in now
    modules, path, import_ = dict(sys.modules), list(sys.path), builtins.__import__
    if leaf == "broken.py":
        with pytest.raises(ConfigError):
            LazyConfig.load(folder / leaf)
    else:
        LazyConfig.load(folder / leaf)
    assert sys.modules == modules
    assert sys.path == path
    assert builtins.__import__ is import_
    assert not list(folder.rglob("__pycache__"))


def test_the_folder_may_be_anywhere(folder: Path, tmp_path: Path) -> None:
    """From another working directory, through a relative path, in a fresh interpreter."""
    script = (
        "from hypvl.config import LazyConfig; cfg = LazyConfig.load('my configs-1/train_b.py');"
        "print(cfg.model.visual.arch)"
    )
    root = str(Path(__file__).resolve().parents[2])
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env={"PYTHONPATH": root}, capture_output=True, text=True
    )
    assert done.stdout == "vit_b\n", done.stderr


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("x = = 1", r"leaf\.py, line 1: not valid Python: invalid syntax"),
        ("x = 1\ny = missing_name\n", r"leaf\.py, line 2: NameError: name 'missing_name' is not defined"),
        ("import hypvl.nothing_here", r"line 1: ModuleNotFoundError: No module named 'hypvl.nothing_here'"),
        ("from .train_ll import model", r"does not exist: .*train_ll\.py; the closest file is .*train_l\.py"),
        (
            "from .train_l import modle",
            r"imports 'modle' from .*train_l\.py, which lacks it; the closest is 'model'",
        ),
        ("from .leaf import model", r"import each other: leaf\.py -> leaf\.py"),
        ("x = dict(a=object())", r"'x\.a' holds an object of type object"),
        (
            "from tests.config.parts import Part\nx = dict(a=[Part])",
            r"write LazyCall\(Part, partial=True\)\(\) instead",
        ),
        (
            "from hypvl.config import LazyCall as L\n\nm = L(lambda: 1)()",
            r"leaf\.py, line 3: .*cannot be the target",
        ),
        ("x = {None: 1}", r"the key None in 'x'|KeyType|'x' cannot be a config"),
        ("x = {1, 2}", r"'x' holds an object of type set"),
    ],
)
def test_mistakes_are_one_line(folder: Path, code: str, message: str) -> None:
    (folder / "leaf.py").write_text(code)
    with pytest.raises(ConfigError, match=message) as caught:
        LazyConfig.load(folder / "leaf.py")
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_the_innermost_file_is_named(folder: Path) -> None:
    (folder / "inner.py").write_text("a = 1\nb = 1 / 0\n")
    (folder / "outer.py").write_text("\n\n\nfrom .inner import a\n")
    with pytest.raises(ConfigError, match=r"inner\.py, line 2: ZeroDivisionError") as caught:
        LazyConfig.load(folder / "outer.py")
    assert "outer.py" not in str(caught.value)

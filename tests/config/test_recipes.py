"""Recipes by name: ./configs first, then those that come with hypvl; Python configs import them from any folder."""

import re
from pathlib import Path

import pytest

from hypvl.config import LazyConfig
from hypvl.config.recipes import find_recipe, purpose, recipe_folders, recipes, shipped_folders
from hypvl.errors import ConfigError
from tests.test_house import ROOT


def test_a_checkout_ships_its_configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert shipped_folders()[0] == ROOT / "configs" == recipe_folders()[0]
    assert (
        find_recipe("meru_vit_b") == find_recipe("train_meru_vit_b") == ROOT / "configs/train_meru_vit_b.py"
    )
    assert find_recipe("meru_vit_b", prefixes=("eval_",)) is None


def test_the_working_folder_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("configs").mkdir()
    Path("configs/train_meru_vit_b.py").write_text('"""Mine."""\n')
    assert find_recipe("meru_vit_b") == Path("configs/train_meru_vit_b.py")
    found = recipes()
    assert found["train_meru_vit_b"] == Path("configs/train_meru_vit_b.py")
    assert found["train_meru_vit_l"] == ROOT / "configs/train_meru_vit_l.py"
    assert list(found) == sorted(found)


@pytest.mark.parametrize("name", recipes())
def test_every_recipe_says_in_a_line_what_it_is_for(name: str) -> None:
    line = purpose(ROOT / "configs" / f"{name}.py")
    assert 5 < len(line) <= 120 and not re.search(r"hypvl (train|eval)|python ", line), line


def test_a_config_elsewhere_imports_recipes_and_building_blocks(tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text(
        "from hypvl.recipes.train_meru_vit_b import model, train\n"
        "from hypvl.recipes.common.objective.clip import objective as _objective\n"
        "from hypvl.recipes import train_meru_vit_s as _small\n"
        "train.total_batch_size = 7\n"
        "train.objective = _objective\n"
        "small = _small.model\n"
    )
    config = LazyConfig.load(mine)
    assert config.train.total_batch_size == 7 and list(config.train.objective.terms) == ["contrastive"]
    assert config.model == LazyConfig.load(ROOT / "configs/train_meru_vit_b.py").model
    assert config.small == LazyConfig.load(ROOT / "configs/train_meru_vit_s.py").model
    # Another load starts from the file, not from what the first one changed.
    assert LazyConfig.load(ROOT / "configs/train_meru_vit_b.py").train.total_batch_size == 2048


def test_a_recipe_that_is_not_there_names_the_closest(tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text("from hypvl.recipes.train_meru_vit_x import model\n")
    with pytest.raises(
        ConfigError, match=r"does not exist: .*train_meru_vit_x\.py; the closest file is .*train_meru_vit_"
    ):
        LazyConfig.load(mine)

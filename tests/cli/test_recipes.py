"""`hypvl recipes` lists what there is; `hypvl new` starts a recipe from one of them, in any folder."""

import json
import re
from pathlib import Path

import pytest

from hypvl.cli import new, recipes
from hypvl.cli.common import load_config, run_main
from hypvl.config import LazyConfig
from hypvl.errors import ConfigError
from tests.test_house import ROOT


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_recipes_are_listed_with_their_purpose(capsys: pytest.CaptureFixture[str]) -> None:
    assert recipes.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(re.fullmatch(r" *train_meru_vit_b +MERU, ViT-B/16 *", line) for line in lines)
    assert sum(" train_" in line or " eval_" in line for line in lines) >= 110


def test_a_part_of_the_name_or_a_glob_chooses(capsys: pytest.CaptureFixture[str]) -> None:
    assert recipes.main(["meru_vit", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [entry["name"] for entry in listed] == [f"train_meru_vit_{size}" for size in "bls"]
    assert recipes.main(["eval_k*", "--paths"]) == 0
    paths = capsys.readouterr().out.split()
    assert paths == [str(ROOT / "configs/eval_knn.py"), str(ROOT / "configs/eval_knn_demo.py")]
    assert run_main(recipes.main, ["zzz"]) == 2
    assert "no recipe matches 'zzz'; hypvl recipes lists all" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("base", "prefix"),
    [("meru_vit_b", "train_"), ("train_clip_demo", "train_"), ("zero_shot_retrieval", "eval_")],
)
def test_a_new_recipe_is_its_base_until_it_is_edited(
    base: str, prefix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert new.main(["mine", "--from", base]) == 0
    assert "configs/mine.py" in capsys.readouterr().out
    original = load_config(base, prefix=prefix)
    assert load_config("mine", prefix=prefix) == original
    # The settings it shows are the base's: the same again when they are taken in.
    text = Path("configs/mine.py").read_text()
    Path("configs/mine.py").write_text(re.sub(r"^# (\w+\.\S+ = )", r"\1", text, flags=re.M))
    assert re.search(r"^(train|roots)\.\w+ = ", Path("configs/mine.py").read_text(), re.M)
    assert load_config("mine", prefix=prefix) == original


def test_a_new_recipe_starts_from_one_beside_it() -> None:
    assert new.main(["first", "--from", "meru_demo"]) == 0
    Path("configs/first.py").write_text(Path("configs/first.py").read_text() + "train.total_batch_size = 5\n")
    assert new.main(["second", "--from", "first"]) == 0
    assert "from .first import" in Path("configs/second.py").read_text()
    assert LazyConfig.load("configs/second.py").train.total_batch_size == 5
    assert new.main(["elsewhere/third.py", "--from", "meru_demo"]) == 0
    assert LazyConfig.load("elsewhere/third.py").train.total_batch_size == 128


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["there", "--from", "meru_demo"], r"configs/there\.py exists and is not overwritten"),
        (["a-b", "--from", "meru_demo"], r"NAME: got 'a-b'; expected letters, digits and underscores"),
        (["a/b", "--from", "meru_demo"], r"NAME: got 'a/b'; expected letters"),
        (["mine", "--from", "meru_dem"], r"--from: got 'meru_dem', but no .*; the closest is meru_demo;"),
        (["x/y.py", "--from", "there"], r"--from: configs/there\.py cannot be imported from x/y\.py"),
        (["mine", "--from", "nowhere.py"], r"--from: nowhere\.py does not exist"),
    ],
)  # fmt: skip
def test_what_cannot_be_started_from_or_written_is_refused(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    new.main(["there", "--from", "meru_demo"])
    before = Path("configs/there.py").read_text()
    assert run_main(new.main, argv) == 2
    assert re.search(message, capsys.readouterr().err)
    assert Path("configs/there.py").read_text() == before and [str(p) for p in Path().rglob("*.py")] == [
        "configs/there.py"
    ]


def test_a_recipe_of_another_command_is_named() -> None:
    with pytest.raises(
        ConfigError, match=r"'meru_vit_b' is train_meru_vit_b\.py, .*; expected a recipe eval_\.\.\.$"
    ):
        load_config("meru_vit_b", prefix="eval_")

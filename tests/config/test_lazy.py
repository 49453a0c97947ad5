"""LazyCall, saving and reloading, instantiate."""

import functools
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings, strategies as st
from omegaconf import DictConfig, OmegaConf

from hypvl.config import LazyCall, LazyConfig, instantiate
from hypvl.errors import ConfigError, DataError
from tests.config.parts import Other, Part, comparable, narrow, no_data, no_permission, record

PARTS = ("tests.config.parts.Part", "tests.config.parts.Other", "tests.config.parts.narrow")


def test_node_says_what_to_call() -> None:
    node = LazyCall(Part)(size=2, scale=(0.5, 1.0), inner=LazyCall(Other, partial=True)(a=1))
    assert OmegaConf.to_container(node) == {
        "_target_": "tests.config.parts.Part",
        "size": 2,
        "scale": [0.5, 1.0],
        "inner": {"_target_": "tests.config.parts.Other", "_partial_": True, "a": 1},
    }


def test_targets_by_name_function_and_class_method() -> None:
    assert LazyCall("not.imported.Yet")()._target_ == "not.imported.Yet"
    assert instantiate(LazyCall(narrow)(size=3)) == 3
    assert instantiate(LazyCall(Part.make)(size=3)) == Part(made=3)
    assert LazyCall(torch.optim.AdamW)()._target_ == "torch.optim.adamw.AdamW"


def test_keyword_named_self_is_an_argument() -> None:
    assert LazyCall(Part)(self=1)["self"] == 1


@pytest.mark.parametrize("target", [lambda: 1, functools.partial(narrow), 3, None])
def test_targets_that_no_import_finds_are_refused(target: Any) -> None:
    with pytest.raises(ConfigError, match=r"cannot be the target|LazyCall got"):
        LazyCall(target)


def test_local_functions_are_refused() -> None:
    def local() -> None: ...

    with pytest.raises(ConfigError, match="top level of an importable module"):
        LazyCall(local)


def test_arguments_that_yaml_cannot_hold_are_refused() -> None:
    with pytest.raises(ConfigError, match="'weight' holds an object of type Tensor"):
        LazyCall(Part)(weight=torch.ones(2))
    with pytest.raises(ConfigError, match="give the target to LazyCall itself"):
        LazyCall(Part)(_target_="os.system")


def config() -> DictConfig:
    """References, partials, lists of nodes, plain top-level values, awkward numbers and strings."""
    return OmegaConf.create(
        {
            "model": LazyCall(Part)(
                heads=[LazyCall(Other)(d=1), LazyCall(Other, partial=True)(d=2)], table={1: "one", "two": 2}
            ),
            "optim": LazyCall(Part, partial=True)(lr=5e-4, eps=1e-8, betas=(0.9, 0.98), steps="${train.steps}"),
            "train": {
                "steps": 120_000, "none": None, "off": False, "inf": float("inf"), "empty": [], "nothing": {},
                "text": ["1e-4", "null", "yes", "on", "12:30", "2024-01-01", "0x10", "1_000", "", " a ", "a: b", "# c"],
            },
            "version": 3,
        }
    )  # fmt: skip


def test_saved_config_reloads_to_an_equal_one(tmp_path: Path) -> None:
    cfg = config()
    LazyConfig.save(cfg, tmp_path / "config.yaml")
    again = LazyConfig.load(tmp_path / "config.yaml", extra_targets=PARTS)
    assert again == cfg
    assert OmegaConf.to_container(again, resolve=False) == OmegaConf.to_container(cfg, resolve=False)
    assert LazyConfig.to_yaml(again) == LazyConfig.to_yaml(cfg)
    assert [p.name for p in tmp_path.iterdir()] == ["config.yaml"]


def test_saved_config_builds_the_same_objects(tmp_path: Path) -> None:
    cfg = config()
    LazyConfig.save(cfg, tmp_path / "config.yaml")
    again = LazyConfig.load(tmp_path / "config.yaml", extra_targets=PARTS)
    for name in ("model", "optim"):
        assert comparable(instantiate(again[name])) == comparable(instantiate(cfg[name]))
    assert instantiate(again.optim).keywords["steps"] == 120_000
    again.train.steps = 5  # a reference is saved as one
    assert instantiate(again.optim).keywords["steps"] == 5


def test_json_config_is_the_same_config(tmp_path: Path) -> None:
    data = OmegaConf.to_container(config(), resolve=False)
    assert isinstance(data, dict)
    del data["model"]["table"]  # JSON has no integer keys
    (tmp_path / "config.json").write_text(json.dumps(data))
    assert LazyConfig.load(tmp_path / "config.json", extra_targets=PARTS) == data


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(min_size=1, max_size=3), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


@given(VALUES)
@example({"\x85": "\x85"})
@example(["\ufeff", "\u2028", "\U0001f600", "caf\u00e9", "\r\n", "\x00", "a\tb "])
@settings(max_examples=60, deadline=None)
def test_yaml_keeps_any_value_and_its_type(value: Any) -> None:
    if any("$" in text for text in _texts(value)):
        return  # references are another matter
    again = LazyConfig.from_yaml(LazyConfig.to_yaml(OmegaConf.create({"value": value})))
    assert repr(OmegaConf.to_container(again)) == repr({"value": value})


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    items = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []
    return [text for item in items for text in _texts(item)]


@pytest.mark.parametrize("number", ["5e-4", "1E3", "-2.5e-8", "1e+2", ".5e1"])
def test_yaml_numbers_with_exponents_are_numbers(number: str) -> None:
    assert LazyConfig.from_yaml(f"lr: {number}").lr == float(number)


def test_resolvers_of_a_python_config_are_saved_as_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYPVL_TEST_ROOT", "/data")
    cfg = OmegaConf.create({"seed": 1, "root": "${oc.env:HYPVL_TEST_ROOT}/x", "same": "${seed}"})
    assert LazyConfig.to_yaml(cfg) == "seed: 1\nroot: /data/x\nsame: ${seed}\n"


def test_save_refuses_what_it_cannot_write(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"ends with \.yaml or \.yml"):
        LazyConfig.save(config(), tmp_path / "config.txt")
    with pytest.raises(ConfigError, match=r"a\.b"):
        LazyConfig.save(OmegaConf.create({"a": {"b": "${oc.env:HYPVL_SURELY_NOT_SET}"}}), tmp_path / "c.yaml")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.yaml", None, r"does not exist; the closest is .*mising\.yaml"),
        ("config.txt", "a: 1", r"expected a name that ends with \.py, \.yaml, \.yml, \.json"),
        ("bad.yaml", "a: [1, 2", "not valid YAML"),
        ("twice.yaml", "a: 1\nb: {c: 1, c: 2}", "the key 'c' stands twice"),
        ("list.yaml", "[1, 2]", "expected keys and values"),
        ("empty.yaml", "", "expected keys and values"),
        ("bad.json", "{", "not valid JSON"),
        ("twice.json", '{"a": 1, "a": 2}', "the key 'a' stands twice"),
        ("list.json", "[1]", "expected keys and values"),
        ("binary.yaml", b"\xff\xfe\x00", "cannot be read as text"),
        ("set.yaml", "a: !!set {b, c}", "object of type set"),
        ("bad_int.yaml", "a: !!int abc", "not valid YAML"),
    ],
)
def test_files_that_are_no_configs(
    tmp_path: Path, name: str, content: str | bytes | None, message: str
) -> None:
    (tmp_path / "mising.yaml").touch()
    if content is not None:
        (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(ConfigError, match=message) as caught:
        LazyConfig.load(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_folder_is_no_config(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a folder"):
        LazyConfig.load(tmp_path)


def test_instantiate_gives_plain_containers_and_takes_arguments() -> None:
    built = instantiate(LazyCall(Part)(sizes=[1, {"a": (2, 3)}]), "first", extra=4)
    assert built.args == ("first",)
    assert built.kwargs == {"sizes": [1, {"a": [2, 3]}], "extra": 4}
    assert type(built.kwargs["sizes"]) is list and type(built.kwargs["sizes"][1]) is dict


def test_instantiate_builds_lists_modules_and_optimizers() -> None:
    layers = instantiate(OmegaConf.create([LazyCall(torch.nn.Linear)(in_features=2, out_features=3)]))
    assert layers[0].weight.shape == (3, 2)
    optimizer = instantiate(LazyCall(torch.optim.AdamW, partial=True)(lr=5e-4, betas=(0.9, 0.98)))
    assert optimizer.func is torch.optim.AdamW
    assert optimizer.keywords == {"lr": 5e-4, "betas": [0.9, 0.98]}
    # a module handed in by code passes through unchanged
    assert instantiate(LazyCall(Part)(), layers[0]).args[0] is layers[0]
    assert instantiate(LazyCall(Part)(), module=layers[0]).kwargs["module"] is layers[0]


def test_instantiate_reports_wrong_arguments_in_one_line() -> None:
    with pytest.raises(
        ConfigError, match=r"^a: .*narrow refuses .* unexpected keyword argument 'sise'.*~a.sise"
    ) as caught:
        instantiate(OmegaConf.create({"a": LazyCall(narrow)(sise=1)}))
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="size is 0; expected at least 1"):
        instantiate(LazyCall(narrow)(size=0))
    with pytest.raises(ConfigError, match=r"no\.such\.module"):
        instantiate(LazyCall("no.such.module.Thing")())
    with pytest.raises(ConfigError, match="Interpolation key 'nowhere' not found"):
        instantiate(LazyCall(narrow)(size="${nowhere}"))


def test_instantiate_lets_errors_of_the_target_through() -> None:
    with pytest.raises(DataError, match="matches no file"):
        instantiate(OmegaConf.create({"dataset": LazyCall(Part)(inner=LazyCall(no_data)())}))
    with pytest.raises(PermissionError, match="Permission denied"):
        instantiate(OmegaConf.create({"dataset": LazyCall(Part)(inner=LazyCall(no_permission)())}))


def test_nothing_is_called_before_instantiate() -> None:
    from tests.config.parts import CALLS

    CALLS.clear()
    node = LazyCall(record)(text="once")
    LazyConfig.to_yaml(node)
    assert CALLS == []
    assert instantiate(node) == "once"
    assert CALLS == ["once"]


def test_a_bare_recipe_name_is_looked_for_in_configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "train_a.py").write_text("train = {}")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        ConfigError, match=r"config train_a does not exist; the closest is configs/train_a\.py\."
    ):
        LazyConfig.load("train_a")


def test_arguments_of_the_node_an_override_was_merged_with_are_named() -> None:
    config = LazyCall(Fraction)(numerator=1, p=1)
    with pytest.raises(ConfigError) as caught:
        instantiate({"b": config})
    text = str(caught.value)
    assert (
        text.startswith("b: fractions.Fraction refuses its arguments: ")
        and "unexpected keyword argument 'p'" in text
    )
    assert text.endswith("delete what does not belong: ~b.p") and "\n" not in text

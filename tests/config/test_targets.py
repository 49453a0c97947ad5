"""YAML and JSON configs name only what is on the list, whatever they try."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from hypvl.config import LazyConfig, allowed_targets, instantiate
from hypvl.config.plain import locate
from hypvl.config.targets import LIST, is_reference_or_text
from hypvl.errors import ConfigError
from tests.config.parts import CALLS, Part

RECORD = "tests.config.parts.record"
PART = "tests.config.parts.Part"
HEAD = "hypvl.encoders.heads.ProjectionHead"
PARTS: dict[str, list[str]] = json.loads(LIST.read_text())
NAMES = sorted({name for names in PARTS.values() for name in names})


@pytest.mark.parametrize("name", NAMES)
def test_every_target_on_the_list_imports(name: str) -> None:
    assert callable(locate(name)), f"{name} in {LIST.name} is nothing to call"


def test_the_list_holds_exact_sorted_names() -> None:
    assert list(PARTS) == ["model", "dataset", "optim", "train", "evaluate"]
    for part, names in PARTS.items():
        assert sorted(set(names)) == names, part
        assert allowed_targets(part=part) == frozenset(names)
    assert all(name.replace(".", "_").isidentifier() for name in NAMES)
    assert allowed_targets() == frozenset(NAMES)


@pytest.mark.parametrize(
    "target",
    [
        "os.system", "posix.system", "subprocess.run", "torch.hub.load", "torch.load", "builtins.eval", "builtins.exec",
        "webdataset.WebDataset", "hydra.utils.instantiate", "hydra.utils.get_method", "hydra.utils.call",
        "functools.partial", "importlib.import_module", "pickle.loads", "hypvl.config.instantiate",
        "hypvl.config.LazyConfig.load", "hypvl.config.lazy.LazyConfig.load",
        "hypvl.encoders.heads", "hypvl.encoders.heads.ProjectionHead.__init__", "hypvl.encoders.heads.torch.hub.load",
        "hypvl.encoders.heads.ProjectionHead ", " hypvl.encoders.heads.ProjectionHead", "hypvl.*", "", "???",
        "${name}", "${oc.env:HOME}", None, 3, True, [HEAD], {"a": HEAD},
    ],
)  # fmt: skip
@pytest.mark.parametrize("suffix", [".yaml", ".json"])
def test_targets_off_the_list_are_refused(tmp_path: Path, target: Any, suffix: str) -> None:
    data = {"name": HEAD, "model": {"_target_": target, "in_features": 1}}
    path = tmp_path / f"config{suffix}"
    path.write_text(yaml.safe_dump(data) if suffix == ".yaml" else json.dumps(data))
    with pytest.raises(ConfigError, match="allow-list") as caught:
        LazyConfig.load(path)
    message = str(caught.value)
    assert repr(target) in message and "'model._target_'" in message and "Python config" in message
    assert "\n" not in message
    assert caught.value.exit_code == 2


EVIL = {"_target_": RECORD}


@pytest.mark.parametrize(
    "data",
    [
        {"a": EVIL},
        {"a": [1, [EVIL]]},
        {"a": {"b": {"c": [{"d": EVIL}]}}},
        {"_target_": HEAD, "_args_": [EVIL]},
        {"_target_": HEAD, "out_features": EVIL},
        {"_target_": HEAD, "_recursive_": False, "out_features": EVIL},
        {"a": {"_target_": RECORD, "_partial_": True}},
        {"a": {"_target_": HEAD, "_partial_": True, "b": EVIL}},
        {"a": {"_recursive_": False, "b": EVIL}},
        EVIL,
        {"a": "${b}", "b": EVIL},
        {"a": {"_target_": HEAD, "x": {3: EVIL}}},
    ],
)
def test_no_nesting_hides_a_target(data: Any) -> None:
    CALLS.clear()
    with pytest.raises(ConfigError, match=RECORD):
        LazyConfig.from_yaml(yaml.safe_dump(data), source="attack")
    assert CALLS == []


@pytest.mark.parametrize(
    "text",
    [
        "base: &b {_target_: tests.config.parts.record}\nmodel: {<<: *b, x: 1}",
        "a: &x {_target_: tests.config.parts.record}\nb: *x",
        '{"\\x5ftarget_": tests.config.parts.record}',
        "? _target_\n: tests.config.parts.record",
        "a: !!map {!!str _target_: !!str tests.config.parts.record}",
    ],
)
def test_no_yaml_syntax_hides_a_target(text: str) -> None:
    with pytest.raises(ConfigError, match=RECORD):
        LazyConfig.from_yaml(text)


@pytest.mark.parametrize(
    "text",
    [
        "a: !!python/object/apply:tests.config.parts.record [x]",
        "a: !!python/object/new:tests.config.parts.Part {}",
        "a: !!python/name:os.system",
        "a: !!python/module:os",
        "a: !!python/object/apply:pathlib.Path [x]",
        "!!python/object/apply:os.system ['true']",
        "a: !unknown 1",
    ],
)
def test_yaml_tags_never_make_objects(text: str) -> None:
    CALLS.clear()
    with pytest.raises(ConfigError, match="not valid YAML"):
        LazyConfig.from_yaml(text)
    assert CALLS == []


@pytest.mark.parametrize(
    "text",
    [
        "${oc.env:HOME}", "x ${oc.env:HOME,none} y", "${oc.decode:'{_target_: os.system}'}", "${oc.create:x}",
        "${oc.dict.values:a}", "${my_resolver:1}", "${${name}}", "${a.${b}}", "\\${oc.env:HOME}", "\\\\${name}",
        "$${name}", "${name}$", "a$", "${", "${a", "${ a }", "${name}${oc.env:HOME}", "${a:b}", "${'a'}",
    ],
)  # fmt: skip
def test_resolvers_and_tricks_with_references_are_refused(text: str) -> None:
    assert not is_reference_or_text(text)
    with pytest.raises(ConfigError, match="no resolvers") as caught:
        LazyConfig.from_dict({"name": "x", "list": [{"key": text}]})
    assert "'list.0.key'" in str(caught.value)


@pytest.mark.parametrize(
    "text", ["", "plain", "5 $ a day", "$HOME/data", "{a}", "a\\b", "${a}", "x/${a.b-c}/${d[0]}"]
)
def test_text_and_references_to_keys_are_fine(text: str) -> None:
    assert is_reference_or_text(text)


def test_joined_references_never_form_a_resolver_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hydra resolves twice, so a value that resolves to '${oc.env:..}' would be called the second time."""
    monkeypatch.setenv("HYPVL_TEST_SECRET", "secret")
    for a, b, c in [
        ("$", "{oc.env:HYPVL_TEST_SECRET}", "${a}${b}"),
        ("x$", "{oc.env:HYPVL_TEST_SECRET}", "${a}${b}"),
        ("", "{oc.env:HYPVL_TEST_SECRET}", "$${b}"),
        ("", "{oc.env:HYPVL_TEST_SECRET}", "\\$${b}"),
    ]:
        data = {"a": a, "b": b, "node": {"_target_": PART, "value": c}}
        with pytest.raises(ConfigError):
            instantiate(LazyConfig.from_dict(data, extra_targets=[PART]).node)
    data = {"a": "${b}", "b": "{oc.env:HYPVL_TEST_SECRET}", "node": {"_target_": PART, "value": "${a}${b}"}}
    built = instantiate(LazyConfig.from_dict(data, extra_targets=[PART]).node)
    assert built.kwargs["value"] == "{oc.env:HYPVL_TEST_SECRET}" * 2


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("_partial_", "true"), ("_partial_", 1), ("_recursive_", "${a}"), ("_recursive_", {"a": 1}),
        ("_convert_", "nothing"), ("_args_", "text"), ("_args_", {"a": 1}), ("_args_", "${a}"),
    ],
)  # fmt: skip
def test_reserved_keys_have_one_type(key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"'m\.{key}' is .*expected"):
        LazyConfig.from_dict({"a": True, "m": {"_target_": HEAD, key: value}})


@pytest.mark.parametrize("value", [True, 1, "true", "${yes}"])
def test_data_may_not_permit_itself_to_run_commands(value: Any) -> None:
    data = {"yes": True, "dataset": {"_target_": "hypvl.data.shards.ImageTextShards", "allow_pipe": value}}
    with pytest.raises(ConfigError, match=r"'dataset\.allow_pipe'.*on the command line"):
        LazyConfig.from_dict(data)
    data["dataset"]["allow_pipe"] = False  # type: ignore[index]  # the dictionary above
    trusted = LazyConfig.apply_overrides(LazyConfig.from_dict(data), ["dataset.allow_pipe=true"])
    assert trusted.dataset.allow_pipe is True


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [*a]",
        "a: &a {b: *a}",
        "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n"
        + "\n".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)),
        "a: " + "[" * 100 + "]" * 100,
        "[" * 600 + "]" * 600,
    ],
)
def test_yaml_that_expands_without_end_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"nested deeper|not valid YAML") as caught:
        LazyConfig.from_yaml(text)
    assert "\n" not in str(caught.value)


def test_an_allowed_config_builds() -> None:
    cfg = LazyConfig.from_yaml(
        f"d: 3\nhead: {{_target_: {PART}, _partial_: true, size: '${{d}}'}}", extra_targets=[PART]
    )
    assert instantiate(cfg.head)() == Part(size=3)


def test_own_classes_are_added_by_exact_name(monkeypatch: pytest.MonkeyPatch) -> None:
    text = f"a: {{_target_: {PART}}}"
    with pytest.raises(ConfigError, match="HYPVL_EXTRA_TARGETS"):
        LazyConfig.from_yaml(text)
    with pytest.raises(ConfigError, match="allow-list"):
        LazyConfig.from_yaml(text, extra_targets=["tests.config.parts"])
    assert LazyConfig.from_yaml(text, extra_targets=[PART]).a._target_ == PART
    monkeypatch.setenv("HYPVL_EXTRA_TARGETS", f" other.Thing , {PART},")
    assert LazyConfig.from_yaml(text).a._target_ == PART
    assert allowed_targets() == frozenset(NAMES) | {PART, "other.Thing"}


@pytest.mark.parametrize("name", ["tests.*", "tests", "tests.", "tests.config parts", ".tests.a"])
def test_an_added_name_is_no_pattern(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    with pytest.raises(ConfigError, match="not a dotted name"):
        allowed_targets([name])
    monkeypatch.setenv("HYPVL_EXTRA_TARGETS", name)
    with pytest.raises(ConfigError, match="not a dotted name"):
        LazyConfig.from_yaml("a: 1")


def test_python_configs_may_name_anything(tmp_path: Path) -> None:
    (tmp_path / "config.py").write_text(
        "model = dict(_target_='tests.config.parts.record', text='from python')\n"
    )
    assert instantiate(LazyConfig.load(tmp_path / "config.py").model) == "from python"

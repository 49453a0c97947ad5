"""Data may build of a part only what belongs there, and its references stand for no more than a config."""

import time
from typing import Any

import pytest

from hypvl.config import LazyConfig
from hypvl.config.reader import MAX_TEXT
from hypvl.config.targets import unlisted_targets
from hypvl.errors import ConfigError

DUAL = "hypvl.models.dual_encoder.DualEncoder"
FILES = {"_target_": "hypvl.evaluation.prediction_files.PredictionFiles", "folder": "/tmp/x"}
SHARDS = {"_target_": "hypvl.data.shards.ImageTextShards", "tarfiles": ["http://host/a.tar"]}
REMOTE = {"_target_": "hypvl.datasets.classification.webdataset.WebDatasetSet", "root": "http://host"}
LOSS = {"_target_": "hypvl.losses.contrastive.Contrastive"}
SPHERE = {"_target_": "hypvl.geometry.sphere.Sphere"}
ADAMW = {"_target_": "torch.optim.AdamW"}


@pytest.mark.parametrize(
    ("part", "node", "home"),
    [
        ("model", FILES, "evaluate"), ("model", SHARDS, "dataset"), ("model", REMOTE, "evaluate"),
        ("model", LOSS, "train"), ("model", ADAMW, "optim"), ("dataset", FILES, "evaluate"),
        ("dataset", SPHERE, "model"), ("optim", SHARDS, "dataset"), ("train", SPHERE, "model"),
        ("train", FILES, "evaluate"), ("evaluate", LOSS, "train"), ("evaluate", SHARDS, "dataset"),
    ],
)  # fmt: skip
def test_a_part_holds_only_its_own_targets(part: str, node: dict[str, Any], home: str) -> None:
    """A model that names files to write, or a folder on a server: refused before anything is built."""
    at_the_top = {"_target_": DUAL} if part == "model" else {}
    target = node["_target_"]
    message = rf"target '{target}' at '{part}\.x\.0\._target_' belongs to {home}, not to {part}"
    with pytest.raises(ConfigError, match=message):
        LazyConfig.from_dict({part: {**at_the_top, "x": [node]}})
    assert LazyConfig.from_dict({home if home != "model" else "x": {"x": [node]}})


@pytest.mark.parametrize(
    "data",
    [
        {"model": {"_target_": DUAL, "visual": "${dataset}"}, "dataset": SHARDS},
        {"model": {"_target_": DUAL, "visual": "${a.b}"}, "a": "${c}", "c": {"b": SHARDS}},
        {"model": {"_target_": DUAL, "visual": {"x": "${..y}"}, "y": "${dataset}"}, "dataset": SHARDS},
        {"model": {"_target_": DUAL, "visual": ["${list[1]}"]}, "list": [1, SHARDS]},
        {"model": "${x}", "x": {"_target_": DUAL, "visual": SHARDS}},
        {"model": {"_target_": DUAL, "a": "${nowhere}", "visual": "${dataset}"}, "dataset": SHARDS},
    ],
)
def test_no_reference_brings_a_target_into_another_part(data: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"ImageTextShards' at 'model\..* belongs to dataset, not to model"):
        LazyConfig.from_dict(data)


def test_references_to_values_of_other_parts_are_fine() -> None:
    data = {
        "model": {"_target_": DUAL, "seed": "${train.seed}"},
        "train": {"seed": 3, "objective": {"_target_": "hypvl.losses.base.Objective", "terms": {"a": LOSS}}},
        "evaluate": {"a": {"encoding": "${encoding}"}},
        "encoding": {"_target_": "hypvl.embedding.encode.Encoding"},
    }
    assert LazyConfig.from_dict(data).model.seed == 3


@pytest.mark.parametrize("target", [SPHERE["_target_"], "hypvl.encoders.text.TextTransformer"])
def test_a_model_is_a_dual_encoder(target: str) -> None:
    for data in ({"model": {"_target_": target}}, {"model": "${x}", "x": {"_target_": target}}):
        with pytest.raises(
            ConfigError, match=r"'model\._target_' is only allowed inside a model; expected .*DualEncoder"
        ):
            LazyConfig.from_dict(data)


def test_own_classes_may_stand_in_every_part() -> None:
    node = {"_target_": "tests.config.parts.record", "text": "own"}
    cfg = LazyConfig.from_dict(
        {"model": node, "dataset": {"x": node}}, extra_targets=["tests.config.parts.record"]
    )
    assert cfg.model.text == cfg.dataset.x.text == "own"


def doubling(lines: int, first: Any, twice: Any) -> dict[str, Any]:
    return {"a0": first, **{f"a{i}": twice(f"${{a{i - 1}}}") for i in range(1, lines + 1)}}


@pytest.mark.parametrize(
    ("first", "twice"),
    [
        (["x"], lambda r: [r, r]),
        ({"x": 1}, lambda r: {"p": r, "q": r}),
        ("x", lambda r: f"{r}{r}"),
        (["x"], lambda r: {"p": [r, {"q": r}]}),
    ],
    ids=["lists", "mappings", "texts", "mixed"],
)
def test_references_that_double_are_refused_at_once(first: Any, twice: Any) -> None:
    for lines in (16, 60):
        started = time.perf_counter()
        with pytest.raises(ConfigError, match=r"'a\d+.*stand for more than 10,000 values"):
            LazyConfig.from_dict(
                {**doubling(lines, first, twice), "model": {"_target_": DUAL, "x": "${a16}"}}
            )
        assert time.perf_counter() - started < 1.0
    assert LazyConfig.from_dict(doubling(6, first, twice))


def test_long_texts_multiply_no_more_than_lists() -> None:
    with pytest.raises(ConfigError, match=r"more than .* 1,000,000 letters"):
        LazyConfig.from_dict({"a": "x" * 100_000, "b": "${a}" * 20})


@pytest.mark.parametrize(
    "data",
    [
        {"a": "${a}"},
        {"a": "${b}", "b": ["${a}"]},
        {"a": {"b": "${..a}"}},
        {"a": "${b.c}", "b": "${a}"},
        {"a0": 1, **{f"a{i}": f"${{a{i - 1}}}" for i in range(1, 100)}},
        dict(reversed({"a0": 1, **{f"a{i}": f"${{a{i - 1}}}" for i in range(1, 3000)}}.items())),
    ],
)
def test_circles_and_endless_chains_are_said(data: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="lead in a circle or through more than 64 others"):
        LazyConfig.from_dict(data)


@pytest.mark.parametrize("lines", [18, 60])
def test_merge_keys_that_double_are_refused_at_once(lines: int) -> None:
    text = "a0: &a0 {k: 1}\n" + "\n".join(
        f"a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}], k{i}: 1}}" for i in range(1, lines)
    )
    started = time.perf_counter()
    with pytest.raises(ConfigError, match=r"merges \(<<\) gather more than 10,000 keys"):
        LazyConfig.from_yaml(text)
    assert time.perf_counter() - started < 1.0
    few = LazyConfig.from_yaml("base: &b {k: 1, n: 2}\nx: {<<: *b, n: 3}")
    assert few.x == {"k": 1, "n": 3}


def test_texts_longer_than_any_config_are_not_parsed() -> None:
    for read, text in (
        (LazyConfig.from_yaml, "a: " + "x" * MAX_TEXT),
        (LazyConfig.from_yaml, "\n" * (MAX_TEXT + 1)),
    ):
        started = time.perf_counter()
        with pytest.raises(ConfigError, match=r"1,000,00\d letters; expected a config, of at most 1,000,000"):
            read(text)
        assert time.perf_counter() - started < 1.0


def test_many_keys_are_compared_in_one_pass() -> None:
    keys = ", ".join(f"k{i}: 1" for i in range(4_000))
    started = time.perf_counter()
    with pytest.raises(ConfigError, match="'k7' stands twice"):
        LazyConfig.from_yaml(f"{{{keys}, k7: 2}}")
    assert time.perf_counter() - started < 5.0


def test_targets_that_data_may_not_name_are_listed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    own, other = {"_target_": "own.Loss", "x": [1]}, {"_target_": "own.Head"}
    data: dict[str, Any] = {
        "model": {"_target_": DUAL, "visual_head": other, "textual_head": other, "scorer": LOSS},
        "train": {"objective": {"_target_": "hypvl.losses.base.Objective", "terms": {"a": own, "b": LOSS}}},
        "helper": {"_target_": "own.Helper"},
    }
    assert unlisted_targets(data) == [
        ("model.visual_head", "own.Head"),
        ("model.scorer", LOSS["_target_"]),  # on the list, of another part
        ("train.objective.terms.a", "own.Loss"),
    ]
    monkeypatch.setenv("HYPVL_EXTRA_TARGETS", "own.Loss,own.Head")
    assert [target for _, target in unlisted_targets(data)] == [LOSS["_target_"]]
    assert unlisted_targets([1]) == []

"""Damaged and hostile configs in YAML and JSON, alone and inside checkpoints, and overrides of a command line."""

import functools
import json
import random
from collections.abc import Callable, Iterator

import torch
import yaml

from hypvl.config import LazyConfig
from hypvl.models.hub import load_config
from tests.fuzz.damage import KINDS, damaged
from tests.fuzz.harness import Case, FuzzFailure, Outcome, Sandbox
from tests.security.test_configs import CALLS, filled, places

MODEL = {
    "_target_": "hypvl.models.dual_encoder.DualEncoder",
    "visual": {
        "_target_": "hypvl.encoders.image.TimmImageEncoder",
        "arch": "vit_tiny",
        "image_size": "${size}",
    },
    "pixel_mean": [0.5, 0.5, 0.5],
}
WHOLE = {"size": 32, "model": MODEL, "train": {"seed": 3, "amp": "bf16", "lr": 1e-4}}
SUFFIXES = ("yaml", "json")


def texts() -> Iterator[tuple[str, str, bytes]]:
    """(what it is, suffix, text)."""
    wide = "\n".join(f"k{i}: {{a: ${{k{i - 1}}}, b: ${{k{i - 1}}}}}" for i in range(1, 40))
    for name, text in {
        "aliases": "a: &a [x,x,x,x,x,x,x,x,x]\n"
        + "\n".join(f"b{i}: &b{i} [{', '.join(['*a' if i == 0 else f'*b{i - 1}'] * 9)}]" for i in range(9)),
        "references that double": "k0: 1\n" + wide,
        "a circle": "a: ${b}\nb: ${a}",
        "itself": "a: ${a}",
        "a long chain": "a0: 1\n" + "\n".join(f"a{i}: ${{a{i - 1}}}" for i in range(1, 2000)),
        "deep": "a: " + "[" * 5000,
        "deep blocks": "".join(f"{' ' * i}a:\n" for i in range(500)),
        "merges": "a: &a {x: 1}\nb: {<<: [" + ", ".join(["*a"] * 5000) + "]}",
        "merge of itself": "a: &a {<<: *a}",
        "tags": "a: !!python/object/apply:os.system [x]",
        "binary": "a: !!binary aGk=",
        "set": "a: !!set {x, y}",
        "omap": "a: !!omap [x: 1]",
        "timestamp": "a: 2001-01-01",
        "sexagesimal": "a: 190:20:30",
        "no": "a: no",
        "keys": "? [a, b]\n: c",
        "null key": "~: 1",
        "number keys": "1: a\n1.0: b",
        "long key": "a" * 100_000 + ": 1",
        "documents": "a: 1\n---\nb: 2",
        "directive": "%YAML 9.9\n---\na: 1",
        "NUL": "a: \0",
        "controls": "a: \x1b[31m",
        "surrogate": 'a: "\\ud800"',
        "a number": "3",
        "a list": "- a",
        "empty": "",
        "million": "a: " + "x" * 2_000_000,
        "many keys": "\n".join(f"k{i}: {i}" for i in range(1_000)),
        "unclosed": "a: {b: [c",
        "tabs": "a:\n\t- b",
        "infinities": "a: .inf\nb: .nan\nc: -.INF",
        "large": "a: " + "9" * 5000,
        "hex": "a: 0x" + "f" * 5000,
        "octal": "a: 0o" + "7" * 5000,
        "interpolation": "a: ${oc.env:HOME}\nb: ${oc.decode:x}",
        "escapes": "a: \\${b}\nb: \\\\${a}",
        "missing": "a: ???\nmodel: ???",
        "targets": "model: {_target_: [a]}\ntrain: {_target_: {}}",
        "parts": "model: 3\ndataset: []\ntrain: x\noptim: ~\nevaluate: 1.5",
        "reserved": "model: {_args_: 3, _partial_: x, _convert_: y, _recursive_: z}",
        "repeated": "a: 1\na: 2",
        "same": "<<: 1",
        "equals": "a: =",
        "relative": "a: ${.b}\nb: ${..c}\nc: {d: ${...e}}",
        "brackets": "a: ${b[0][1]['c']}\nb: []",
        "star": "a: *x",
        "percent": "a: %s %d {0}",
        "question": "?",
    }.items():
        yield name, "yaml", text.encode("utf-8", "surrogatepass")
    for name, text in {
        "deep": "[" * 200_000,
        "deep objects": '{"a":' * 50_000,
        "twice": '{"a": 1, "a": 2}',
        "NaN": '{"a": NaN}',
        "large": '{"a": ' + "9" * 6000 + "}",
        "exponent": '{"a": 1e99999}',
        "comment": "{/* */}",
        "surrogate": '{"a": "\\ud800"}',
        "NUL": '{"a": "\\u0000"}',
        "key NUL": '{"\\u0000": 1}',
        "list": "[1]",
        "text": '"a"',
        "BOM": "\ufeff{}",
        "empty": "",
        "proto": '{"__proto__": {"x": 1}, "__class__": "y"}',
        "dunder": '{"__dict__": {"a": 1}}',
        "dots": '{"a.b": 1, "a": {"b": 2}}',
        "empty key": '{"": {"": {"": 1}}}',
        "spaces": '{" a ": "${ a }"}',
    }.items():
        yield name, "json", text.encode("utf-8", "surrogatepass")


@functools.cache
def all_texts() -> list[tuple[str, str, bytes]]:
    return list(texts())


OVERRIDES = (
    "a=1",
    "model",
    "=",
    "",
    "a=",
    "+a={b:1}",
    "++a.b.c=1",
    "~model",
    "~",
    "model=${oc.env:HOME}",
    "train.seed=${train.seed}",
    "size=${size}",
    "model._target_=os.system",
    "+x._target_=os.nope",
    "train.seed=[1,2",
    "train.seed={",
    "train.lr=1e999",
    "train.seed=" + "9" * 5000,
    "a" * 100_000 + "=1",
    "train.seed=1,2",
    "train.seed=range(0,9)",
    "train.seed=choice(1,2)",
    "train.seed=glob(*)",
    "train.seed=sort(3,2)",
    "model.visual.0=1",
    "model.pixel_mean.9=1",
    "model.pixel_mean.-1=1",
    "train@x=1",
    "hydra.run.dir=/tmp/x",
    "train.seed='",
    'train.seed="',
    "train.seed=\\",
    "train.seed=\0",
    "train.seed=\x1b[31m",
    "+" + "a." * 500 + "b=1",
    "train.seed=" + "[" * 3000,
    "train.seed=" + "{a:" * 1000,
    "train..seed=1",
    ".train=1",
    "train.=1",
    "+a=${b}",
    "++model=${model}",
    "~train.seed=4",
    "train={seed:1}",
    "train=[1]",
    "model.visual=null",
    "train.amp=false",
    "--train.seed=1",
    "train.seed:=1",
    "train.seed=\ud800",
)


def _load(box: Sandbox, suffix: str, text: bytes) -> Outcome:
    path = box.inputs / f"config.{suffix}"
    path.write_bytes(text)
    config = LazyConfig.load(path)
    again = LazyConfig.from_yaml(LazyConfig.to_yaml(config))
    if LazyConfig.to_yaml(again) != LazyConfig.to_yaml(config):
        raise FuzzFailure("it does not come back as it was")
    LazyConfig.to_shown_yaml(config)
    load_config(path)
    return Outcome(good=1)


def _text(number: int) -> Callable[[Sandbox], Outcome]:
    def run(box: Sandbox) -> Outcome:
        _, suffix, text = all_texts()[number]
        return _load(box, suffix, text)

    return run


def _stored(number: int) -> Callable[[Sandbox], Outcome]:
    """The same text inside a checkpoint."""

    def run(box: Sandbox) -> Outcome:
        text = all_texts()[number][2].decode("utf-8", "replace")
        torch.save({"model": {"a": torch.ones(1)}, "config": text}, box.inputs / "a.pth")
        load_config(box.inputs / "a.pth")
        return Outcome(good=1)

    return run


def _damaged(suffix: str, kind: str, seed: int) -> Callable[[Sandbox], Outcome]:
    def run(box: Sandbox) -> Outcome:
        whole = (yaml.safe_dump(WHOLE) if suffix == "yaml" else json.dumps(WHOLE)).encode()
        return _load(box, suffix, damaged(whole, kind, random.Random(f"{suffix}{kind}{seed}"))[0])

    return run


def _override(number: int) -> Callable[[Sandbox], Outcome]:
    def run(box: Sandbox) -> Outcome:
        LazyConfig.to_yaml(LazyConfig.apply_overrides(LazyConfig.from_dict(WHOLE), [OVERRIDES[number]]))
        return Outcome(good=1)

    return run


def _attack(number: int) -> Callable[[Sandbox], Outcome]:
    def run(box: Sandbox) -> Outcome:
        for data in places(filled(CALLS[number], box.outside)):
            try:
                LazyConfig.from_dict(data)
            except Exception as error:  # noqa: BLE001 (raised again below)
                last = error
            else:
                raise FuzzFailure(f"taken: {data}")
        raise last

    return run


def config_cases() -> list[Case]:
    names = [f"{suffix} {name}" for name, suffix, _ in all_texts()]
    return [
        *(Case(f"config: {name}", _text(i)) for i, name in enumerate(names)),
        *(Case(f"config: in a checkpoint, {name}", _stored(i)) for i, name in enumerate(names)),
        *(Case(f"config: override {i} {text[:30]!r}", _override(i)) for i, text in enumerate(OVERRIDES)),
        *(
            Case(f"config: attack {i} {str(call['_target_'])[:30]!r}", _attack(i))
            for i, call in enumerate(CALLS)
        ),
        *(
            Case(f"config: {suffix} {kind} {seed}", _damaged(suffix, kind, seed))
            for seed in range(4)
            for suffix in SUFFIXES
            for kind in KINDS
        ),
    ]

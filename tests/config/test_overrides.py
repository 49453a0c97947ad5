"""Overrides: Hydra's grammar, strict keys and types."""

from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from hypvl.config import LazyConfig
from hypvl.errors import ConfigError

PART, OTHER = "tests.config.parts.Part", "tests.config.parts.Other"


@pytest.fixture
def cfg() -> DictConfig:
    """One key of every kind."""
    return OmegaConf.create(
        {
            "model": {
                "_target_": PART,
                "visual": {"_target_": PART, "arch": "vit_large_patch16_224", "image_size": 224},
                "heads": [{"size": 224}, {"size": 96}],
            },
            "optim": {"lr": 5e-4, "betas": [0.9, 0.98], "exclude": ["log_scale"], "steps": "${train.num_iterations}"},
            "train": {
                "num_iterations": 120_000, "total_batch_size": 2048, "amp": "auto", "compile": False, "clip": None,
                "wandb": {"mode": "disabled", "name": None}, "milestones": {1: "a", 2: "b"},
            },
            "eval": "${train.wandb}",
        }
    )  # fmt: skip


def apply(cfg: DictConfig, *overrides: str) -> DictConfig:
    return LazyConfig.apply_overrides(cfg, overrides)


def test_the_issue_s_command(cfg: DictConfig) -> None:
    new = apply(cfg, "model.visual.arch=vit_base_patch16_224", "train.total_batch_size=4096")
    assert new.model.visual.arch == "vit_base_patch16_224"
    assert new.train.total_batch_size == 4096
    assert cfg.train.total_batch_size == 2048  # the given config stays


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("train.total_batch_size=1_024", "train.total_batch_size", 1024),
        ("train.total_batch_size=1e3", "train.total_batch_size", 1000),
        ("train.total_batch_size='4096'", "train.total_batch_size", 4096),
        ("train.total_batch_size=null", "train.total_batch_size", None),
        ("optim.lr=1", "optim.lr", 1),
        ("optim.lr=1e-3", "optim.lr", 0.001),
        ("optim.lr='1e-3'", "optim.lr", 0.001),
        ("optim.lr=inf", "optim.lr", float("inf")),
        ("optim.steps=5", "optim.steps", 5),
        ("optim.betas=[0.9,1]", "optim.betas", [0.9, 1]),
        ("optim.betas=[]", "optim.betas", []),
        ("optim.betas.1=0.99", "optim.betas", [0.9, 0.99]),
        ("optim.exclude=[a,'b c',d]", "optim.exclude", ["a", "b c", "d"]),
        ("train.compile=true", "train.compile", True),
        ("train.amp=bf16", "train.amp", "bf16"),
        ("train.amp=false", "train.amp", False),
        ("train.amp=007", "train.amp", "007"),
        ("train.amp=1.50", "train.amp", "1.50"),
        ("train.amp='a, b: {c}'", "train.amp", "a, b: {c}"),
        ("train.amp=datasets/cc*/x-1.tar", "train.amp", "datasets/cc*/x-1.tar"),
        ("train.amp=", "train.amp", ""),
        ("train.amp=tcp://host:123", "train.amp", "tcp://host:123"),
        ("train.amp=str(5)", "train.amp", "5"),
        ("train.amp=/ä/größe x", "train.amp", "/ä/größe x"),
        ("train.amp=a#b", "train.amp", "a#b"),
        ("train.amp=~/runs/x", "train.amp", "~/runs/x"),
        ("+train.note=50%&more;", "train.note", "50%&more;"),
        ("train.wandb.name=None", "train.wandb.name", None),
        ("train.amp='None'", "train.amp", "None"),
        ("optim.exclude=[None,'None',{a: None}]", "optim.exclude", [None, "None", {"a": None}]),
        ("~train.clip=None", "train.clip", None),
        ("train.clip=1.5", "train.clip", 1.5),
        ("train.clip=[1,2]", "train.clip", [1, 2]),
        ("train.clip={a: 1}", "train.clip", {"a": 1}),
        ("train.wandb={mode: online}", "train.wandb", {"mode": "online", "name": None}),
        ("train.wandb=null", "train.wandb", None),
        ("train.milestones.2=c", "train.milestones", {1: "a", 2: "c"}),
        ("model.heads.0.size=160", "model.heads", [{"size": 160}, {"size": 96}]),
        ("model.heads=[{size: 1}]", "model.heads", [{"size": 1}]),
        ("train.total_batch_size=${model.visual.image_size}", "train.total_batch_size", 224),
        (f"model.visual._target_={OTHER}", "model.visual._target_", OTHER),
        ("+train.ema=0.99", "train.ema", 0.99),
        ("+ema.decay.value=0.99", "ema", {"decay": {"value": 0.99}}),
        ("+train.clip.norm=1", "train.clip", {"norm": 1}),
        ("+model.heads.2={size: 3}", "model.heads", [{"size": 224}, {"size": 96}, {"size": 3}]),
        ("++train.ema=1", "train.ema", 1),
        ("++train.compile=default", "train.compile", "default"),
        ("++train.wandb=off", "train.wandb", "off"),
        ("~optim.betas", "optim", {"lr": 5e-4, "exclude": ["log_scale"], "steps": 120_000}),
        ("~model.heads.0", "model.heads", [{"size": 96}]),
        ("~train.amp=auto", "train.amp", None),
    ],
)
def test_value(cfg: DictConfig, override: str, key: str, value: Any) -> None:
    result = OmegaConf.select(apply(cfg, override), key)
    result = OmegaConf.to_container(result, resolve=True) if OmegaConf.is_config(result) else result
    assert repr(result) == repr(value)  # the type counts as well: 1 is not 1.0


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.total_batchsize=1", "unknown key 'train.total_batchsize': the closest existing key is"
         " 'train.total_batch_size'; to add a new key write +train.total_batchsize=..."),
        ("trian.total_batch_size=1", "the closest existing key is 'train.total_batch_size'"),
        ("trian.total_batchsize=1", "the closest existing key is 'train.total_batch_size'"),
        ("total_batch_size=1", "the closest existing key is 'train.total_batch_size'"),
        ("model.arch=x", "the closest existing key is 'model.visual.arch'"),
        ("model.visual.architecture=x", "the closest existing key is 'model.visual.arch'"),
        ("qqqq=1", "'the config' has model, optim, train, eval"),
        ("train.wandb.mod=1", "the closest existing key is 'train.wandb.mode'"),
        ("train.wandb={mod: online}", "unknown key 'train.wandb.mod': the closest existing key is 'train.wandb.mode'"),
        ("model.heads.2.size=1", "unknown key 'model.heads.2.size': the list 'model.heads' has 2 entries"),
        ("model.heads.first=1", "the list 'model.heads' has 2 entries"),
        ("+model.heads.5=1", "the list 'model.heads' has 2 entries"),
        ("train.amp.mode=1", "'train.amp' is 'auto', which has no keys under it"),
        ("+train.amp.mode=1", "'train.amp' is 'auto', which has no keys under it"),
        ("~train.nothing", "unknown key 'train.nothing'"),
        ("~train.amp=bf16", "deletes 'train.amp' only where it is 'bf16', but it is 'auto'"),
        ("+train.amp=bf16", "key 'train.amp' exists already (a string 'auto'); write train.amp=... to change it"),
        ("eval.mode=online", "leads through 'eval', which refers to ${train.wandb}"),
        ("+eval.new=online", "leads through 'eval', which refers to ${train.wandb}"),
    ],
)  # fmt: skip
def test_wrong_keys(cfg: DictConfig, override: str, message: str) -> None:
    _refused(cfg, override, message)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.total_batch_size=many", "key 'train.total_batch_size' got a string 'many'; expected an integer, as its"
         " present value 2048 (++train.total_batch_size=... sets it whatever its type)"),
        ("train.total_batch_size=1.5", "got a number 1.5; expected an integer"),
        ("train.total_batch_size='1.5'", "got a string '1.5'; expected an integer"),
        ("train.total_batch_size=inf", "expected an integer"),
        ("train.total_batch_size=nan", "expected an integer"),
        ("train.total_batch_size=true", "got true or false True; expected an integer"),
        ("train.total_batch_size=[1]", "got a list [1]; expected an integer"),
        ("train.total_batch_size=${train.amp}", "got a string 'auto'; expected an integer"),
        ("train.total_batch_size=${train.nothing}", "refers to ${train.nothing}, which cannot be resolved"),
        ("optim.lr=fast", "got a string 'fast'; expected a number"),
        ("optim.lr=false", "got true or false False; expected a number"),
        ("optim.steps=many", "got a string 'many'; expected an integer"),
        ("optim.betas=0.9", "got a number 0.9; expected a list"),
        ("optim.betas=[0.9,b]", "key 'optim.betas.1' got a string 'b'; expected a number"),
        ("optim.betas={a: 1}", "got a mapping {'a': 1}; expected a list"),
        ("train.compile=1", "got an integer 1; expected true or false"),
        ("train.compile=yes", "got a string 'yes'; expected true or false"),
        ("train.wandb=online", "got a string 'online'; expected a mapping"),
        ("train.wandb=1", "got an integer 1; expected a mapping"),
        ("train.wandb={mode: [1]}", "key 'train.wandb.mode' got a list [1]; expected a string"),
        ("train.amp={a: 1}", "got a mapping {'a': 1}; expected a string"),
        ("train.amp=[bf16]", "got a list ['bf16']; expected a string"),
        ("model.visual._target_=tests.config.parts.Prat", "key 'model.visual._target_' got 'tests.config.parts.Prat'"),
        ("model.visual._target_=os", "'os', but that is nothing to call"),
        ("model.visual._target_=not/a/name", "is not a dotted name"),
        ("model.visual._target_=${model._target_}", "is not a dotted name"),
        ("model.visual._target_=null", "got None, but that is nothing to call"),
        ("+extra={a: [{_target_: no.such.Thing}]}", "key 'extra.a.0._target_' got 'no.such.Thing'"),
        ("++extra._target_=no.such.Thing", "key 'extra._target_' got 'no.such.Thing'"),
    ],
)  # fmt: skip
def test_wrong_types(cfg: DictConfig, override: str, message: str) -> None:
    _refused(cfg, override, message)


@pytest.mark.parametrize(
    "override",
    ["train.amp=a,b", "optim.lr=1,2", "train.amp=choice(a,b)", "optim.lr=range(1,3)", "optim.lr=interval(0,1)",
     "train.amp=glob(*)", "optim.lr=tag(x,interval(0,1))", "+new=1,2", "++new=choice(1,2)", "train.amp=shuffle(a,b)",
     "optim.lr=sort(3,2,1)"],
)  # fmt: skip
def test_sweeps_are_refused(cfg: DictConfig, override: str) -> None:
    message = (
        "cannot be read"
        if "shuffle" in override
        else "is a sweep over several values, which is not supported"
    )
    _refused(cfg, override, f"override '{override}' {message}")


@pytest.mark.parametrize(
    "override",
    ["train.amp", "", "=", "=1", "train.amp=a b]", "train.amp={a", "train.amp=[1", "+train.x", "a b=1", "train/amp=1",
     "train@x=1", "model.heads[0].size=1", "train.=1", "train.amp=a=b", "--flag", "train.amp='open", "train..amp=1",
     "train.amp=nothing(1)", "train.amp=int(x)", "+new=${.\ta", "++train.amp=x${a${b}"],
)  # fmt: skip
def test_what_is_no_override_is_named(cfg: DictConfig, override: str) -> None:
    _refused(cfg, override, f"override '{override}'")


@pytest.mark.parametrize(
    ("override", "cause"),
    [
        (
            "optim.exclude=[/ä/x,b]",
            "ä may only stand in quotes; put them around the text that holds it (in a shell",
        ),
        ("train.wandb={name: a#b}", "# may only stand in quotes"),
        ("train.amp='open", "a quote (') is not closed"),
        (
            "--train.num_iterations=5",
            "begins with dashes, which only flags have; write train.num_iterations=5.",
        ),
    ],
)
def test_what_needs_quotes_is_said(cfg: DictConfig, override: str, cause: str) -> None:
    _refused(cfg, override, cause)
    _refused(cfg, override, f"override '{override}'")


def test_overrides_apply_in_order_and_all_or_nothing(cfg: DictConfig) -> None:
    assert apply(cfg, "+a.b=1", "a.b=2", "~a.b", "+a.b=3").a.b == 3
    before = OmegaConf.to_container(cfg, resolve=False)
    with pytest.raises(ConfigError):
        apply(cfg, "train.amp=bf16", "train.anp=fp16")
    assert OmegaConf.to_container(cfg, resolve=False) == before


def test_an_argument_is_found_by_its_name_of_earlier_versions() -> None:
    table = {"_target_": "hypvl.datasets.retrieval.table.table", "path": "a.csv", "image_column": "image"}
    changed = LazyConfig.apply_overrides(OmegaConf.create({"data": table}), ["data.image_key=file"])
    assert changed == {"data": table | {"image_column": "file"}}
    with pytest.raises(ConfigError, match=r"unknown key 'data\.image_kye'"):
        LazyConfig.apply_overrides(OmegaConf.create({"data": table}), ["data.image_kye=file"])


def test_an_overridden_reference_stays_a_reference(cfg: DictConfig) -> None:
    new = apply(cfg, "train.total_batch_size=${model.visual.image_size}", "train.num_iterations=7")
    assert new.optim.steps == 7
    new.model.visual.image_size = 8
    assert new.train.total_batch_size == 8


def _refused(cfg: DictConfig, override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        apply(cfg, override)
    text = str(caught.value)
    assert message in text
    assert "\n" not in text
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("index", ["²", "9" * 5000])
def test_an_index_that_is_no_number(cfg: DictConfig, index: str) -> None:
    with pytest.raises(ConfigError, match="heads"):
        apply(cfg, f"model.heads.{index}.size=3")

"""Every number that a training recipe can hold has a range: what is outside is refused by its name.

All arguments of all targets that the recipes and the objectives of configs/ name are swept, those that a recipe leaves
at their default, too. Settings of `train` itself: tests/training/test_config.py.
"""

import copy
import functools
import inspect
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from omegaconf import OmegaConf

from hypvl.config import LazyCall as L, instantiate
from hypvl.config.plain import locate
from hypvl.datasets.images import LabelledImages
from hypvl.encoders.text import TextTransformer
from hypvl.errors import ConfigError
from hypvl.training.run import build_optimizer
from tests.test_configs import config, shrink_model, teachers_of
from tests.training.tiny import tiny_learner

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
VALUES: dict[str, Any] = {
    "-1": -1, "0": 0, "nan": math.nan, "inf": math.inf, "1e400": 10**400, "text": "many"
}  # fmt: skip
# What makes sense although it looks odd.
_NOTHING = {"0"}  # no such decay, no drop path, no bad sample ...
_ANY = {"-1", "0"}  # a bias, a mean, the logarithm of a scale
SENSIBLE = {
    "AdamW.lr": _NOTHING,  # where parameters have rates of their own
    "AdamW.weight_decay": _NOTHING,
    "AngledEntailment.angle_weight": _NOTHING,
    "BarlowTwins.off_diagonal": _NOTHING,
    "BatchStandardize.eps": _NOTHING,
    "BatchStandardize.momentum": _NOTHING,
    "ClassCrossEntropy.label_smoothing": _NOTHING,
    "Contrastive.label_smoothing": _NOTHING,
    "ConvStemViT.drop_path_rate": _NOTHING,
    "ConvStemViT.pixel_mean": _ANY,
    "Cosine.bias_init": _ANY,
    "Cosine.further_log_scales": _ANY,
    "Cosine.log_scale_init": _ANY,
    "CrossModalRank.fixed_threshold": _ANY,
    "DINO.center_momentum": _NOTHING,
    "DINO.frozen_steps": _NOTHING,
    "DINO.warmup_steps": _NOTHING,
    "DemoMapper.box_level_weights": _NOTHING,
    "DemoMapper.level_weights": _NOTHING,
    "ExteriorAngle.further_log_scales": _ANY,
    "ExteriorAngle.log_scale_init": _ANY,
    "ImageTextShards.max_bad_fraction": _NOTHING,
    "ImageTextTable.max_bad_fraction": _NOTHING,
    "NegativeDistance.further_log_scales": _ANY,
    "NegativeDistance.log_scale_init": _ANY,
    "Objective.warmup": _NOTHING,
    "Objective.weights": _NOTHING,  # computed and logged only
    "Photometric.blur": _NOTHING,
    "Photometric.flip": _NOTHING,
    "Photometric.gray": _NOTHING,
    "Photometric.jitter": _NOTHING,
    "Photometric.solarize": _NOTHING,
    "Photometric.strength": _NOTHING,
    "ProtoCLIP.external_weight": _NOTHING,
    "ProtoCLIP.hidden_layers": _NOTHING,  # a linear head
    "ProtoCPC.frozen_steps": _NOTHING,
    "ProtoCPC.prior_momentum": _NOTHING,
    "PromptedImages.max_bad_fraction": _NOTHING,
    "QueryMapper.max_phrases": _NOTHING,
    "RedCapsMapper.prefix_probability": _NOTHING,
    "ScaledProjectionHead.log_scale_init": _ANY,
    "ShareGPT4V.max_bad_fraction": _NOTHING,
    "ShareGPT4V.validation_entries": _NOTHING,
    "ShortCaption.label_smoothing": _NOTHING,
    "Sigmoid.bias_init": _ANY,
    "TextTransformer.dropout": _NOTHING,
    "TextTransformer.fixed_positions": _NOTHING,
    "TextTransformer.pad_token": _NOTHING,  # CLIP's
    "TextTransformer.prompt_vectors": _NOTHING,
    "TimmImageEncoder.drop_path_rate": _NOTHING,
    "EMATeacher.final_momentum": _NOTHING,
    "EMATeacher.momentum": _NOTHING,
    "TextLines.max_bad_fraction": _NOTHING,
    "TimmImageEncoder.pixel_mean": _ANY,
    "TorchvisionImageEncoder.pixel_mean": _ANY,
    "Calibration.angle_weight": _NOTHING,
    "UncertaintyEntropy.eps": _NOTHING,
    "VICReg.covariance_weight": _NOTHING,
    "VICReg.eps": _NOTHING,
    "VICReg.invariance_weight": _NOTHING,
    "VICReg.variance_weight": _NOTHING,
    "parameter_groups.gain_bias_decay": _NOTHING,
    "parameter_groups.lr": _NOTHING,  # as good as frozen
    "parameter_groups.unlocked_blocks": _NOTHING,  # only what comes after the blocks
    "parameter_groups.weight_decay": _NOTHING,
    "parameter_groups.weight_decay_end": _NOTHING,
    "parameter_groups.windows": _NOTHING,  # from the first step
    "half_cosine.warmup_steps": _NOTHING,
    "warmup_cosine.warmup_steps": _NOTHING,
}
# Arguments that hold several numbers, where no recipe says them: what they can be.
EXAMPLES: dict[tuple[str, str], Any] = {
    ("DemoMapper", "box_level_weights"): [0.25, 0.25, 0.25, 0.25],
    ("parameter_groups", "lr"): {"model.scorer.*": 1e-3},
    ("parameter_groups", "layer_decay"): {"model.visual": 0.5},
    ("parameter_groups", "backbone_scale"): {"model.visual": 0.5},
    ("parameter_groups", "windows"): {"model.scorer.*": [0, 100_000]},
    ("parameter_groups", "unlocked_blocks"): {"model.visual": 1},
    ("Objective", "warmup"): {"contrastive": [0, 5]},
    ("TimmImageEncoder", "pixel_mean"): [0.5, 0.5, 0.5],
    ("TimmImageEncoder", "pixel_std"): [0.5, 0.5, 0.5],
    ("TorchvisionImageEncoder", "pixel_mean"): [0.5, 0.5, 0.5],
    ("TorchvisionImageEncoder", "pixel_std"): [0.5, 0.5, 0.5],
    ("NegativeDistance", "further_log_scales"): {"local": 3.0},
    ("Cosine", "further_log_scales"): {"local": 3.0},
    ("ExteriorAngle", "further_log_scales"): {"local": 3.0},
    ("Contrastive", "tile"): [4, 4],
    ("HardNegativeContrastive", "tile"): [4, 4],
    ("GlobalLocalContrastive", "tile"): [4, 4],
}


OPTIM = {
    "hypvl.training.optim.parameter_groups": "parameters",
    "torch.optim.adamw.AdamW": "optimizer",
    "hypvl.training.optim.warmup_cosine": "lr_scheduler",
}
ROLES = {target.rpartition(".")[2]: role for target, role in OPTIM.items()} | {"half_cosine": "lr_scheduler"}
TAKES_TWO_WIDTHS = {"QueryPooling"}  # of images and of texts
# What takes an encoder, where other partial calls of a model take its width.
ENCODERS = {"adapted": lambda: TextTransformer("L1_W32_A2", vocab_size=50)}


class Leaf(NamedTuple):
    """One number of one target."""

    target: str
    path: tuple[str | int, ...]

    @property
    def argument(self) -> str:
        return str(self.path[0])

    def __str__(self) -> str:
        return ".".join([self.target.rpartition(".")[2], *map(str, self.path)])


def nodes(value: Any) -> Iterator[dict[str, Any]]:
    """Every call in a plain config."""
    if isinstance(value, Mapping):
        if "_target_" in value:
            yield dict(value)
        for item in value.values():
            yield from nodes(item)
    elif isinstance(value, list):
        for item in value:
            yield from nodes(item)


def numbers(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Where numbers stand in an argument, outside of further calls; of a list the first one is enough."""
    if isinstance(value, bool) or (isinstance(value, Mapping) and "_target_" in value):
        return
    if isinstance(value, int | float):
        yield path
    elif isinstance(value, list):
        for i, item in enumerate(value[:1]):
            yield from numbers(item, (*path, i))
    elif isinstance(value, Mapping):
        for key in list(value)[:1]:
            yield from numbers(value[key], (*path, key))


def takes_numbers(parameter: inspect.Parameter) -> bool:
    default, said = parameter.default, str(parameter.annotation)
    if (
        isinstance(default, bool)
        or "Callable" in said
        or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ):
        return False
    said_so = bool(re.search(r"\b(int|float)\b", said))
    return isinstance(default, int | float) or (said_so and (default is None or isinstance(default, tuple)))


@functools.cache
def recipe_nodes() -> dict[str, dict[str, Any]]:
    """Target -> a call of it that builds, of a recipe with small encoders."""
    result: dict[str, dict[str, Any]] = {}
    for path in [*sorted(CONFIGS.glob("train_*.py")), *sorted(CONFIGS.glob("common/objective/*.py"))]:
        cfg = copy.deepcopy(config(path))
        if "model" in cfg:
            for model in [cfg.model, *(t.model for t in teachers_of(cfg) if "model" in t)]:
                shrink_model(model)
        if "dataset" in cfg and "images" in cfg.dataset:
            cfg.dataset.update(
                images=L(LabelledImages)(images=[], labels=[], classes=["a"]), prompts=["a {}"]
            )
        for node in nodes(OmegaConf.to_container(cfg, resolve=True)):
            result.setdefault(node["_target_"], node)
    return result


def leaves() -> list[Leaf]:
    result = []
    for target, node in recipe_nodes().items():
        said = {name: value for name, value in node.items() if not name.startswith("_")}
        for name, value in said.items():
            result += [Leaf(target, (name, *path)) for path in numbers(value)]
        for name, parameter in inspect.signature(locate(target)).parameters.items():
            known = any(leaf.target == target and leaf.argument == name for leaf in result)
            if known or not takes_numbers(parameter) or name in ("in_features", "features"):
                continue
            default = parameter.default
            example = EXAMPLES.get(
                (target.rpartition(".")[2], name), list(default) if isinstance(default, tuple) else 1
            )
            result += [Leaf(target, (name, *path)) for path in numbers(example)]
    return result


def changed(leaf: Leaf, value: Any) -> dict[str, Any]:
    node = copy.deepcopy(recipe_nodes()[leaf.target])
    name = leaf.target.rpartition(".")[2]
    if len(leaf.path) > 1 and node.get(leaf.argument) is None:
        default = inspect.signature(locate(leaf.target)).parameters[leaf.argument].default
        node[leaf.argument] = copy.deepcopy(EXAMPLES.get((name, leaf.argument))) or list(default)
    if (name, leaf.argument) == ("DemoMapper", "box_level_weights"):
        node["boxes"] = True  # means nothing without
    place: Any = node
    for step in leaf.path[:-1]:
        place = place[step]
    place[leaf.path[-1]] = value
    return node


def build(node: dict[str, Any]) -> None:
    target = node["_target_"]
    call = OmegaConf.create({"it": node}, flags={"allow_objects": True}).it
    role = ROLES.get(target.rpartition(".")[2])
    if role is not None:
        optim = OmegaConf.create({name: recipe_nodes()[made] for made, name in OPTIM.items()})
        optim[role] = call
        build_optimizer(optim, tiny_learner("clip"))
        return
    made = instantiate(call)
    if isinstance(made, functools.partial):
        name = made.func.__name__
        given = (16, 16) if name in TAKES_TWO_WIDTHS else (ENCODERS[name]() if name in ENCODERS else 16,)
        try:
            made(*given)
        except ValueError as error:
            raise ConfigError(str(error)) from error


@pytest.mark.parametrize("leaf", leaves(), ids=str)
def test_what_is_out_of_range_is_refused_by_name(leaf: Leaf) -> None:
    sensible = SENSIBLE.get(f"{leaf.target.rpartition('.')[2]}.{leaf.argument}", set())
    accepted, unnamed = set(), {}
    for said, value in VALUES.items():
        try:
            build(changed(leaf, value))
        except ConfigError as error:
            if not re.search(rf"\b{leaf.argument}\b", str(error)):
                unnamed[said] = str(error)
        else:
            accepted.add(said)
    assert not unnamed, f"{leaf}: the message does not name it"
    assert accepted == sensible, f"{leaf}: accepted"


def test_what_makes_sense_is_no_list_of_the_past() -> None:
    assert set(SENSIBLE) <= {f"{leaf.target.rpartition('.')[2]}.{leaf.argument}" for leaf in leaves()}


def test_the_sweep_sees_every_target() -> None:
    targets = {leaf.target.rpartition(".")[2] for leaf in leaves()}
    assert {
        "Lorentz",
        "Product",
        "Euclidean",
        "Cosine",
        "CLOOB",
        "ImageTextShards",
        "AdamW",
        "TimmImageEncoder",
    } <= targets
    assert len(leaves()) > 60

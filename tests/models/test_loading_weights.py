"""What weights a model takes: names that wrappers changed, values that are none, parts that are missing."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from loguru import logger
from omegaconf import OmegaConf
from torch import Tensor

from hypvl.errors import CheckpointError
from hypvl.models.convert import without_wrappers
from hypvl.models.convert.meru import to_official
from hypvl.models.dual_encoder import DualEncoder
from hypvl.models.hub import create_model
from hypvl.models.positions import interpolate_image_positions
from hypvl.models.weights import load_weights, settings_of
from tests.models.convert.test_open_clip import ours as clip_like, theirs
from tests.models.test_hub import TINY, same

Rename = Callable[[str], str]


def build(seed: int = 0, **changes: Any) -> DualEncoder:
    """The tiny MERU of test_hub, with changes such as ``{"visual.position": "learned"}``."""
    config = OmegaConf.create({"model": copy.deepcopy(TINY)})
    for key, value in changes.items():
        OmegaConf.update(config, f"model.{key}", value, merge=False, force_add=True)
    torch.manual_seed(seed)
    return create_model(config)


@pytest.fixture
def told() -> Any:
    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(str(message)), format="{level}: {message}")
    yield lines
    logger.remove(sink)


def around(prefix: str) -> Rename:
    return lambda name: prefix + name


def inside(part: str, prefix: str) -> Rename:
    return lambda name: (
        name.replace(f"{part}.", f"{part}.{prefix}", 1) if name.startswith(f"{part}.") else name
    )


@pytest.mark.parametrize(
    "rename",
    [
        *(around(prefix) for prefix in (
            "_orig_mod.", "module.", "model.", "module._orig_mod.", "_orig_mod.module.", "module.model._orig_mod.",
            "_fsdp_wrapped_module.",
        )),
        *(inside(part, prefix) for part in ("visual", "textual", "visual.trunk") for prefix in (
            "_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.",
        )),
        inside("visual", "module."), inside("textual", "module._orig_mod."), inside("textual", "_orig_mod.module."),
        lambda name: f"module.{name}" if name.startswith("textual.") else name,
        lambda name: f"_orig_mod.{name}" if name.startswith("visual.") else name,
    ],
)  # fmt: skip
@pytest.mark.parametrize("naming", ["hypvl", "official", "open_clip"])
@pytest.mark.parametrize("strict", [True, False])
def test_prefixes_of_wrappers_are_taken_off(rename: Rename, naming: str, strict: bool) -> None:
    """One that stayed made a file unreadable, or left a whole encoder random."""
    if naming == "open_clip":
        source, model, state = clip_like(), clip_like(), theirs("clip").state_dict()
        load_weights(source, state)
    else:
        source, model = build(1), build(2)
        state = source.state_dict() if naming == "hypvl" else to_official(source.state_dict())
    assert not load_weights(model, {rename(name): t for name, t in state.items()}, strict=strict).differs
    assert same(model, source)


def test_prefixes_that_make_two_names_one_are_refused() -> None:
    x = torch.zeros(1)
    with pytest.raises(CheckpointError, match=r"visual.a stands there twice"):
        without_wrappers({"module.visual.a": x, "visual.a": x})
    plain = {
        "visual.trunk.module.a": x,
        "visual.trunk.b": x,
        "model": x,
        "textual.module.a": x,
        "textual.b": x,
    }
    assert list(without_wrappers(plain)) == list(
        plain
    )  # a name that is not of all of a part is the part's own


@pytest.mark.parametrize(("part", "count"), [("visual", 17), ("textual", 15)])
def test_an_encoder_never_stays_random_unless_it_is_allowed_by_name(part: str, count: int) -> None:
    source, model = build(1), build(2)
    before = copy.deepcopy(model.state_dict())
    rest = {name: t for name, t in source.state_dict().items() if not name.startswith(f"{part}.")}
    some = {**rest, f"{part}.other": torch.zeros(1)}
    for state in (rest, some):
        with pytest.raises(
            CheckpointError, match=rf"nothing in it fits model.{part}, whose {count} weights"
        ) as caught:
            load_weights(model, state, strict=False)
        assert f"train.init_missing=[model.{part}.*]" in str(caught.value)
        assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    report = load_weights(model, rest, allow_missing=[f"{part}.*"])
    assert all(name.startswith(f"{part}.") for name in report.missing)
    changed = model.state_dict()
    assert all(torch.equal(changed[name], t) for name, t in rest.items())


def test_an_encoder_of_another_width_is_named_with_its_setting() -> None:
    with pytest.raises(
        CheckpointError, match=r"fits model.textual.*textual.arch is L1_W64 in the file, L1_W128 in the model"
    ):
        load_weights(build(**{"textual.arch": "L1_W128"}), build().state_dict(), strict=False)


SPOILT: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "nan": (
        lambda t: t.index_fill(0, torch.tensor([0]), float("nan")),
        "1 of 42 weights hold NaN or infinity: ",
    ),
    "infinity": (
        lambda t: t.index_fill(0, torch.tensor([1]), -float("inf")),
        "1 of 42 weights hold NaN or inf",
    ),
    "bf16 nan": (lambda t: (t * float("nan")).bfloat16(), "hold NaN or infinity"),
    "integers": (
        lambda t: t.long(),
        r"holds torch.int64; expected floating-point numbers, as .*torch.float32",
    ),
    "bytes": (lambda t: t.to(torch.uint8), r"holds torch.uint8; expected floating-point"),
    "booleans": (lambda t: t > 0, r"holds torch.bool; expected floating-point"),
    "complex": (lambda t: t.to(torch.complex64), r"holds torch.complex64; expected floating-point"),
    "sparse": (lambda t: t.to_sparse(), "is a sparse or empty tensor; expected plain numbers"),
    "meta": (lambda t: t.to("meta"), "is a sparse or empty tensor"),
    "quantized": (lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8), "is a quantized tensor"),
}


@pytest.mark.parametrize("kind", SPOILT)
@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.filterwarnings("ignore")  # torch on its quantized tensors
def test_weights_that_are_no_finite_floats_are_refused_by_name(kind: str, strict: bool) -> None:
    spoil, message = SPOILT[kind]
    model = build(1)
    before = copy.deepcopy(model.state_dict())
    state = build(2).state_dict()
    name = "textual.ln_final.weight"
    state[name] = spoil(state[name])
    with pytest.raises(CheckpointError, match=message) as caught:
        load_weights(model, {"model": state}, strict=strict)
    assert name in str(caught.value)
    assert all(torch.equal(t, before[key]) for key, t in model.state_dict().items())  # nothing was copied


def test_half_precision_weights_are_fine() -> None:
    source, model = build(1), build(2)
    state = {name: t.bfloat16() for name, t in source.state_dict().items()}
    assert not load_weights(model, state).differs
    assert torch.equal(model.textual.ln_final.weight, source.textual.ln_final.weight.bfloat16().float())


def test_plain_data_among_the_weights() -> None:
    """Numbers by the name of a weight are one, arrays too; an epoch is none."""
    source, model = build(1), build(2)
    state: dict[str, Any] = to_official(source.state_dict())
    state |= {"logit_scale": float(state["logit_scale"]), "curv": np.float32(state["curv"]), "epoch": 3}
    state |= {
        "visual.norm.bias": state["visual.norm.bias"].numpy().astype(">f4"),
        "version": "a",
        "none": None,
    }
    assert not load_weights(model, {"model": state}).differs
    assert same(model, source)


def shapes(model: DualEncoder) -> list[str]:
    return [f"{name} {tuple(t.shape)}" for name, t in model.state_dict().items()]


@pytest.mark.parametrize(
    ("changes", "setting"),
    [
        ({"textual.context_length": 12}, "model.textual.context_length is 9 in the file, 12 in the model"),
        ({"textual.arch": "L2_W64"}, "model.textual.arch is L1_W64 in the file, L2_W64 in the model"),
        ({"textual.vocab_size": 60}, "model.textual.vocab_size is 50 in the file, 60 in the model"),
        ({"visual.timm_args.depth": 2}, "blocks of model.visual is 1 in the file, 2 in the model"),
        ({"visual.timm_args.embed_dim": 32}, "width of model.visual is 16 in the file, 32 in the model"),
        ({"visual.arch": "vit_base_patch8_224"}, "patch size of model.visual is 16 x 16 in the file, 8 x 8 in the"),
        ({"visual.image_size": 48}, r"positions of model.visual \(its image_size\) is 5 in the file, 10 in the"),
        (
            {"visual_head.out_features": 4, "textual_head.out_features": 4},
            "out_features of the heads is 8 in the file, 4 in the model",
        ),
        ({"geometry": {"_target_": "hypvl.geometry.sphere.Sphere"}}, "geometry is hyperbolic .*, without a curv"),
        (
            {"geometry": {"_target_": "hypvl.geometry.product.Product", "factors": 2, "factor_dim": 4}},
            "geometry is hyperbolic .*, a product of 2 curved factors in the model",
        ),
        (
            {"scorer": {"_target_": "hypvl.geometry.scorers.Cosine", "bias_init": 0.0}},
            "model.scorer is without a bias in the file, with a bias in the model",
        ),
        (
            {"visual": {"_target_": "hypvl.encoders.conv_vit.ConvStemViT", "image_size": 32}},
            "image encoder is a vision transformer in the file, one of blocks, norm, pos_embed, stem in the model",
        ),
    ],
)  # fmt: skip
def test_the_setting_that_differs_is_named(changes: dict[str, Any], setting: str) -> None:
    """Not a list of a thousand letters of names."""
    model = build(**changes)
    with pytest.raises(CheckpointError, match=setting) as caught:
        load_weights(model, build().state_dict())
    assert "choose the model definition that the file was trained with" in str(caught.value)
    assert len(str(caught.value)) < 1000
    assert settings_of(model.state_dict()) != settings_of(build().state_dict())


def test_a_file_with_fewer_logit_scales_is_told_apart() -> None:
    """Such as UNCHA's of hypvl 0.1.0, which had one."""
    model = build(1, **{"scorer.further_log_scales": {"local": 3.0, "global_local": 2.8}})
    said = "number of logit scales is 1 in the file, 3 in the model .*; choose the model definition that the file was"
    with pytest.raises(CheckpointError, match=said):
        load_weights(model, build().state_dict())
    report = load_weights(model, build().state_dict(), allow_missing=["scorer.log_scale_*"])
    assert set(report.missing) == {"scorer.log_scale_local", "scorer.log_scale_global_local"}


def test_one_scale_of_all_factors_becomes_that_of_each(told: list[str]) -> None:
    """A PHyCLIP of an earlier hypvl, as the same model; a MERU is not taken for one."""
    product = {"geometry": {"_target_": "hypvl.geometry.product.Product", "factors": 2, "factor_dim": 4}}
    model = build(1, **product, **{"visual_head.factors": 2, "textual_head.factors": 2})
    earlier = build(2, **product)
    with torch.no_grad():
        earlier.visual_head.log_scale.fill_(-0.25)  # type: ignore[union-attr, operator]
    assert not load_weights(model, earlier.state_dict()).differs
    assert model.state_dict()["visual_head.log_scale"].tolist() == [-0.25, -0.25]
    assert any("its visual_head.log_scale of all factors becomes that of each of 2" in line for line in told)
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(model.encode_image(images), earlier.encode_image(images))
    with pytest.raises(
        CheckpointError, match=r"geometry is hyperbolic .*, a product of 2 curved factors in the"
    ):
        load_weights(model, build().state_dict())


LEARNED = {"visual.position": "learned"}


@pytest.mark.parametrize("size", [16, 64, 112])
@pytest.mark.parametrize("strict", [True, False])
def test_learned_positions_are_interpolated_as_timm_does(told: list[str], size: int, strict: bool) -> None:
    """Bicubic, with antialiasing; the class token's row is copied. They used to stay random."""
    source, model = build(1, **LEARNED), build(2, **LEARNED, **{"visual.image_size": size})
    report = load_weights(model, source.state_dict(), strict=strict)
    table = source.visual.trunk.pos_embed.detach()
    grid = size // 16
    patches = table[:, 1:].reshape(1, 2, 2, 16).permute(0, 3, 1, 2)
    expected = F.interpolate(patches, size=(grid, grid), mode="bicubic", antialias=True, align_corners=False)
    loaded = model.visual.trunk.pos_embed.detach()
    torch.testing.assert_close(loaded[:, 1:], expected.permute(0, 2, 3, 1).reshape(1, -1, 16))
    assert torch.equal(loaded[:, :1], table[:, :1])
    line = f"visual.trunk.pos_embed interpolated from 2 x 2 to {grid} x {grid} patches"
    assert report.resized == (line,) and line in str(report) and not report.differs
    assert [text for text in told if line in text] == [f"INFO: checkpoint: {line}\n"]


def test_exact_refuses_positions_of_another_length() -> None:
    state = build(1, **LEARNED).state_dict()
    for strict in (True, False):
        model = build(2, **LEARNED, **{"visual.image_size": 64})
        with pytest.raises(
            CheckpointError, match=r"positions='exact': checkpoint has 5 positions in visual.trunk"
        ):
            load_weights(model, state, positions="exact", strict=strict)
        model = build(2, **LEARNED, **{"textual.context_length": 12})
        with pytest.raises(CheckpointError, match=r"has 9 positions in textual.posit_embed, the model 12"):
            load_weights(model, state, positions="exact", strict=strict)
    assert not load_weights(build(2, **LEARNED), state, positions="exact").differs


def test_fixed_positions_are_not_interpolated() -> None:
    """The model's own table is the one of its resolution."""
    model = build(2, **{"visual.image_size": 64})
    before = model.visual.trunk.pos_embed.clone()
    report = load_weights(model, build(1).state_dict(), strict=False)
    assert report.resized == () and len(report.misshaped) == 1
    assert torch.equal(model.visual.trunk.pos_embed, before)


def test_positions_of_frozen_models_are_interpolated_too() -> None:
    model = build(2, **LEARNED, **{"visual.image_size": 64}).requires_grad_(False)
    assert len(load_weights(model, build(1, **LEARNED).state_dict()).resized) == 1


def test_tables_of_another_kind_are_left_alone() -> None:
    for table, prefix in ((torch.zeros(1, 7, 4), 1), (torch.zeros(4, 4), 0), (torch.zeros(1, 1, 4), 1)):
        assert interpolate_image_positions(table, grid=(4, 4), prefix=prefix) is None
    made = interpolate_image_positions(torch.ones(1, 4, 4).half(), grid=(2, 3), prefix=0)
    assert made is not None and made.shape == (1, 6, 4) and made.dtype == torch.float16
    torch.testing.assert_close(made, torch.ones(1, 6, 4).half())  # a constant stays one


def test_pixels_that_were_asked_for_stay_with_an_open_clip_file(told: list[str]) -> None:
    """Such files do not hold them: 0.4815 took the place of 0.5 without a word."""
    state = theirs("clip").state_dict()
    model = clip_like()
    load_weights(model, state)
    assert model.visual.pixel_mean.flatten().tolist() == pytest.approx([0.48145466, 0.4578275, 0.40821073])
    assert told == []
    model = clip_like(pixel_mean=(0.5, 0.5, 0.5))
    load_weights(model, state)
    assert model.visual.pixel_mean.flatten().tolist() == [0.5, 0.5, 0.5]
    assert model.visual.pixel_std.flatten().tolist() == pytest.approx([0.26862954, 0.26130258, 0.27577711])
    assert len(told) == 1 and "WARNING: checkpoint: pixel_mean [0.5, 0.5, 0.5] of the config stays" in told[0]
    model = clip_like(pixel_mean=(0.48145466, 0.4578275, 0.40821073))
    load_weights(model, state)
    assert len(told) == 1


def test_pixels_of_a_file_that_holds_them_stand_with_a_warning(told: list[str]) -> None:
    state = build(1, **{"visual.pixel_mean": [0.1, 0.2, 0.3]}).state_dict()
    asked, unasked = build(2, **{"visual.pixel_mean": [0.5, 0.5, 0.5]}), build(3)
    load_weights(unasked, state)
    assert told == []
    load_weights(asked, state)
    for model in (asked, unasked):
        assert model.visual.pixel_mean.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert len(told) == 1 and "its pixel_mean [0.1, 0.2, 0.3] stands, not [0.5, 0.5, 0.5]" in told[0]


def test_a_model_of_one_encoder_takes_it_from_a_file_of_two() -> None:
    both = build(1)
    for part, other in (("visual", "textual"), ("textual", "visual")):
        single = build(2, **{other: None, f"{other}_head": None})
        assert not load_weights(single, {"model": both.state_dict()}).differs
        name = next(name for name, _ in single.named_parameters() if name.startswith(f"{part}."))
        assert torch.equal(single.get_parameter(name), both.get_parameter(name))


def test_an_encoder_that_is_new_as_a_whole_keeps_its_pixels_too() -> None:
    """The file has another image encoder, of another shape and with other pixel statistics."""
    wider = {"depth": 1, "embed_dim": 24, "num_heads": 2}
    file = build(1, **{"visual.pixel_mean": [0.1, 0.2, 0.3], "visual.timm_args": wider})
    model = build(2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(CheckpointError):
        load_weights(model, {"model": file.state_dict()}, allow_missing=["visual.*"])  # the head is not named
    report = load_weights(model, {"model": file.state_dict()}, allow_missing=["visual*"])
    after = model.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in after if name.startswith("visual"))
    assert all(
        torch.equal(after[name], file.state_dict()[name]) for name in after if name.startswith("textual")
    )
    assert report.missing and not report.unexpected and not report.misshaped
    same = build(3)
    assert not load_weights(same, {"model": build(1).state_dict()}, allow_missing=["visual*"]).differs

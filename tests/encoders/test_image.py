"""timm encoders by name: width, recipe, options, errors."""

from typing import Any

import pytest
import timm
import torch
from timm.models.vision_transformer import Block
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from hypvl.encoders import image as image_module
from hypvl.encoders.image import VARIANTS, ReadOutBlock, TimmImageEncoder, Variant, list_image_archs
from hypvl.encoders.image_base import sincos_2d
from hypvl.errors import ConfigError, UserError
from tests.parity.reference import load

SHALLOW = {"depth": 2, "embed_dim": 48, "num_heads": 3}


def tiny(arch: str = "vit_tiny_patch16_224", **options: Any) -> TimmImageEncoder:
    torch.manual_seed(0)
    return TimmImageEncoder(arch, **({"image_size": 32, "timm_args": SHALLOW} | options))


def images(size: int = 32, count: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize(
    ("arch", "size", "width"),
    [
        ("test_vit", 64, 64),
        ("resnet18", 64, 512),
        ("convnext_atto", 64, 320),
        ("mobilenetv3_small_050", 64, 1024),  # its head is wider than its last stage
        ("test_vit2", 64, 64),
    ],
)
def test_width_is_found(arch: str, size: int, width: int) -> None:
    model = TimmImageEncoder(arch, image_size=size).eval()
    assert model.width == width
    with torch.no_grad():
        assert model(images(size)).shape == (2, width)


def test_published_vit_s_has_twelve_heads() -> None:
    with torch.device("meta"):
        trunk = timm.create_model(
            VARIANTS["vit_small_mocov3_patch16_224"].base,
            **VARIANTS["vit_small_mocov3_patch16_224"].timm_args,
        )
    assert [block.attn.num_heads for block in trunk.blocks] == [12] * 12
    assert "vit_small_mocov3_patch16_224" in list_image_archs()


def test_published_names_and_shapes() -> None:
    manifest = load("state_dict_manifest")
    if manifest is None:
        pytest.skip("state_dict_manifest.json is absent")
    published = {
        name.removeprefix("visual."): tuple(shape)
        for name, (shape, _) in manifest["models"]["CLIP_S"]["state_dict"].items()
        if name.startswith("visual.")
    }
    model = TimmImageEncoder("vit_small_mocov3_patch16_224")
    assert {name: tuple(v.shape) for name, v in model.trunk.state_dict().items()} == published
    assert set(model.state_dict()) == {f"trunk.{name}" for name in published} | {"pixel_mean", "pixel_std"}
    frozen = [f"visual.{name}" for name, p in model.trunk.named_parameters() if not p.requires_grad]
    assert frozen == manifest["models"]["CLIP_S"]["info"]["not_trainable"]


def test_recipe_of_vision_transformers_from_scratch() -> None:
    model = tiny()
    norms = [m for m in model.modules() if isinstance(m, nn.LayerNorm)]
    assert len(norms) == 5
    assert {m.eps for m in norms} == {1e-5}
    assert torch.equal(model.trunk.pos_embed, sincos_2d(48, (2, 2)))
    tokens = model.trunk.forward_features(images().float())
    assert torch.equal(model.trunk.forward_head(tokens), tokens[:, 0])  # the class token, already normalised


def test_positions_follow_the_grid() -> None:
    assert torch.equal(tiny(image_size=64).trunk.pos_embed, sincos_2d(48, (4, 4)))
    with_registers = tiny(timm_args=SHALLOW | {"reg_tokens": 3})
    assert torch.equal(with_registers.trunk.pos_embed, sincos_2d(48, (2, 2), prefix_tokens=4))
    apart = tiny(timm_args=SHALLOW | {"no_embed_class": True})
    assert torch.equal(apart.trunk.pos_embed, sincos_2d(48, (2, 2), prefix_tokens=0))


def test_positions_stay_fixed_and_the_rest_learns() -> None:
    model = tiny()
    model(images()).square().sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == ["trunk.pos_embed"]
    learned = tiny(position="learned")
    learned(images()).square().sum().backward()
    assert [n for n, p in learned.named_parameters() if p.grad is None] == []


def test_options_reach_the_trunk() -> None:
    assert {m.eps for m in tiny(norm_eps=1e-3).modules() if isinstance(m, nn.LayerNorm)} == {1e-3}
    dropping = tiny(drop_path_rate=0.5)
    dropping.train()
    torch.manual_seed(0)
    assert not torch.equal(dropping(images(count=16)), dropping(images(count=16)))
    dropping.eval()
    assert torch.equal(dropping(images()), dropping(images()))


def test_bytes_and_floats_agree() -> None:
    model = tiny().eval()
    assert torch.equal(model(images()), model(images() / 255))
    normalised = (images() / 255 - model.pixel_mean) / model.pixel_std
    torch.testing.assert_close(model.encode(normalised), model(images()))


@pytest.mark.parametrize("arch", ["vit_tiny_patch16_224", "resnet18"])
def test_grad_checkpointing_gives_the_same_gradients(arch: str) -> None:
    gradients = []
    for recompute in (False, True):
        args = SHALLOW if arch.startswith("vit") else {"layers": (1, 1, 1, 1)}
        model = tiny(arch, grad_checkpointing=recompute, timm_args=args).double()
        model.eval()  # the running statistics of a recomputed BatchNorm would move twice
        assert model.trunk.grad_checkpointing is recompute
        model(images()).square().sum().backward()
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.requires_grad})
    assert all(g is not None for g in gradients[0].values())
    for name, direct in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], direct, rtol=1e-10, atol=1e-12)


def test_size_is_checked_where_it_is_fixed() -> None:
    with pytest.raises(ValueError, match=r"images are 64 x 64, but this encoder takes 32 x 32"):
        tiny()(images(64))
    dynamic = tiny(timm_args=SHALLOW | {"dynamic_img_size": True})
    assert dynamic(images(64)).shape == (2, 48)
    with torch.no_grad():
        assert TimmImageEncoder("resnet18", image_size=64)(images(96)).shape == (2, 512)


def test_own_variants_can_be_added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(image_module.VARIANTS, "my_vit", Variant("vit_tiny_patch16_224", SHALLOW))
    assert tiny("my_vit", timm_args=None).width == 48
    assert tiny("my_vit", timm_args={"embed_dim": 96}).width == 96


@pytest.mark.parametrize(
    ("arch", "options", "message"),
    [
        ("vit_smal_patch16_224", {}, "closest names are vit_small_patch16_224"),
        ("vit_small_mocov3_patch16_225", {}, "vit_small_mocov3_patch16_224"),
        ("hf-hub:someone/model", {}, "not a timm image model"),
        ("/etc/passwd", {}, "not a timm image model"),
        ("vit_small_mocov3_patch16_224", {"pretrained": True}, "no weights"),
        ("vit_base_patch14_reg4_dinov2.nonsense", {}, "no weights tagged 'nonsense'"),
        ("vit_tiny_patch16_224", {"timm_args": {"depth": 10**6}}, r"timm_args\.depth: got 1000000"),
        ("coatnet_0_224", {"pretrained": True, "timm_args": None}, "has no weights in timm"),
        ("vit_tiny_patch16_224.nonsense", {}, "vit_tiny_patch16_224.augreg_in21k"),
        ("resnet18", {"position": "sincos", "timm_args": None}, "no table of absolute positions"),
        ("vit_tiny_patch16_224", {"drop_path_rate": 1.5}, "drop_path_rate: got 1.5; .* below 1"),
        (
            "vit_tiny_patch16_224",
            {"position": "rope"},
            "position: got 'rope'; expected 'sincos', 'learned' or None",
        ),
        ("vit_tiny_patch16_224", {"timm_args": {"depht": 2}}, "depht"),
        ("vit_tiny_patch16_224", {"timm_args": {"checkpoint_path": "x"}}, "timm_args has checkpoint_path"),
        ("vit_tiny_patch16_224", {"timm_args": {"img_size": 64}}, "image_size"),
        ("test_byobnet", {"drop_path_rate": 0.1, "timm_args": {"nope": 1}}, "does not take"),
        ("mixer_s32_224", {"position": "sincos", "timm_args": None, "image_size": 32}, "no table"),
        ("inception_v3", {"grad_checkpointing": True, "timm_args": None}, "gradient checkpointing"),
    ],
)
def test_wrong_settings_are_named(arch: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigError, ValueError), match=message):
        tiny(arch, **options)


@pytest.mark.parametrize(
    ("arch", "options", "message"),
    [
        (
            "vit_tiny_patch16_224",
            {"timm_args": {"global_pool": ""}},
            "timm_args: got global_pool='', with which",
        ),
        ("resnet18", {"timm_args": {"global_pool": ""}}, "timm_args: got global_pool=''"),
        (
            "vit_tiny_patch16_224",
            {"timm_args": {"global_pool": "nope"}},
            "timm_args: .*AssertionError",
        ),
        (
            "vit_tiny_patch16_224",
            {"timm_args": {"num_heads": 0}},
            r"timm_args\.num_heads: got 0; .* at least 1",
        ),
        (
            "vit_tiny_patch16_224",
            {"timm_args": {"embed_dim": -4}},
            r"timm_args\.embed_dim: got -4; .* at least 1",
        ),
        ("vit_tiny_patch16_224", {"timm_args": {"act_layer": "nope"}}, "timm_args: .*KeyError: 'nope'"),
        (
            "resnet18",
            {"timm_args": {"output_stride": 7}},
            r"timm_args: .*\(AssertionError\); expected arguments",
        ),
        ("vit_tiny_patch16_224", {"timm_args": 5}, "timm_args: got 5; expected a mapping"),
        (
            "vit_tiny_patch16_224",
            {"timm_args": {"patch_size": 50}, "image_size": 32},
            "at least the patch size 50",
        ),
        (
            "vit_tiny_patch16_224",
            {"timm_args": {"dynamic_img_size": True}, "image_size": 30},
            "image_size: got 30; expected a multiple of the patch size 16",
        ),
        (
            "vit_tiny_patch16_224",
            {"image_size": 0},
            "image_size: got 0; expected a whole number of at least 1",
        ),
        ("vit_tiny_patch16_224", {"norm_eps": -1.0}, "norm_eps: got -1.0; expected a number above 0"),
    ],
)
def test_impossible_settings_are_one_sentence(arch: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        TimmImageEncoder(arch, **options)
    assert "\n" not in str(caught.value)


def test_features_that_are_not_pooled_are_refused() -> None:
    encoder = tiny("vit_tiny_patch16_224", image_size=32)
    encoder.trunk = torch.nn.Conv2d(3, 8, 16, 16)
    with pytest.raises(
        ValueError, match=r"gives features of shape \[2, 8, 2, 2\] for 2 images; expected one vector"
    ):
        encoder(torch.zeros(2, 3, 32, 32, dtype=torch.uint8))


def test_pretrained_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """What timm's weights need, without fetching any: the real constructor, its weights left random."""
    real = timm.create_model
    monkeypatch.setattr(
        timm, "create_model", lambda name, pretrained, **kw: real(name, pretrained=False, **kw)
    )
    clip = tiny("vit_base_patch32_clip_224.openai", pretrained=True)
    # As OpenAI's CLIP was trained.
    torch.testing.assert_close(clip.pixel_mean.flatten(), torch.tensor([0.48145466, 0.4578275, 0.40821073]))
    torch.testing.assert_close(clip.pixel_std.flatten(), torch.tensor([0.26862954, 0.26130258, 0.27577711]))
    model = tiny("vit_tiny_patch16_224", pretrained=True)
    assert {m.eps for m in model.modules() if isinstance(m, nn.LayerNorm)} == {1e-6}
    assert model.trunk.pos_embed.requires_grad
    fixed = tiny("vit_tiny_patch16_224", pretrained=True, pixel_mean=(0.1, 0.2, 0.3), position="sincos")
    torch.testing.assert_close(fixed.pixel_mean.flatten(), torch.tensor([0.1, 0.2, 0.3]))
    assert not fixed.trunk.pos_embed.requires_grad


def test_weights_that_cannot_be_fetched_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_args: object, **_options: object) -> nn.Module:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(UserError, match=r"could not be fetched \(no route to host\)"):
        tiny(pretrained=True)


@pytest.mark.parametrize("drop", [0.0, 0.5])
def test_reading_out_the_class_token_alone_changes_nothing_but_the_cost(drop: float) -> None:
    def run(plain: bool) -> tuple[list[torch.Tensor], int]:
        torch.manual_seed(0)
        args = {"depth": 2, "embed_dim": 32, "num_heads": 2}
        model = TimmImageEncoder(
            "vit_tiny_patch16_224", image_size=32, timm_args=args, drop_path_rate=drop
        ).double()
        assert type(model.trunk.blocks[-1]) is ReadOutBlock
        if plain:
            model.trunk.blocks[-1].__class__ = Block
        torch.manual_seed(1)  # of the dropped paths
        with FlopCounterMode(display=False) as counter:
            features = model(torch.rand(3, 3, 32, 32, dtype=torch.float64))
            (features * torch.linspace(-1, 1, features.numel()).view_as(features)).sum().backward()
        result = [p.grad for p in model.parameters() if p.grad is not None]
        return [features.detach(), *result], counter.get_total_flops()

    (result, cost), (expected, full_cost) = run(plain=False), run(plain=True)
    assert len(result) == len(expected)
    for ours, theirs in zip(result, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    assert cost < 0.9 * full_cost


def test_trunks_that_pool_all_tokens_keep_them() -> None:
    model = TimmImageEncoder("vit_base_patch16_siglip_224", image_size=32, timm_args={"depth": 1})
    assert type(model.trunk.blocks[-1]) is Block

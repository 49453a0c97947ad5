"""Models of open_clip rebuilt of our parts: the same features with the same weights, for every family."""

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.models._builder import build_model_with_cfg
from timm.models.byobnet import ByoBlockCfg, ByobNet, ByoModelCfg
from torch import Tensor, nn

import hypvl
from hypvl.errors import CheckpointError, ConfigError, UserError
from hypvl.models import open_clip as names
from hypvl.models.hub import create_model, load_config
from hypvl.models.open_clip import definition

VIT = {"layers": 2, "width": 32, "head_width": 16, "patch_size": 8, "image_size": 16}
TEXT = {"context_length": 9, "vocab_size": 60, "width": 24, "heads": 2, "layers": 2}
SIGLIP = {
    "hf_tokenizer_name": "timm/ViT-B-16-SigLIP", "no_causal_mask": True, "proj_bias": True, "pool_type": "last",
    "norm_kwargs": {"eps": 1e-6},
}  # fmt: skip
SIGLIP2 = {**SIGLIP, "hf_tokenizer_name": "timm/ViT-B-16-SigLIP2", "act_kwargs": {"approximate": "tanh"}}
CLIPA = {"hf_tokenizer_name": "bert-base-uncased", "pool_type": "last", "no_causal_mask": True}
TOKEN_POOL: dict[str, Any] = {"timm_pool": "token", "timm_proj": None}
MAP_POOL = {"timm_pool": "map", "timm_proj": "none"}


def timm_image(name: str, size: int, **options: Any) -> dict[str, Any]:
    return {"timm_model_name": name, "image_size": size, "timm_pool": "", "timm_proj": "linear", **options}


# Family -> (image encoder, what is added to TEXT, other keys).
FAMILIES: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "ViT": (VIT, {}, {}),
    "ViT quick GELU": (VIT, {}, {"quick_gelu": True}),
    "ViT custom text": (VIT, {}, {"custom_text": True, "init_logit_scale": 2.0}),
    "ViT layer scale": ({**VIT, "ls_init_value": 0.1}, {}, {}),
    "ViT-g": ({**VIT, "mlp_ratio": 4.3637}, {}, {}),
    "ViT mean": ({**VIT, "pool_type": "avg"}, {}, {}),
    "CLIPA": ({**VIT, "no_ln_pre": True, "pool_type": "avg", "final_ln_after_pool": True}, CLIPA, {}),
    "MetaCLIP worldwide": (
        VIT, {"hf_tokenizer_name": "facebook/xlm-v-base", "pool_type": "eos", "eos_id": 2}, {"quick_gelu": True},
    ),
    "own vocabulary": (VIT, {"hf_tokenizer_name": "some/tokenizer"}, {}),
    "ResNet": ({"layers": [1, 1, 1, 1], "width": 16, "image_size": 64}, {}, {"quick_gelu": True}),
    "ConvNeXt": (timm_image("test_convnext", 64), {}, {}),
    "ConvNeXt-D": (timm_image("test_convnext", 64, timm_proj="mlp", timm_drop_path=0.1), {}, {}),
    "EVA02": (timm_image("eva02_tiny_patch14_224", 224, **TOKEN_POOL), {}, {"custom_text": True}),
    "MobileCLIP": (
        timm_image("test_byobnet", 64, timm_pool="avg", timm_proj=None), {"no_causal_mask": True},
        {"custom_text": True},
    ),
    "MobileCLIP-B": (timm_image("test_vit", 160, **TOKEN_POOL), {"no_causal_mask": False}, {"custom_text": True}),
    "SigLIP": (
        timm_image("test_vit3", 160, **MAP_POOL), SIGLIP,
        {"custom_text": True, "embed_dim": 96, "init_logit_bias": -10},
    ),
    "SigLIP 2": (
        timm_image("test_vit3", 160, **MAP_POOL), {**SIGLIP2, "mlp_ratio": 3.7362},
        {"custom_text": True, "embed_dim": 96, "init_logit_bias": -10},
    ),
    "SigLIP i18n": (
        timm_image("test_vit3", 160, **MAP_POOL), {**SIGLIP, "width": 96, "proj_type": "none"},
        {"custom_text": True, "embed_dim": 96, "init_logit_bias": -10},
    ),
    "ViT GAP": (timm_image("test_vit2", 160), {}, {}),
    "ViT relpos": (timm_image("test_vit_relpos", 160, timm_proj_bias=True), {}, {}),
    "CoCa": (
        {**VIT, "attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True},
        {"embed_cls": True, "output_tokens": True, "context_length": 8}, {"custom_text": True},
    ),
    "other blocks": ({**VIT, "qk_norm": True}, {"scale_heads": True}, {}),
}  # fmt: skip
# Families with an encoder that is open_clip's own inside ours.
INSIDE = {"CoCa", "other blocks", "roberta"}


# timm looks for this name in the module of a model that is registered.
default_cfgs = timm.models.generate_default_cfgs(
    {"tiny_resnet_clip.untrained": {"fixed_input_size": True, "input_size": (3, 64, 64), "num_classes": 12}}
)


@timm.models.register_model
def tiny_resnet_clip(pretrained: bool = False, **kwargs: Any) -> ByobNet:
    """timm's form of OpenAI's ResNets, with one block in each stage."""
    blocks = tuple(
        ByoBlockCfg(type="bottle", d=1, c=c, s=s, br=0.25) for c, s in ((64, 1), (128, 2), (256, 2), (512, 2))
    )
    config = ByoModelCfg(
        blocks=blocks, stem_chs=(8, 8, 16), stem_type="", stem_pool="avg2", downsample="avg", aa_layer="avg",
        head_type="attn_abs",
    )  # fmt: skip
    return build_model_with_cfg(
        ByobNet, "tiny_resnet_clip", pretrained, model_cfg=config, feature_cfg={"flatten_sequential": True}, **kwargs
    )  # fmt: skip


def config_of(family: str) -> dict[str, Any]:
    vision, text, others = FAMILIES[family]
    return {"embed_dim": 12, "vision_cfg": dict(vision), "text_cfg": {**TEXT, **text}, **others}


def folder_of(config: dict[str, Any], folder: Path, **preprocess: Any) -> str:
    """The name of a model whose config lies in a folder, as open_clip writes it."""
    folder.mkdir(exist_ok=True)
    content = {"model_cfg": config, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(content))
    return f"local-dir:{folder}"


def theirs(config: dict[str, Any]) -> nn.Module:
    """open_clip's own model, with weights larger than at the start so that every part matters."""
    from open_clip.model import CLIP, CustomTextCLIP

    torch.manual_seed(0)
    config = dict(config)
    custom = config.pop("custom_text", False) or "hf_model_name" in config["text_cfg"]
    config["vision_cfg"] = {**config["vision_cfg"], "output_tokens": False}
    config["text_cfg"] = {**config["text_cfg"], "output_tokens": False, "hf_model_pretrained": False}
    model = (CustomTextCLIP if custom else CLIP)(**config)
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.add_((0.05 if "visual.trunk" in name else 0.2) * torch.randn_like(p))
        for name, buffer in model.named_buffers():
            if ".running_" in name:
                buffer.add_(0.1 * torch.rand_like(buffer))
    return model.eval()


def tokens_for(model: nn.Module) -> Tensor:
    textual: Any = model.textual
    length, last = textual.context_length, textual.vocab_size - 1
    end = getattr(textual, "eot_token", last)
    rows = torch.full((3, length), int(textual.pad_token))
    for row, text in zip(rows, ([4, 5, 3, 6, end], [4, end], [4, 7, 6, 3, 9, 4, 8, end]), strict=True):
        row[: len(text)] = torch.tensor(text)
    return rows


@torch.no_grad()
def differences(model: Any, other: Any) -> tuple[float, float]:
    """Largest differences of the unit embeddings of images and texts."""
    size = model.image_size
    images = torch.rand(3, 3, size, size, generator=torch.Generator().manual_seed(2))
    normalised = (images - model.visual.pixel_mean) / model.visual.pixel_std
    tokens = tokens_for(model)
    pairs = [
        (model.encode_image(images), other.encode_image(normalised, normalize=True)),
        (model.encode_text(tokens), other.encode_text(tokens, normalize=True)),
    ]
    for _, wanted in pairs:
        assert wanted.std(0).mean() > 1e-4  # three inputs, three embeddings
    image, text = (float((ours - wanted).abs().max()) for ours, wanted in pairs)
    return image, text


@pytest.fixture(autouse=True)
def _tiny_resnet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(names._RESNETS, ((1, 1, 1, 1), 16), "tiny_resnet_clip")


@pytest.mark.parametrize("family", FAMILIES)
def test_features_are_those_of_open_clip(family: str, tmp_path: Path) -> None:
    config = config_of(family)
    if (arch := config["vision_cfg"].get("timm_model_name")) and not timm.is_model(arch):
        pytest.skip(f"this timm has no {arch}")
    other = theirs(config)
    name = folder_of(config, tmp_path, mean=[0.4, 0.5, 0.6], std=[0.2, 0.3, 0.4], interpolation="bilinear")
    model: Any = create_model(f"open_clip:{name}", {"model": other.state_dict()})
    image, text = differences(model, other)
    assert max(image, text) <= 1e-5
    assert model.scorer.log_scale == other.logit_scale
    assert model.visual.pixel_mean.flatten().tolist() == pytest.approx([0.4, 0.5, 0.6])
    assert model.visual.preprocessing.interpolation == "bilinear"
    own = {type(part).__name__ for part in (model.visual, model.textual)}
    assert (own & {"OpenClipImageEncoder", "OpenClipTextEncoder"} != set()) == (family in INSIDE)


def test_no_warning_about_pixels_that_open_clip_says(tmp_path: Path) -> None:
    from loguru import logger

    config = config_of("ViT")
    told: list[str] = []
    sink = logger.add(told.append, level="WARNING")
    try:
        name = folder_of(config, tmp_path, mean=[0.5] * 3, std=0.5)
        model = create_model(f"open_clip:{name}", {"model": theirs(config).state_dict()})
    finally:
        logger.remove(sink)
    assert told == []
    assert model.visual.pixel_std.flatten().tolist() == [0.5] * 3  # type: ignore[union-attr, operator]


@pytest.mark.parametrize("file", ["model.pt", "model.safetensors", "run.pt"])
def test_files_and_folders_of_open_clip(file: str, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    config = config_of("SigLIP")
    other = theirs(config)
    state = other.state_dict()
    name = f"open_clip:{folder_of(config, tmp_path)}"
    path = tmp_path / file
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save({"epoch": 1, "state_dict": state} if file == "run.pt" else state, path)
    model = hypvl.create_model(name, path)
    assert max(differences(model, other)) <= 1e-5
    with pytest.raises(
        ConfigError, match=r"has no weights of open_clip; expected one of open_clip_model.safe"
    ):
        hypvl.create_model(f"open_clip:{folder_of(config, tmp_path / 'empty')}")
    save_file(state, tmp_path / "open_clip_model.safetensors")
    own: Any = hypvl.create_model(name)  # with the weights in its folder
    assert max(differences(own, other)) <= 1e-5
    with pytest.raises(
        CheckpointError, match=r"does not fit the model: model.textual.context_length is 9 in the file"
    ):
        longer = {**config, "text_cfg": {**config["text_cfg"], "context_length": 12}}
        hypvl.create_model(f"open_clip:{folder_of(longer, tmp_path / 'longer')}", path)


def test_saved_and_shared_like_any_other_model(tmp_path: Path) -> None:
    config = config_of("SigLIP 2")
    name = f"open_clip:{folder_of(config, tmp_path)}"
    model = create_model(name, {"model": theirs(config).state_dict()})
    hypvl.save_pretrained(model, load_config(name), tmp_path / "shared")
    again = hypvl.from_pretrained(tmp_path / "shared")
    tokens = tokens_for(model)
    assert torch.equal(again.encode_text(tokens), model.encode_text(tokens))
    assert repr(again.tokenizer) == repr(model.tokenizer) and again.tokenizer.pad_token == 0


def test_what_is_derived_from_a_name() -> None:
    node = definition("ViT-B-32")
    assert node["visual"]["timm_args"] == {"patch_size": 32, "embed_dim": 768, "depth": 12, "num_heads": 12}
    assert node["visual"]["pixel_mean"] == pytest.approx([0.48145466, 0.4578275, 0.40821073])
    assert node["textual"] == {
        "_target_": "hypvl.encoders.text.TextTransformer", "arch": "L12_W512_A8", "vocab_size": 49408,
        "context_length": 77, "activation": "gelu", "eot_token": 49407,
    }  # fmt: skip
    openai = definition("ViT-B-32", "openai")
    assert openai["textual"]["activation"] == "quick_gelu" and "quickgelu" in openai["visual"]["arch"]
    assert definition("ViT-L-14", "laion2b_s32b_b82k")["visual"]["pixel_mean"] == [0.5] * 3
    assert definition("ViT-L-14")["visual"]["pixel_mean"][0] == pytest.approx(0.48145466)
    mobile = definition("MobileCLIP-S1")
    assert mobile["visual"]["pixel_std"] == [1.0] * 3 and mobile["visual"]["interpolation"] == "bilinear"
    assert mobile["textual"]["causal"] is False and mobile["visual_head"]["bias"] is True
    siglip = definition("ViT-B-16-SigLIP")
    assert siglip["textual"]["pad_token"] == siglip["textual"]["tokenizer"]["pad_token"] == 1
    assert siglip["scorer"]["bias_init"] == -10 and siglip["textual_head"]["bias"] is True
    assert definition("ViT-B-16-SigLIP2")["textual"]["activation"] == "gelu_tanh"
    assert definition("ViT-bigG-14")["visual"]["timm_args"]["num_heads"] == 16
    assert definition("roberta-ViT-B-32")["textual"]["_target_"].endswith("OpenClipTextEncoder")


def test_every_name_of_open_clip_has_a_definition() -> None:
    import open_clip

    targets = {name: definition(name)["textual"]["_target_"] for name in open_clip.list_models()}
    inside = {name for name, target in targets.items() if target.endswith("OpenClipTextEncoder")}
    assert inside == {n for n in targets if n.startswith(("coca", "mt5", "nllb", "roberta", "xlm"))} | {
        "coca_roberta-ViT-B-32"
    }


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: create_model("open_clip:ViT-B-23"), "ViT-B-23: no model of open_clip; the closest name is ViT-B-32"),
        (lambda: create_model("open_clip:"), "model: got ''; expected a name of open_clip"),
        (
            lambda: create_model("open_clip:ViT-B-32", "openia"),
            "openia: no file, and no pretrained weights of open_clip's ViT-B-32; the closest tag is openai",
        ),
        (lambda: create_model("open_clip:ViT-S-32", "x"), "ViT-S-32; it has none, give a file"),
        (lambda: load_config("open_clip:local-dir:/nowhere"), "has no open_clip_config.json"),
    ],
)  # fmt: skip
def test_names_and_tags_that_do_not_exist(call: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        call()


def test_tags_come_from_the_cache_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=r"ViT-B-32, openai: open_clip could not fetch the weights"):
        names.weights("ViT-B-32", "openai")
    repository = tmp_path / "models--timm--vit_base_patch32_clip_224.openai"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc")
    file = repository / "snapshots" / "abc" / "open_clip_model.safetensors"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"")
    found = names.weights("ViT-B-32", "openai")
    assert found is not None and found.samefile(file)


def _meta_states(name: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """State dicts without data: theirs under our names, and ours."""
    import open_clip

    from hypvl.models.convert.open_clip import to_hypvl
    from hypvl.models.hub import build_model

    config = open_clip.get_model_config(name)
    config = {key: value for key, value in config.items() if key not in ("custom_text", "multimodal_cfg")}
    with torch.device("meta"):
        other = open_clip.CustomTextCLIP(**config).state_dict()
        model = build_model(load_config(f"open_clip:{name}"), source=name, weights_follow=True)
    return to_hypvl(other, wanted=model.state_dict()), model.state_dict()


@pytest.mark.parametrize(
    "name",
    [
        "ViT-B-32", "RN50",
        *[
            pytest.param(name, marks=pytest.mark.slow)
            for name in (
                "RN101", "RN50x4", "RN50x16", "RN50x64", "ViT-L-14-336", "ViT-H-14", "ViT-bigG-14", "ViT-M-16-alt",
                "ViT-L-14-CLIPA", "ViT-H-14-worldwide", "convnext_base_w", "convnext_large_d_320", "convnext_xxlarge",
                "EVA01-g-14", "EVA02-B-16", "EVA02-L-14-336", "EVA02-E-14-plus", "MobileCLIP-S1", "MobileCLIP-B",
                "MobileCLIP2-S0", "MobileCLIP2-S4", "MobileCLIP2-L-14", "PE-Core-T-16-384", "PE-Core-L-14-336",
                "ViT-B-16-SigLIP", "ViT-SO400M-14-SigLIP-384", "ViT-SO400M-16-SigLIP-i18n-256", "ViT-B-16-SigLIP2",
                "ViT-gopt-16-SigLIP2-384", "ViTamin-S", "ViTamin-XL-384", "coca_ViT-B-32", "vit_medium_patch16_gap_256",
                "vit_relpos_medium_patch16_cls_224", "swin_base_patch4_window7_224",
            )
        ],
    ],
)  # fmt: skip
def test_names_and_shapes_at_full_size(name: str) -> None:
    converted, wanted = _meta_states(name)
    assert {key: tuple(t.shape) for key, t in converted.items()} == {
        key: tuple(t.shape) for key, t in wanted.items()
    }

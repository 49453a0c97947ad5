"""Definitions of our models for those of open_clip, derived from open_clip's own configs."""

from pathlib import Path
from typing import Any

import timm

from hypvl.encoders.open_clip_configs import (
    Config,
    architecture,
    has_own_vocabulary,
    own_weights,
    preprocessing,
    text_padding,
    weights_file,
)
from hypvl.errors import ConfigError

PREFIX = "open_clip:"
# Bound of log_scale where a bias is learned, too: the published scales of SigLIP are above 100.
_LOG_SCALE_MAX = 8.0
# Blocks in each stage and channels of OpenAI's ResNets -> timm's name.
_RESNETS = {
    ((3, 4, 6, 3), 64): "resnet50_clip",
    ((3, 4, 23, 3), 64): "resnet101_clip",
    ((4, 6, 10, 6), 80): "resnet50x4_clip",
    ((6, 8, 18, 8), 96): "resnet50x16_clip",
    ((3, 15, 36, 10), 128): "resnet50x64_clip",
}
# Arguments of open_clip's transformers that ours and timm's have no counterpart for.
_OTHER_BLOCKS = (
    "block_type", "qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner", "scale_attn", "scale_fc",
)  # fmt: skip
_IMAGE_ONLY = ("attentional_pool", "norm_kwargs", "act_kwargs", *_OTHER_BLOCKS)
_TEXT_ONLY = ("hf_model_name", "embed_cls", "ls_init_value", "final_ln_after_pool", *_OTHER_BLOCKS)
_READ_OUT = {"argmax": "largest_id", "eos": "end_of_text", "first": "first", "last": "last"}
_CLIP_VOCABULARY = 49408

Node = dict[str, Any]


def definition(name: str, pretrained: str | Path | None = None) -> Node:
    """The ``model`` node of our :class:`DualEncoder` for an open_clip model.

    Each encoder is rebuilt of our parts (timm's image encoders, :class:`TextTransformer`) where they can be the same
    function; else it is open_clip's own one inside ours.

    Args:
        name: As open_clip takes it: ``"ViT-B-32"``, ``"local-dir:<folder>"`` or ``"hf-hub:owner/name"``.
        pretrained: A tag of pretrained weights, which decides the GELU and how images are normalised.

    Raises:
        ConfigError: for a name that open_clip does not know (the closest is named).
    """
    config = architecture(name, pretrained)
    seen = preprocessing(name, pretrained)
    pixels: Node = {"pixel_mean": list(seen.mean), "pixel_std": list(seen.std)}
    if seen.interpolation != "bicubic":
        pixels["interpolation"] = seen.interpolation
    visual, visual_head = _visual(name, config)
    if seen.resize_mode == "squash" and "arch" in visual:  # open_clip's own encoder knows
        pixels["resize_mode"] = "squash"
    textual, textual_head = _textual(name, config)
    scorer: Node = {"_target_": "hypvl.geometry.scorers.Cosine"}
    if "init_logit_scale" in config:
        scorer["log_scale_init"] = float(config["init_logit_scale"])
    if config.get("init_logit_bias") is not None:
        scorer |= {"bias_init": float(config["init_logit_bias"]), "log_scale_max": _LOG_SCALE_MAX}
    return {
        "_target_": "hypvl.models.dual_encoder.DualEncoder",
        "visual": {**visual, **pixels},
        "textual": textual,
        "visual_head": visual_head,
        "textual_head": textual_head,
        "geometry": {"_target_": "hypvl.geometry.sphere.Sphere"},
        "scorer": scorer,
    }


def weights(name: str, pretrained: str | Path | None) -> Path | None:
    """The file with the weights: of a path or a tag, or those in open_clip's folder or repository; None = random.

    Raises:
        ConfigError: for a tag that does not exist (the closest is named), or a folder without weights.
        UserError: when they cannot be fetched.
    """
    return own_weights(name) if pretrained is None else weights_file(name, pretrained)


def _visual(name: str, config: Config) -> tuple[Node, Node]:
    vision, dim = config["vision_cfg"], config["embed_dim"]
    if vision.get("timm_model_name"):
        return _timm(name, vision, dim)
    if isinstance(vision["layers"], list | tuple):
        arch = _RESNETS.get((tuple(vision["layers"]), vision.get("width", 64)))
        if arch is None:
            return _inside("Image", name)
        node = _timm_node(arch, vision["image_size"], {})
        return node, _projection(dim, bias=True)
    if (
        any(vision.get(key) for key in _IMAGE_ONLY)
        or vision.get("pos_embed_type", "learnable") != "learnable"
    ):
        return _inside("Image", name)
    return _vision_transformer(vision, quick=bool(config.get("quick_gelu"))), _projection(dim)


def _vision_transformer(vision: Config, *, quick: bool) -> Node:
    width = int(vision.get("width", 768))
    args: Config = {
        "patch_size": vision.get("patch_size", 16),
        "embed_dim": width,
        "depth": vision.get("layers", 12),
        "num_heads": width // int(vision.get("head_width", 64)),
    }
    if vision.get("mlp_ratio", 4.0) != 4.0:
        args["mlp_ratio"] = vision["mlp_ratio"]
    if vision.get("ls_init_value") is not None:
        args["init_values"] = vision["ls_init_value"]
    if vision.get("no_ln_pre"):
        args["pre_norm"] = False
    if vision.get("pool_type", "tok") == "avg":
        args |= {"global_pool": "avg", "fc_norm": bool(vision.get("final_ln_after_pool"))}
    if vision.get("patch_dropout"):
        args["patch_drop_rate"] = vision["patch_dropout"]
    arch = f"vit_base_patch32_clip_{'quickgelu_' if quick else ''}224"
    return {**_timm_node(arch, vision.get("image_size", 224), args), "norm_eps": 1e-5}


def _timm(name: str, vision: Config, dim: int) -> tuple[Node, Node]:
    arch, pool, projection = (
        vision["timm_model_name"],
        vision.get("timm_pool", "avg"),
        vision.get("timm_proj", "linear"),
    )
    if pool in ("abs_attn", "rot_attn"):
        return _inside("Image", name)
    defaults = timm.get_pretrained_cfg(arch)
    if defaults is None:
        raise ConfigError(f"{name}: timm has no {arch}, its image encoder; install a later timm.")
    args: Config = {"global_pool": pool} if pool else {}
    if vision.get("patch_dropout"):
        args["patch_drop_rate"] = vision["patch_dropout"]
    # open_clip builds timm's encoders at their own size, whatever its config says
    size = defaults.input_size[-1] if defaults.fixed_input_size else vision.get("image_size", 224)
    node = _timm_node(arch, size, args)
    if vision.get("timm_drop_path"):
        node["drop_path_rate"] = vision["timm_drop_path"]
    bias = bool(vision.get("timm_proj_bias"))
    if projection == "mlp":
        return node, _head("heads.TwoLayerProjectionHead", out_features=dim, bias=bias)
    if projection == "none":
        return node, _head(_IDENTITY)
    return node, _projection(dim, bias=bias or not projection)  # without one timm's classifier projects


def _timm_node(arch: str, size: Any, args: Config) -> Node:
    height, width = size if isinstance(size, list | tuple) else (size, size)
    if height != width:
        raise ConfigError(f"image_size: got {height} x {width}; expected a square.")
    node = {
        "_target_": "hypvl.encoders.image.TimmImageEncoder",
        "arch": arch,
        "image_size": int(height),
        "position": "learned",
        "norm_eps": "timm",
    }
    return {**node, "timm_args": args} if args else node


def _textual(name: str, config: Config) -> tuple[Node, Node]:
    text, dim = config["text_cfg"], config["embed_dim"]
    if any(text.get(key) for key in _TEXT_ONLY) or not set(text.get("act_kwargs") or {}) <= {"approximate"}:
        return _inside("Text", name)
    vocabulary, own = int(text.get("vocab_size", _CLIP_VOCABULARY)), has_own_vocabulary(config)
    tanh = (text.get("act_kwargs") or {}).get("approximate") == "tanh"
    node: Node = {
        "_target_": "hypvl.encoders.text.TextTransformer",
        "arch": f"L{text.get('layers', 12)}_W{text.get('width', 512)}_A{text.get('heads', 8)}",
        "vocab_size": vocabulary,
        "context_length": int(text.get("context_length", 77)),
        "activation": "quick_gelu" if config.get("quick_gelu") else "gelu_tanh" if tanh else "gelu",
    }
    pool = text.get("pool_type", "argmax")
    if pool not in _READ_OUT:
        return _inside("Text", name)
    if pool == "argmax" and not own:  # of CLIP's ids end-of-text is the largest
        node["eot_token"] = min(vocabulary, _CLIP_VOCABULARY) - 1
    else:
        node["read_out"] = _READ_OUT[pool]
        if pool == "eos":
            node["eot_token"] = int(text.get("eos_id", 2))
    if text.get("mlp_ratio", 4.0) != 4.0:
        node["mlp_ratio"] = float(text["mlp_ratio"])
    if (text.get("norm_kwargs") or {}).get("eps"):
        node["norm_eps"] = float(text["norm_kwargs"]["eps"])
    if text.get("no_causal_mask"):
        node["causal"] = False
    if own:
        padding = text_padding(config)
        node["pad_token"] = padding
        node["tokenizer"] = {
            "_target_": "hypvl.data.tokenizer_open_clip.OpenClipTokenizer",
            "model": name,
            "context_length": node["context_length"],
            "vocab_size": vocabulary,
            "pad_token": padding,
        }
    if text.get("proj_type", "linear") == "none":
        return node, _head(_IDENTITY)
    return node, _projection(dim, bias=bool(text.get("proj_bias")))


_IDENTITY = "mlp_heads.IdentityHead"


def _inside(modality: str, name: str) -> tuple[Node, Node]:
    """open_clip's own encoder, whose output is the features."""
    return {"_target_": f"hypvl.encoders.open_clip.OpenClip{modality}Encoder", "model": name}, _head(
        _IDENTITY
    )


def _projection(dim: int, *, bias: bool = False) -> Node:
    return _head("heads.ProjectionHead", out_features=dim, **({"bias": True} if bias else {}))


def _head(target: str, **args: Any) -> Node:
    return {"_target_": f"hypvl.encoders.{target}", "_partial_": True, **args}

"""Parameter names of OpenAI's and open_clip's models and ours; those of vision transformers in both directions.

Names change, projections are transposed (x @ P there, a linear layer here), and dimensions of length 1 are added or
removed; the values stay. The image encoder is timm's: its CLIP variants have the parts of the vision transformers and
ResNets of OpenAI under other names, and the other image encoders of open_clip are timm's own, with their names.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from hypvl.checks import natural_number, one_of
from hypvl.errors import CheckpointError
from hypvl.models.convert import listed, without_wrappers

Layout: TypeAlias = Literal["clip", "custom_text"]
# Pixel statistics of all of OpenAI's and most of open_clip's CLIP weights; their files do not hold them.
PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)
PIXEL_STD = (0.26862954, 0.26130258, 0.27577711)

# open_clip name (without the `text.` of its CustomTextCLIP) -> our name
NAMES = {
    "logit_scale": "scorer.log_scale",
    "logit_bias": "scorer.bias",
    "visual.class_embedding": "visual.trunk.cls_token",
    "visual.positional_embedding": "visual.trunk.pos_embed",
    "visual.conv1.weight": "visual.trunk.patch_embed.proj.weight",
    "visual.ln_pre.weight": "visual.trunk.norm_pre.weight",
    "visual.ln_pre.bias": "visual.trunk.norm_pre.bias",
    "visual.ln_post.weight": "visual.trunk.norm.weight",
    "visual.ln_post.bias": "visual.trunk.norm.bias",
    "visual.proj": "visual_head.projection.weight",
    "token_embedding.weight": "textual.token_embed.weight",
    "positional_embedding": "textual.posit_embed",
    "positional_embedding_res": "textual.posit_embed_res",
    "ln_final.weight": "textual.ln_final.weight",
    "ln_final.bias": "textual.ln_final.bias",
    "text_projection": "textual_head.projection.weight",
}
OPTIONAL = ("logit_bias", "positional_embedding_res")
IMAGE_BLOCKS, TEXT_BLOCKS = "visual.transformer.resblocks.", "transformer.resblocks."
OUR_IMAGE_BLOCKS, OUR_TEXT_BLOCKS = "visual.trunk.blocks.", "textual.resblocks."
# Parts of an image block; those of a text block have the same names on both sides.
IMAGE_BLOCK = {
    "ls_1.gamma": "ls1.gamma",
    "ls_2.gamma": "ls2.gamma",
    "ln_1.weight": "norm1.weight",
    "ln_1.bias": "norm1.bias",
    "attn.in_proj_weight": "attn.qkv.weight",
    "attn.in_proj_bias": "attn.qkv.bias",
    "attn.out_proj.weight": "attn.proj.weight",
    "attn.out_proj.bias": "attn.proj.bias",
    "ln_2.weight": "norm2.weight",
    "ln_2.bias": "norm2.bias",
    "mlp.c_fc.weight": "mlp.fc1.weight",
    "mlp.c_fc.bias": "mlp.fc1.bias",
    "mlp.c_proj.weight": "mlp.fc2.weight",
    "mlp.c_proj.bias": "mlp.fc2.bias",
}
_PIXELS = {"visual.pixel_mean": PIXEL_MEAN, "visual.pixel_std": PIXEL_STD}
_OURS = {ours: theirs for theirs, ours in NAMES.items()}
_TEXT_BLOCK = {part: part for part in IMAGE_BLOCK if not part.startswith("ls_")}
# Prefix of a block's parameters, its new one, and the parts.
Blocks: TypeAlias = Sequence[tuple[str, str, Mapping[str, str]]]
_THEIR_BLOCKS: Blocks = (
    (IMAGE_BLOCKS, OUR_IMAGE_BLOCKS, IMAGE_BLOCK),
    (TEXT_BLOCKS, OUR_TEXT_BLOCKS, _TEXT_BLOCK),
)
_OUR_BLOCKS: Blocks = [
    (ours, theirs, {new: old for old, new in parts.items()}) for theirs, ours, parts in _THEIR_BLOCKS
]
# Image encoders that are timm's: their own names, but for the projection, a part of the trunk or beside it.
_TIMM = "visual.trunk."
_TIMM_HEADS = {
    "visual.head.proj.": "visual_head.projection.",
    "visual.head.mlp.": "visual_head.",
    "visual.trunk.head.norm.": "visual.trunk.head.norm.",  # not a projection
    "visual.trunk.head.fc.": "visual_head.projection.",
    "visual.trunk.head.": "visual_head.projection.",
}
# OpenAI's ResNets: three convolutions before the stages, three in each block, an attention pooling after them.
_RESNET_STAGES = "visual.layer1."
_RESNET_STEM = re.compile(r"visual\.(conv|bn)(\d)\.(.+)")
_RESNET_BLOCK = re.compile(r"visual\.layer(\d)\.(\d+)\.(conv|bn|downsample\.)(\d)\.(.+)")
_RESNET_CONVS = {"1": "conv1_1x1", "2": "conv2_kxk", "3": "conv3_1x1"}
_RESNET_POOL = {
    "visual.attnpool.positional_embedding": "visual.trunk.head.pos_embed",
    "visual.attnpool.q_proj.": "visual.trunk.head.q.",
    "visual.attnpool.k_proj.": "visual.trunk.head.k.",
    "visual.attnpool.v_proj.": "visual.trunk.head.v.",
    "visual.attnpool.c_proj.": "visual_head.projection.",
}
# A text projection with a bias is a linear layer, not transposed.
_TEXT_LINEAR = {
    "text_projection.weight": "textual_head.projection.weight",
    "text_projection.bias": "textual_head.projection.bias",
}
# Encoders of open_clip itself inside ours (hypvl/encoders/open_clip.py), whose names are kept.
IMAGE_TOWER, TEXT_TOWER = "visual.tower.", "textual.tower."
_NORM, _POOLED_NORM = "visual.trunk.norm.", "visual.trunk.fc_norm."
_PATCH_BIAS = "visual.trunk.patch_embed.proj.bias"
_CAPTIONS = "text_decoder."  # CoCa's, which no embedding needs
_HF_POSITION_IDS = "transformer.embeddings.position_ids"  # counted, and no longer stored
_CUSTOM_TEXT = "text."
_SCALARS = ("logit_scale", "logit_bias")
_PROJECTIONS = ("visual.proj", "text_projection")
_NOTES = ("input_resolution", "context_length", "vocab_size")  # not weights: settings in OpenAI's files
_MASK = "attn_mask"


def to_hypvl(
    state_dict: Mapping[str, Tensor],
    *,
    wanted: Mapping[str, Tensor] | None = None,
    pixel_mean: Sequence[float] = PIXEL_MEAN,
    pixel_std: Sequence[float] = PIXEL_STD,
) -> dict[str, Tensor]:
    """An open_clip or OpenAI state_dict under our names, of ``CLIP`` or ``CustomTextCLIP``.

    Image encoders: vision transformers, OpenAI's ResNets, timm's. Text encoders: open_clip's transformer. Any other
    one only for a model that has open_clip's encoder inside (``wanted``).

    Which GELU and which epsilons the weights were trained with is not in the file: the model has to be built with the
    right ones, as :func:`hypvl.models.open_clip.definition` does.

    Args:
        state_dict: Prefixes of wrappers (``module.``) are taken off.
        wanted: State dict of the model to fill, where its parts decide: a norm after pooling, an encoder of open_clip
            inside ours, a bias that the file lacks because it is 0. None = of a vision transformer with a class token.
        pixel_mean: Mean per channel of the pixels in [0, 1] that the weights were trained with.
        pixel_std: Standard deviation per channel.

    Raises:
        CheckpointError: Names are missing or unknown, or the text mask is not the causal one.
    """
    state_dict = without_wrappers(state_dict)
    custom = any(key.startswith(_CUSTOM_TEXT) for key in state_dict)
    kind = _image_kind(state_dict)
    names = frozenset(wanted or ())
    inside = {part for part in (IMAGE_TOWER, TEXT_TOWER) if any(name.startswith(part) for name in names)}
    converted: dict[str, Tensor] = {}
    unknown = []
    for key, tensor in state_dict.items():
        name = key.removeprefix(_CUSTOM_TEXT) if custom else key
        part = IMAGE_TOWER if key.startswith("visual.") else TEXT_TOWER
        ours: str | None
        if name.startswith(_CAPTIONS) and TEXT_TOWER in inside:
            continue
        if name in _NOTES or (name == _HF_POSITION_IDS and TEXT_TOWER + name not in names):
            continue
        if name == _MASK:
            _check_causal(key, tensor)
            continue
        if name not in _SCALARS and part in inside:
            converted[part + name.removeprefix("visual.")] = tensor
            continue
        if part == IMAGE_TOWER and kind == "timm":
            ours = _timm_name(name)
        elif part == IMAGE_TOWER and kind == "resnet":
            ours = _resnet_name(name)
        else:
            ours = _TEXT_LINEAR.get(name) or _renamed(name, NAMES, _THEIR_BLOCKS)
        if ours is None:
            unknown.append(key)
            continue
        if ours.startswith(_NORM) and ours.replace(_NORM, _POOLED_NORM) in names and kind == "vit":
            ours = ours.replace(_NORM, _POOLED_NORM)
        converted[ours] = _our_layout(name, tensor)
    if (
        wanted is not None and _PATCH_BIAS in names and kind == "vit"
    ):  # timm's has one without a norm before the blocks
        converted.setdefault(_PATCH_BIAS, torch.zeros_like(wanted[_PATCH_BIAS]))
    missing = [] if wanted is not None else _missing(converted, image=kind == "vit")
    if unknown or missing:
        raise CheckpointError(
            f"state_dict: missing {listed(missing)}; unexpected {listed(unknown)}; expected a CLIP of open_clip or "
            "OpenAI: as image encoder a vision transformer, a ResNet or timm's, as text encoder a transformer; other "
            'ones go into create_model("open_clip:<name>", file).'
        )
    for buffer, values in (("visual.pixel_mean", pixel_mean), ("visual.pixel_std", pixel_std)):
        converted[buffer] = torch.tensor([float(v) for v in values]).view(3, 1, 1)
    return converted


def is_openai_style(state_dict: Mapping[str, Tensor]) -> bool:
    """Whether the image encoder is OpenAI's vision transformer or ResNet, all trained with OpenAI's pixels."""
    names = ("visual.ln_pre.weight", "visual.attnpool.positional_embedding")
    return any(key in without_wrappers(state_dict) for key in names)


def _image_kind(state_dict: Mapping[str, Tensor]) -> Literal["vit", "resnet", "timm"]:
    for prefix, kind in ((_TIMM, "timm"), (_RESNET_STAGES, "resnet")):
        if any(key.startswith(prefix) for key in state_dict):
            return kind  # type: ignore[return-value]  # mypy sees a str
    return "vit"


def _timm_name(name: str) -> str | None:
    for prefix, ours in _TIMM_HEADS.items():
        if name.startswith(prefix):
            return ours + name.removeprefix(prefix)
    return name if name.startswith(_TIMM) else None


def _resnet_name(name: str) -> str | None:
    block, stem = _RESNET_BLOCK.fullmatch(name), _RESNET_STEM.fullmatch(name)
    if block:
        stage, number, layer, i, rest = block.groups()
        part = f"{_RESNET_CONVS.get(i)}.{layer}"
        if layer == "downsample.":
            part = f"shortcut.conv.{'conv' if i == '0' else 'bn'}"
        return f"visual.trunk.stages.{int(stage) - 1}.{number}.{part}.{rest}"
    if stem:
        layer, i, rest = stem.groups()
        return f"visual.trunk.stem.conv{i}.{layer}.{rest}"
    for prefix, ours in _RESNET_POOL.items():
        if name.startswith(prefix):
            return ours + name.removeprefix(prefix)
    return None


def _missing(converted: Mapping[str, Tensor], *, image: bool) -> list[str]:
    """Their names of what is not there; of the image encoder only where it is one of the table."""
    return [
        key
        for key, ours in NAMES.items()
        if key not in OPTIONAL and ours not in converted and (image or not key.startswith("visual."))
    ]


def to_open_clip(state_dict: Mapping[str, Tensor], *, layout: Layout = "clip") -> dict[str, Tensor]:
    """The weights of a CLIP model of ours under open_clip's names; :func:`to_hypvl` brings the same tensors back.

    Args:
        state_dict: Ours, of a model on the sphere with a timm CLIP vision transformer.
        layout: The names of open_clip's ``CLIP``, which are OpenAI's, or of its ``CustomTextCLIP``.

    Raises:
        ValueError: For another layout.
        CheckpointError: The model has a part that open_clip has no name for (a curvature, say), lacks one, or was
            trained on pixels normalised in another way than open_clip's transforms do.
    """
    one_of("layout", layout, Layout)
    state_dict = without_wrappers(state_dict)
    converted: dict[str, Tensor] = {}
    nameless = []
    for key, tensor in state_dict.items():
        if key in _PIXELS:
            continue
        theirs = _renamed(key, _OURS, _OUR_BLOCKS)
        if theirs is None:
            nameless.append(key)
            continue
        image = theirs.startswith("visual.") or theirs in _SCALARS
        name = theirs if image or layout == "clip" else _CUSTOM_TEXT + theirs
        converted[name] = _their_layout(theirs, tensor)
    missing = [ours for key, ours in NAMES.items() if key not in OPTIONAL and ours not in state_dict]
    if nameless or missing:
        raise CheckpointError(
            f"state_dict: {listed(nameless)} have no name in open_clip; missing {listed(missing)}; expected a CLIP "
            "model on the sphere with a timm CLIP vision transformer; save this one in hypvl's own format."
        )
    for key, values in _PIXELS.items():
        expected = torch.tensor(values).view(3, 1, 1)
        if key in state_dict and not torch.allclose(state_dict[key].cpu().float(), expected, atol=1e-6):
            raise CheckpointError(
                f"{key}: {state_dict[key].flatten().tolist()}; open_clip normalises by {list(values)} and its files "
                "cannot say otherwise; expected a model trained with these."
            )
    return converted


def _renamed(name: str, names: Mapping[str, str], blocks: Blocks) -> str | None:
    """By the table, or ``<prefix><number>.<part>`` with prefix and part renamed; None for any other name."""
    for prefix, new_prefix, parts in blocks:
        number, _, part = name.removeprefix(prefix).partition(".")
        if name.startswith(prefix) and part in parts and natural_number(number) is not None:
            return f"{new_prefix}{number}.{parts[part]}"
    return names.get(name)


def _our_layout(name: str, tensor: Tensor) -> Tensor:
    if name in _PROJECTIONS:
        return tensor.T.contiguous()  # (W, D) -> (D, W)
    if name == "visual.class_embedding":
        return tensor[None, None]  # (W,) -> (1, 1, W)
    if name == "visual.positional_embedding":
        return tensor[None]  # (N, W) -> (1, N, W)
    return tensor.reshape(()) if name in _SCALARS else tensor


def _their_layout(name: str, tensor: Tensor) -> Tensor:
    if name in _PROJECTIONS:
        return tensor.T.contiguous()
    if name == "visual.class_embedding":
        return tensor[0, 0]
    return tensor[0] if name == "visual.positional_embedding" else tensor


def _check_causal(key: str, mask: Tensor) -> None:
    expected = torch.full(tuple(mask.shape), -torch.inf).triu(1) if mask.ndim == 2 else torch.zeros(0)
    if not torch.equal(mask.cpu().float(), expected):
        raise CheckpointError(
            f"{key}: {tuple(mask.shape)}, not the causal mask (-inf above the diagonal, 0 elsewhere); the text "
            "encoder here is causal."
        )

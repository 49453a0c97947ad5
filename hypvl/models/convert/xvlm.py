"""Parameter names of X-VLM's files, and of its parts here: timm's Swin and two text models of BLIP of transformers.

The first layers of its text encoder read texts alone, the others attend to the image. Which layers do is read from the
names, as are all sizes. Left out are what predicts boxes and masked words, and the temperature.

Source: Zeng, Zhang and Li 2022, X-VLM (arXiv 2111.08276).
"""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from torch import Tensor

from hypvl.errors import CheckpointError
from hypvl.models.convert import listed, without_wrappers

VISION, TEXT, FUSION = "vision_model.", "text_encoder.", "fusion_encoder."
_VISION, _BERT = "vision_encoder.", re.compile(r"text_encoder\.(?:bert\.)?")
_KEPT = ("vision_proj.", "text_proj.", "itm_head.")
_LEFT_OUT = re.compile(
    r"temp|bbox_head\..+|text_encoder\.(bert\.pooler|pooler|cls)\..+|.*\.position_ids|.*relative_position_index|.*attn_mask"
)
_LAYER = re.compile(r"encoder\.layer\.(\d+)\.(.+)")
# Rows of a table of relative positions: (2 w - 1) squared for windows of w x w patches.
_BIAS = "layers.{}.blocks.0.attn.relative_position_bias_table"
_PATCH = 4
# Sides in pixels of images by window, where the file does not show them.
_SIDES = {12: 384, 7: 224}


class Sizes(NamedTuple):
    """Of the model."""

    vision: dict[str, Any]  # arguments of timm's SwinTransformer
    text: dict[str, Any]  # of transformers' BlipTextConfig; layers that read texts alone
    fusion_layers: int
    width: int  # of the shared embeddings


def is_xvlm(state_dict: Mapping[str, Tensor]) -> bool:
    """Whether a state_dict has the names of X-VLM."""
    names = without_wrappers(state_dict)
    return _VISION + "patch_embed.proj.weight" in names and "itm_head.0.weight" in names


def to_parts(state_dict: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Sizes]:
    """The weights of :class:`hypvl.models.cross_encoder.CrossEncoder`, and its sizes.

    The one row of token types that texts have is added to the positions, where BLIP's text model has none.

    Raises:
        CheckpointError: Names of another model, unknown ones, or weights that show no sizes.
    """
    names = without_wrappers(state_dict)
    if not is_xvlm(names):
        raise CheckpointError(
            f"state_dict: names {listed(names)}; expected those of X-VLM with Swin (vision_encoder.patch_embed.*, "
            "text_encoder.*, itm_head.*)."
        )
    crossed = {
        int(match[1])
        for name in names
        if (match := _LAYER.fullmatch(_BERT.sub("", name))) and "crossattention" in match[2]
    }
    if not crossed or 0 in crossed:
        raise CheckpointError(
            f"state_dict: layers {sorted(crossed)} of the text encoder attend to the image; expected the later ones."
        )
    first = min(crossed)
    converted: dict[str, Tensor] = {}
    unknown = []
    for name, tensor in names.items():
        if _LEFT_OUT.fullmatch(name):
            continue
        if name.startswith(_KEPT):
            converted[name] = tensor
        elif name.startswith(_VISION):
            converted[VISION + _vision(name.removeprefix(_VISION))] = tensor
        elif _BERT.match(name):
            part = _BERT.sub("", name)
            layer = _LAYER.fullmatch(part)
            if layer is None or int(layer[1]) < first:
                converted[TEXT + part] = tensor
            else:
                converted[f"{FUSION}encoder.layer.{int(layer[1]) - first}.{layer[2]}"] = tensor
        else:
            unknown.append(name)
    if unknown:
        raise CheckpointError(f"state_dict: unexpected {listed(unknown)}; expected the names of X-VLM.")
    types = converted.pop(f"{TEXT}embeddings.token_type_embeddings.weight", None)
    places = f"{TEXT}embeddings.position_embeddings.weight"
    try:
        if types is not None:
            converted[places] = converted[places] + types[0]
        return converted, _sizes(converted, names, layers=first)
    except (KeyError, IndexError) as error:
        raise CheckpointError(f"state_dict: missing {error}; expected a whole X-VLM.") from error


def _vision(name: str) -> str:
    """timm halves the patches at the start of a stage, Swin's own code at the end of the one before."""
    match = re.fullmatch(r"layers\.(\d+)\.downsample\.(.+)", name)
    return name if match is None else f"layers.{int(match[1]) + 1}.downsample.{match[2]}"


def _sizes(converted: Mapping[str, Tensor], names: Mapping[str, Tensor], *, layers: int) -> Sizes:
    stages = _count(converted, VISION + "layers.")
    tables = [converted[VISION + _BIAS.format(i)] for i in range(stages)]
    window = (math.isqrt(tables[0].shape[0]) + 1) // 2
    mask = names.get(f"{_VISION}layers.0.blocks.1.attn_mask")  # (windows, w * w, w * w)
    side = _SIDES.get(window, 0) if mask is None else _PATCH * window * math.isqrt(mask.shape[0])
    if not side:
        raise CheckpointError(
            f"state_dict: windows of {window} x {window} patches, and no {_VISION}layers.0.blocks.1.attn_mask that "
            f"shows the size of images; expected windows of {', '.join(map(str, _SIDES))}."
        )
    vision = {
        "img_size": side,
        "patch_size": _PATCH,
        "embed_dim": converted[VISION + "patch_embed.proj.weight"].shape[0],
        "depths": tuple(_count(converted, f"{VISION}layers.{i}.blocks.") for i in range(stages)),
        "num_heads": tuple(table.shape[1] for table in tables),
        "window_size": window,
        "num_classes": 0,
    }
    words = converted[f"{TEXT}embeddings.word_embeddings.weight"]
    text = {
        "vocab_size": words.shape[0],
        "hidden_size": words.shape[1],
        "encoder_hidden_size": converted[f"{VISION}norm.weight"].shape[0],
        "intermediate_size": converted[f"{TEXT}encoder.layer.0.intermediate.dense.weight"].shape[0],
        "num_hidden_layers": layers,
        "num_attention_heads": max(1, words.shape[1] // 64),
        "max_position_embeddings": converted[f"{TEXT}embeddings.position_embeddings.weight"].shape[0],
        "layer_norm_eps": 1e-12,
    }
    fusion = _count(converted, f"{FUSION}encoder.layer.")
    return Sizes(vision, text, fusion, converted["vision_proj.weight"].shape[0])


def _count(names: Iterable[str], prefix: str) -> int:
    return len({name.removeprefix(prefix).split(".")[0] for name in names if name.startswith(prefix)})

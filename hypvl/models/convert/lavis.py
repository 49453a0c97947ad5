"""Parameter names of BLIP and BLIP-2 files of LAVIS and of BLIP's own repository, and those of transformers.

Kept is what makes embeddings and matching scores; training state (momentum encoders, queues), the temperature, and what
generates text are left out. The sizes of the model are read from the weights; widths of 1408 have 16 heads, others one
for each 64 channels.

Source: Li et al. 2022, BLIP (arXiv 2201.12086); Li et al. 2023, BLIP-2 (arXiv 2301.12597).
"""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from hypvl.errors import CheckpointError
from hypvl.models.convert import listed, without_wrappers

Kind: TypeAlias = Literal["blip", "blip-2"]

VISION = {
    "cls_token": "embeddings.class_embedding",
    "pos_embed": "embeddings.position_embedding",
    "patch_embed.proj.weight": "embeddings.patch_embedding.weight",
    "patch_embed.proj.bias": "embeddings.patch_embedding.bias",
    "norm.weight": "post_layernorm.weight",
    "norm.bias": "post_layernorm.bias",
}
VISION_BLOCK = {
    "norm1": "layer_norm1",
    "norm2": "layer_norm2",
    "attn.qkv": "self_attn.qkv",
    "attn.proj": "self_attn.projection",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
QFORMER = {
    "embeddings.word_embeddings.weight": "embeddings.word_embeddings.weight",
    "embeddings.position_embeddings.weight": "embeddings.position_embeddings.weight",
    "embeddings.LayerNorm.weight": "qformer.layernorm.weight",
    "embeddings.LayerNorm.bias": "qformer.layernorm.bias",
}
HEADS: dict[Kind, dict[str, str]] = {
    "blip": {"vision_proj.": "vision_proj.", "text_proj.": "text_proj.", "itm_head.": "itm_head."},
    "blip-2": {
        "vision_proj.": "vision_projection.",
        "text_proj.": "text_projection.",
        "itm_head.": "itm_head.",
        "ln_vision.": "vision_model.post_layernorm.",
    },
}
_VISUAL, _QFORMER, _TEXT = "visual_encoder.", "Qformer.bert.", "text_encoder."
_VISION_MODEL = "vision_model."
#: What the files hold besides: training state and what generates text.
_LEFT_OUT = re.compile(
    r"temp|(image|text|idx)_queue|queue_ptr|ptr_queue|\w+_m\..+|text_decoder\..+|Qformer\.cls\..+|.*\.position_ids"
)
_BLOCK = re.compile(r"blocks\.(\d+)\.(.+)\.(weight|bias)")
_SPLIT_BIAS = re.compile(r"blocks\.(\d+)\.attn\.(q_bias|v_bias)")
_OPENAI_MEAN, _OPENAI_STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]


def kind_of(state_dict: Mapping[str, Tensor]) -> Kind | None:
    """Whether a state_dict has the names of BLIP or of BLIP-2; None for any other."""
    names = without_wrappers(state_dict)
    if any(name.startswith(_QFORMER) for name in names):
        return "blip-2"
    return "blip" if any(name.startswith(_TEXT + "encoder.layer.") for name in names) else None


def has_image_encoder(state_dict: Mapping[str, Tensor]) -> bool:
    """Whether the image encoder is in it."""
    return any(name.startswith(_VISUAL) for name in without_wrappers(state_dict))


def to_transformers(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of ``BlipForImageTextRetrieval`` or ``Blip2ForImageTextRetrieval``.

    Args:
        state_dict: ``model`` of a file; prefixes of wrappers are taken off.

    Raises:
        CheckpointError: Names of neither, unknown ones, or no image encoder (BLIP-2's is frozen in training and then
            in a file of its own, see :func:`with_image_encoder`).
    """
    kind = kind_of(state_dict)
    if kind is None:
        raise CheckpointError(
            f"state_dict: names {listed(state_dict)}; expected those of BLIP or BLIP-2 in LAVIS's format "
            "(visual_encoder.*, text_encoder.* or Qformer.bert.*)."
        )
    converted: dict[str, Tensor] = {}
    biases: dict[str, dict[str, Tensor]] = {}
    unknown = []
    for name, tensor in without_wrappers(state_dict).items():
        if _LEFT_OUT.fullmatch(name):
            continue
        split = _SPLIT_BIAS.fullmatch(name.removeprefix(_VISUAL))
        if split is not None:
            layer, part = split.groups()
            biases.setdefault(f"{_VISION_MODEL}encoder.layers.{layer}.self_attn.qkv.bias", {})[part] = tensor
            continue
        theirs = _renamed(name, kind)
        if theirs is None:
            unknown.append(name)
        else:
            converted[theirs] = tensor
    for theirs, parts in biases.items():  # the keys have no bias
        q, v = (parts.get(part) for part in ("q_bias", "v_bias"))
        if q is None or v is None:
            unknown.append(f"{theirs} (of {listed(parts)} alone)")
        else:
            converted[theirs] = torch.cat((q, torch.zeros_like(q), v))
    if unknown:
        raise CheckpointError(
            f"state_dict: unexpected {listed(unknown)}; expected the names of {kind.upper()} in LAVIS's format."
        )
    if not any(name.startswith(_VISION_MODEL + "encoder.") for name in converted):
        raise CheckpointError(
            f"state_dict: has no {_VISUAL}*; expected the image encoder too. Files of BLIP-2 trained with a frozen one "
            "lack it: put LAVIS's eva_vit_g.pth beside the file."
        )
    return converted


def with_image_encoder(
    state_dict: Mapping[str, Tensor], image_encoder: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """A BLIP-2 state_dict with the frozen image encoder of another file, as LAVIS takes it: without its last block.

    Args:
        image_encoder: Of EVA-CLIP (``eva_vit_g.pth``), whose names have no ``visual_encoder.`` before them.
    """
    plain = without_wrappers(image_encoder)
    last = max((int(match[1]) for name in plain if (match := _BLOCK.fullmatch(name))), default=0)
    kept = {
        name: tensor
        for name, tensor in plain.items()
        if (name in VISION and not name.startswith("norm."))
        or (name.startswith("blocks.") and not name.startswith(f"blocks.{last}."))
    }
    return {**without_wrappers(state_dict), **{_VISUAL + name: tensor for name, tensor in kept.items()}}


def config_of(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """The config of transformers for weights of :func:`to_transformers`, as ``config.json`` has it.

    Raises:
        CheckpointError: Positions of the images that are no square.
    """
    table, patches = (
        weights[_VISION_MODEL + f"embeddings.{name}"]
        for name in ("position_embedding", "patch_embedding.weight")
    )
    side = math.isqrt(table.shape[1] - 1)
    if side * side != table.shape[1] - 1:
        raise CheckpointError(
            f"visual_encoder.pos_embed: has {table.shape[1]} positions; expected a class token and a square of patches."
        )
    width = table.shape[2]
    vision = {
        "hidden_size": width,
        "intermediate_size": weights[_VISION_MODEL + "encoder.layers.0.mlp.fc1.weight"].shape[0],
        "num_hidden_layers": _layers(weights, _VISION_MODEL + "encoder.layers."),
        "num_attention_heads": 16 if width == 1408 else max(1, width // 64),
        "patch_size": patches.shape[2],
        "image_size": side * patches.shape[2],
        "layer_norm_eps": 1e-6,
    }
    blip2 = "query_tokens" in weights
    prefix = "qformer.encoder.layer." if blip2 else "text_encoder.encoder.layer."
    words = weights[("" if blip2 else "text_encoder.") + "embeddings.word_embeddings.weight"]
    places = weights[("" if blip2 else "text_encoder.") + "embeddings.position_embeddings.weight"]
    text: dict[str, Any] = {
        "vocab_size": words.shape[0],
        "hidden_size": words.shape[1],
        "encoder_hidden_size": width,
        "intermediate_size": weights[f"{prefix}0.intermediate.dense.weight"].shape[0],
        "num_hidden_layers": _layers(weights, prefix),
        "num_attention_heads": max(1, words.shape[1] // 64),
        "max_position_embeddings": places.shape[0],
        "layer_norm_eps": 1e-12,
    }
    shared = weights[("vision_projection" if blip2 else "vision_proj") + ".weight"].shape[0]
    if not blip2:
        return {
            "model_type": "blip",
            "vision_config": vision,
            "text_config": text,
            "image_text_hidden_size": shared,
        }
    crossed = [
        i
        for i in range(text["num_hidden_layers"])
        if f"{prefix}{i}.crossattention.output.dense.weight" in weights
    ]
    return {
        "model_type": "blip-2",
        "vision_config": vision,
        "qformer_config": {
            **text,
            "cross_attention_frequency": crossed[1] - crossed[0]
            if len(crossed) > 1
            else text["num_hidden_layers"],
            "use_qformer_text_input": True,
        },
        "num_query_tokens": weights["query_tokens"].shape[1],
        "image_text_hidden_size": shared,
        "image_token_index": None,
    }


def processor_of(size: int) -> dict[str, Any]:
    """BLIP's image processor for images of a size, as ``preprocessor_config.json`` has it: they are squeezed."""
    return {
        "image_processor_type": "BlipImageProcessor",
        "size": {"height": size, "width": size},
        "resample": 3,  # bicubic
        "do_resize": True,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": _OPENAI_MEAN,
        "image_std": _OPENAI_STD,
        "do_convert_rgb": True,
    }


def _renamed(name: str, kind: Kind) -> str | None:
    if name == "query_tokens" and kind == "blip-2":
        return name
    for prefix, theirs in HEADS[kind].items():
        if name.startswith(prefix):
            return theirs + name.removeprefix(prefix)
    if name.startswith(_VISUAL):
        return _vision(name.removeprefix(_VISUAL))
    if kind == "blip":
        return name if name.startswith(_TEXT) else None  # the names of transformers
    if not name.startswith(_QFORMER):
        return None
    name = name.removeprefix(_QFORMER)
    if name in QFORMER:
        return QFORMER[name]
    if not name.startswith("encoder.layer."):
        return None
    return "qformer." + re.sub(r"attention\.self\.", "attention.attention.", name)


def _vision(name: str) -> str | None:
    if name in VISION:
        return _VISION_MODEL + VISION[name]
    match = _BLOCK.fullmatch(name)
    if match is None or match[2] not in VISION_BLOCK:
        return None
    return f"{_VISION_MODEL}encoder.layers.{match[1]}.{VISION_BLOCK[match[2]]}.{match[3]}"


def _layers(names: Iterable[str], prefix: str) -> int:
    return len({name.removeprefix(prefix).split(".")[0] for name in names if name.startswith(prefix)})

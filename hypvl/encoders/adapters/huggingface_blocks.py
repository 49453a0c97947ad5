"""Layers of transformers' models for adapters; transformers itself is imported only where a model of it is adapted."""

import inspect
from typing import Any

from torch import Tensor, nn

from hypvl.encoders.adapters.gate import PaddedRows, Rows
from hypvl.encoders.adapters.places import Kind, Linear, fused
from hypvl.encoders.adapters.prefix import prefix_mask, prepend

#: Under this name transformers finds :func:`attend_to_prefix`.
PREFIX_ATTENTION = "hypvl_prefix"


def attend_to_prefix(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    is_causal: bool | None = None,
    **settings: Any,
) -> tuple[Tensor, Tensor | None]:
    """transformers' fused attention, with the prefix of the module in front of keys and values (B, A, L, C).

    Args:
        module: The attention module; without a prefix nothing changes.
        query, key, value: As transformers gives them, past ones of a cache included.
        attention_mask: (B, 1, Q, K), boolean or added; None = all, or those that causality leaves.
        is_causal: None = as the module says.
        settings: Scale and dropout, as transformers gives them.
    """
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    prefix = getattr(module, "key_value_prefix", None)
    if prefix is not None:
        keys, values, factor = prefix.take()
        causal = bool(getattr(module, "is_causal", True) if is_causal is None else is_causal)
        attention_mask = prefix_mask(
            attention_mask,
            causal=causal,
            queries=query.shape[2],
            keys=key.shape[2],
            prefix=keys.shape[1],
            device=query.device,
        )
        key, value = prepend(keys, key, factor), prepend(values, value, factor)
        is_causal = False
    attended: tuple[Tensor, Tensor | None] = ALL_ATTENTION_FUNCTIONS["sdpa"](
        module, query, key, value, attention_mask, is_causal=is_causal, **settings
    )
    return attended


def open_attention(encoder: nn.Module, block: nn.Module) -> None:
    """Let the model that holds a block attend by :func:`attend_to_prefix`."""
    from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(PREFIX_ATTENTION, attend_to_prefix)
    AttentionMaskInterface.register(PREFIX_ATTENTION, sdpa_mask)
    for module in encoder.modules():
        if isinstance(module, PreTrainedModel) and any(inner is block for inner in module.modules()):
            module.set_attn_implementation(PREFIX_ATTENTION)
            return
    raise ValueError(
        f"encoder: got a bare {type(block).__name__} of transformers; expected a model of it (a PreTrainedModel), "
        f"whose attention can be set."
    )


def padded_rows(attention: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Rows:
    """Rows of an attention: what the last query may attend to is not padding."""
    given = inspect.signature(attention.forward).bind(*args, **kwargs).arguments
    mask: Tensor | None = given.get("attention_mask", given.get("kwargs", {}).get("attention_mask"))
    if mask is None:
        return PaddedRows()
    if mask.ndim == 4:  # (B, 1, Q, K), boolean or added to the scores
        mask = mask[:, 0, -1]
        return PaddedRows(mask if mask.dtype.is_floating_point is False else mask == 0)
    return PaddedRows(mask != 0)


BERT_LAYER = Kind(
    attention="attention.self",
    heads="num_attention_heads",
    query_key_value=(
        Linear("attention.self.query"),
        Linear("attention.self.key"),
        Linear("attention.self.value"),
    ),
    intermediate=Linear("intermediate.dense"),
    attention_end="attention.output.dropout",
    attention_norm="attention.output.LayerNorm",
    ffn_end="output.dropout",
    ffn_norm="output.LayerNorm",
    ffn_residual="output",
    rows=padded_rows,
    open_prefix=open_attention,
)
DISTILBERT_LAYER = Kind(
    attention="attention",
    heads="n_heads",
    query_key_value=(Linear("attention.q_lin"), Linear("attention.k_lin"), Linear("attention.v_lin")),
    intermediate=Linear("ffn.lin1"),
    attention_end="attention.out_lin",
    attention_norm="sa_layer_norm",
    ffn_end="ffn",
    ffn_norm="output_layer_norm",
    ffn="ffn",
    rows=padded_rows,
    open_prefix=open_attention,
)
GPT2_BLOCK = Kind(
    attention="attn",
    heads="num_heads",
    query_key_value=fused("attn.c_attn", transposed=True),
    intermediate=Linear("mlp.c_fc", transposed=True),
    attention_end="attn.resid_dropout",
    ffn_end="mlp",
    ffn="mlp",
    rows=padded_rows,
    open_prefix=open_attention,
)
CLIP_LAYER = Kind(
    attention="self_attn",
    heads="num_heads",
    query_key_value=(Linear("self_attn.q_proj"), Linear("self_attn.k_proj"), Linear("self_attn.v_proj")),
    intermediate=Linear("mlp.fc1"),
    attention_end="self_attn.out_proj",
    ffn_end="mlp",
    ffn="mlp",
    rows=padded_rows,
    open_prefix=open_attention,
)
_LAYERS = {
    "bert.modeling_bert.BertLayer": BERT_LAYER,
    "roberta.modeling_roberta.RobertaLayer": BERT_LAYER,
    "xlm_roberta.modeling_xlm_roberta.XLMRobertaLayer": BERT_LAYER,
    "camembert.modeling_camembert.CamembertLayer": BERT_LAYER,
    "electra.modeling_electra.ElectraLayer": BERT_LAYER,
    "distilbert.modeling_distilbert.TransformerBlock": DISTILBERT_LAYER,
    "gpt2.modeling_gpt2.GPT2Block": GPT2_BLOCK,
    "clip.modeling_clip.CLIPEncoderLayer": CLIP_LAYER,
    "siglip.modeling_siglip.SiglipEncoderLayer": CLIP_LAYER,
}
KINDS = {f"transformers.models.{name}": kind for name, kind in _LAYERS.items()}

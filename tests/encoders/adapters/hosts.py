"""Tiny encoders of every kind of block, and what to put into them."""

import copy
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from hypvl.encoders.conv_vit import ConvStemViT
from hypvl.encoders.image import TimmImageEncoder
from hypvl.encoders.text import TextTransformer

WIDTH = 32
# Options that fit a width of 32; the others are the defaults.
OPTIONS: dict[str, dict[str, Any]] = {
    "bottleneck_adapter": {"reduction": 2},
    "lang_adapter": {"reduction": 2},
    "dummy": {"reduction": 4},
    "prefix_tuning": {"inner": 16},
    "unipelt": {"reduction": 2},
}
VIT = {"depth": 2, "embed_dim": WIDTH, "num_heads": 4}
HF = {"vocab_size": 50, "hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 4}


def hugging_face(model_type: str, **config: Any) -> Callable[[], nn.Module]:
    """A text model of transformers, its tokens padded with 0 and their last states averaged."""

    def make() -> nn.Module:
        from hypvl.encoders.text_huggingface import HuggingFaceTextEncoder

        settings = {
            "model_type": model_type,
            "pad_token_id": 0,
            "eos_token_id": 49,
            "bos_token_id": 1,
        } | config
        return HuggingFaceTextEncoder(config=settings, pooler="mean", context_length=16)

    return make


class Host(NamedTuple):
    """How to make an encoder, and inputs of a batch of three."""

    make: Callable[[], nn.Module]
    is_text: bool

    def inputs(self) -> Tensor:
        """Tokens (3, 8), padded with 0, or images (3, 3, 32, 32)."""
        generator = torch.Generator().manual_seed(0)
        if not self.is_text:
            return torch.rand(3, 3, 32, 32, generator=generator, dtype=torch.float64)
        tokens = torch.randint(3, 48, (3, 8), generator=generator)
        for row, length in enumerate((8, 5, 3)):
            tokens[row, length - 1] = 49  # end of text
            tokens[row, length:] = 0
        return tokens


BERT = HF | {"intermediate_size": 64, "max_position_embeddings": 40}
HOSTS = {
    "text": Host(
        lambda: TextTransformer(f"L2_W{WIDTH}_A4", vocab_size=50, context_length=16), is_text=True
    ),
    "timm": Host(
        lambda: TimmImageEncoder("vit_tiny_patch16_224", image_size=32, timm_args=VIT), is_text=False
    ),
    "conv_vit": Host(
        lambda: ConvStemViT(WIDTH, 2, heads=4, image_size=32, patch_size=16), is_text=False
    ),
    "bert": Host(hugging_face("bert", **BERT), is_text=True),
    "roberta": Host(hugging_face("roberta", **BERT), is_text=True),
    "xlm_roberta": Host(hugging_face("xlm-roberta", **BERT), is_text=True),
    "camembert": Host(hugging_face("camembert", **BERT), is_text=True),
    "electra": Host(hugging_face("electra", **BERT, embedding_size=WIDTH), is_text=True),
    "distilbert": Host(
        hugging_face("distilbert", vocab_size=50, dim=WIDTH, n_layers=2, n_heads=4, hidden_dim=64), is_text=True
    ),
    "gpt2": Host(hugging_face("gpt2", vocab_size=50, n_embd=WIDTH, n_layer=2, n_head=4, n_positions=40), is_text=True),
    "clip_text": Host(
        hugging_face("clip_text_model", **HF, intermediate_size=64), is_text=True
    ),
    "siglip_text": Host(
        hugging_face(
            "siglip",
            text_config=HF | {"intermediate_size": 64, "max_position_embeddings": 16},
            vision_config={"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1},
        ),
        is_text=True,
    ),
}  # fmt: skip


@functools.cache
def _made(name: str) -> nn.Module:
    torch.manual_seed(0)
    return HOSTS[name].make().double().eval()


def make(name: str) -> nn.Module:
    """A host in fp64 without dropout."""
    return copy.deepcopy(_made(name))


@torch.no_grad()
def shaken(encoder: nn.Module, scale: float = 0.3) -> nn.Module:
    """The encoder with other adapter weights than at the start, so that every part has an effect."""
    generator = torch.Generator().manual_seed(1)
    for name, parameter in sorted(encoder.named_parameters()):
        if name.startswith("adapter."):
            parameter += scale * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    return encoder

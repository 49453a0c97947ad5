"""Attention of every encoder goes through torch's fused function: no (L, L) matrix of weights is ever held."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from hypvl.encoders.conv_vit import ConvStemViT
from hypvl.encoders.image import TimmImageEncoder
from hypvl.encoders.text import TextTransformer

Given = Callable[[], tuple[nn.Module, Tensor]]
ENCODERS: dict[str, Given] = {
    "timm": lambda: (
        TimmImageEncoder("vit_small_patch16_224", image_size=48),
        torch.zeros(2, 3, 48, 48, dtype=torch.uint8),
    ),
    "conv stem": lambda: (ConvStemViT(image_size=32), torch.zeros(2, 3, 32, 32, dtype=torch.uint8)),
    "text": lambda: (
        TextTransformer("L2_W64", vocab_size=10, context_length=8),
        torch.tensor([[1, 2, 9, 0], [1, 2, 3, 9]]),
    ),
}


class Calls(TorchDispatchMode):
    """Counts fused attention and softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.fused, self.softmax = 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]  # torch's protocol
        self.fused += "scaled_dot_product" in str(func) and "backward" not in str(func)
        self.softmax += "_softmax" in str(func)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ENCODERS)
def test_attention_is_fused(name: str) -> None:
    encoder, inputs = ENCODERS[name]()
    with Calls() as calls:
        encoder(inputs).sum().backward()
    assert calls.fused >= 2 and calls.softmax == 0

"""A small vision transformer behind a convolutional stem, for small images and small machines."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from hypvl.allowlist import configurable
from hypvl.checks import MOST_FEATURES, number, one_of, whole_number
from hypvl.encoders.image_base import IMAGENET_MEAN, IMAGENET_STD, ImageEncoder, sincos_2d


def conv_stem(width: int, patch_size: int, *, convs: int = 1) -> nn.Sequential:
    """3x3 convolutions, each with a norm and a GELU, that end at one token per patch.

    Each stage halves the resolution with its first convolution; every stage but the first has ``convs`` of them.

    Channels double from stage to stage up to ``width``. GroupNorm (8 groups) sees one image at a time: the
    features of an image never depend on its batch, nor on how the batch is split over processes.
    """
    stages = patch_size.bit_length() - 1
    layers: list[nn.Module] = []
    before = 3
    for stage in range(stages):
        channels = width >> (stages - 1 - stage)
        for i in range(convs if stage else 1):
            conv = nn.Conv2d(before, channels, 3, stride=1 if i else 2, padding=1, bias=False)
            layers += [conv, nn.GroupNorm(math.gcd(8, channels), channels), nn.GELU()]
            before = channels
    layers.append(nn.Conv2d(width, width, 1))
    return nn.Sequential(*layers)


@configurable("model")
class ConvStemViT(ImageEncoder):
    """Vision transformer whose tokens come from a convolutional stem instead of linear patches.

    Args:
        width: Channels per token; a multiple of 4, of ``heads`` and of half the ``patch_size``.
        depth: Number of transformer blocks, at least 1.
        heads: Attention heads.
        image_size: Height and width in pixels, a multiple of ``patch_size``.
        patch_size: Pixels per token and axis, a power of two from 2; log2 of it is the number of stem stages.
        stem_convs: Convolutions per stage of the stem, from the second stage on; at least 1.
        mlp_ratio: Width of the hidden layer of a block, in units of ``width``.
        pool: ``"mean"`` over the tokens, or the ``"class_token"``.
        pixel_mean: Mean per channel of pixels in [0, 1].
        pixel_std: Standard deviation per channel.
        drop_path_rate: Stochastic depth of the last block, in [0, 1), growing linearly from 0; 0 = none.
        grad_checkpointing: Recompute each block in the backward pass instead of keeping its activations.

    Raises:
        ValueError: When the sizes do not fit together.

    Source: Xiao et al. 2021, "Early Convolutions Help Transformers See Better".
    Differs: GroupNorm and GELU in the stem, so that features do not depend on the batch.
    """

    pos_embed: nn.Parameter
    cls_token: nn.Parameter | None

    def __init__(
        self,
        width: int = 128,
        depth: int = 4,
        *,
        heads: int = 4,
        image_size: int = 64,
        patch_size: int = 8,
        stem_convs: int = 1,
        mlp_ratio: float = 4.0,
        pool: Literal["mean", "class_token"] = "mean",
        pixel_mean: Sequence[float] = IMAGENET_MEAN,
        pixel_std: Sequence[float] = IMAGENET_STD,
        drop_path_rate: float = 0.0,
        grad_checkpointing: bool = False,
    ) -> None:
        width = whole_number("width", width, least=4, most=MOST_FEATURES)
        depth = whole_number("depth", depth, least=1, most=1000)
        heads = whole_number("heads", heads, least=1)
        stem_convs = whole_number("stem_convs", stem_convs, least=1, most=100)
        patch_size = whole_number("patch_size", patch_size, least=1)
        one_of("pool", pool, ("mean", "class_token"))
        mlp_ratio = number("mlp_ratio", mlp_ratio, above=0, most=100)
        number("drop_path_rate", drop_path_rate, least=0, below=1)
        super().__init__(image_size, pixel_mean=pixel_mean, pixel_std=pixel_std, fixed_size=True)
        if patch_size < 2 or patch_size & (patch_size - 1) or self.image_size % patch_size:
            raise ValueError(
                f"patch_size: got {patch_size}; expected a power of two from 2 that divides image_size {image_size}."
            )
        if width % 4 or width % heads or width % (patch_size // 2):
            raise ValueError(
                f"width: got {width}; expected a multiple of 4, of heads = {heads} and of half the patch size, "
                f"{patch_size // 2}."
            )
        self.width = width
        self.pool = pool
        self.grad_checkpointing = grad_checkpointing

        self.stem = conv_stem(width, patch_size, convs=stem_convs)
        grid = self.image_size // patch_size
        prefix = 1 if pool == "class_token" else 0
        self.cls_token = nn.Parameter(0.02 * torch.randn(1, 1, width)) if prefix else None
        self.pos_embed = nn.Parameter(
            sincos_2d(width, (grid, grid), prefix_tokens=prefix), requires_grad=False
        )
        drops = [drop_path_rate * i / max(depth - 1, 1) for i in range(depth)]
        self.blocks = nn.ModuleList(
            [
                Block(
                    width, heads, mlp_ratio=mlp_ratio, qkv_bias=True, drop_path=drop, norm_layer=nn.LayerNorm
                )
                for drop in drops
            ]
        )
        self.norm = nn.LayerNorm(width)  # eps 1e-5, here and in the blocks
        for module in self.blocks.modules():  # as in timm's vision transformers
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Turn recomputation in the backward pass on or off."""
        self.grad_checkpointing = enable

    def encode(self, pixels: Tensor) -> Tensor:
        """Normalised pixels (B, 3, S, S) -> features (B, width), after the last LayerNorm."""
        return self.read_out(self.encode_tokens(pixels))

    def encode_tokens(self, pixels: Tensor) -> Tensor:
        """Normalised pixels (B, 3, S, S) -> tokens (B, T, width), after the last LayerNorm."""
        x = self.stem(pixels).flatten(2).transpose(1, 2)  # (B, N, W)
        if self.cls_token is not None:
            x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1)  # (B, 1 + N, W)
        x = x + self.pos_embed
        recompute = self.grad_checkpointing and torch.is_grad_enabled()
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False) if recompute else block(x)
        return self.norm(x)

    def read_out(self, tokens: Tensor) -> Tensor:
        return tokens.mean(dim=1) if self.pool == "mean" else tokens[:, 0]

    @property
    def prefix_tokens(self) -> int:
        return 0 if self.cls_token is None else 1

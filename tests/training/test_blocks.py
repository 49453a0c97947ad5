"""Blocks found from the module tree are those through which the features go, of every kind of encoder."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn
from transformers import BertConfig, BertModel, GPT2Config, GPT2Model, MPNetConfig, MPNetModel

from hypvl.encoders.conv_vit import ConvStemViT
from hypvl.encoders.image import TimmImageEncoder
from hypvl.encoders.open_clip import OpenClipImageEncoder, OpenClipTextEncoder
from hypvl.encoders.text import TextTransformer
from hypvl.encoders.text_huggingface import HuggingFaceTextEncoder
from hypvl.training.blocks import depths, ordered_blocks

IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
TOKENS = torch.tensor([[1, 5, 6, 9], [1, 7, 9, 0]])
SMALL: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}


def timm_model(arch: str, **arguments: Any) -> nn.Module:
    return timm.create_model(arch, pretrained=False, num_classes=0, **arguments)


def open_clip_towers() -> tuple[nn.Module, nn.Module]:
    from open_clip.transformer import TextTransformer as Text, VisionTransformer as Vision

    vision = Vision(image_size=32, patch_size=16, width=16, layers=3, heads=2, mlp_ratio=2.0, output_dim=8)
    return vision, Text(context_length=4, vocab_size=10, width=16, heads=2, layers=3, output_dim=8)


DEPTH = {"depth": 3, "embed_dim": 24, "num_heads": 2}
VIT = {"img_size": 32, **DEPTH}
# Encoder, its inputs, number of blocks, the first of them, and what comes after them.
CASES: dict[str, tuple[Callable[[], nn.Module], Tensor, int, str, set[str]]] = {
    "text": (
        lambda: TextTransformer("L3_W16_A2", vocab_size=10, context_length=4),
        TOKENS, 3, "resblocks.0", {"ln_final"},
    ),
    "conv_vit": (lambda: ConvStemViT(16, 2, heads=2, image_size=32), IMAGES, 2, "blocks.0", {"norm"}),
    "encoder": (
        lambda: TimmImageEncoder("vit_tiny_patch16_224", image_size=32, timm_args=DEPTH),
        IMAGES, 3, "trunk.blocks.0", {"trunk.norm"},
    ),
    "vit": (lambda: timm_model("vit_tiny_patch16_224", **VIT), IMAGES, 3, "blocks.0", {"norm"}),
    "siglip": (
        lambda: timm_model("vit_base_patch16_siglip_224", **VIT),
        IMAGES, 3, "blocks.0", {"norm", "attn_pool"},
    ),
    "resnet": (lambda: timm_model("resnet10t"), IMAGES, 4, "layer1", set()),
    "convnext": (lambda: timm_model("convnext_atto", depths=(1, 1, 2, 1)), IMAGES, 4, "stages.0", {"head"}),
    "mobilenet": (lambda: timm_model("mobilenetv3_small_050"), IMAGES, 6, "blocks.0", {"conv_head"}),
    "torchvision": (
        lambda: torchvision.models.regnet_y_400mf(weights=None),
        IMAGES, 4, "trunk_output.block1", {"fc"},
    ),
    "torchvision_vit": (
        lambda: torchvision.models.VisionTransformer(32, 16, 2, 2, 16, 32, num_classes=4),
        IMAGES, 2, "encoder.layers.encoder_layer_0", {"encoder.ln", "heads"},
    ),
    "bert": (
        lambda: BertModel(BertConfig(vocab_size=10, **SMALL)),
        TOKENS, 3, "encoder.layer.0", {"pooler"},
    ),
    "mpnet": (
        lambda: MPNetModel(MPNetConfig(vocab_size=10, **SMALL)),
        TOKENS, 3, "encoder.layer.0", {"pooler"},
    ),
    "gpt2": (
        lambda: GPT2Model(GPT2Config(vocab_size=10, n_embd=16, n_layer=2, n_head=2)), TOKENS, 2, "h.0", {"ln_f"}
    ),
    "hugging_face": (
        lambda: HuggingFaceTextEncoder(
            config={"model_type": "bert", "vocab_size": 10, **SMALL}, context_length=4, pooler="mean"
        ),
        TOKENS, 3, "trunk.encoder.layer.0", set(),
    ),
    "open_clip_image": (
        lambda: open_clip_towers()[0], IMAGES, 3, "transformer.resblocks.0", {"ln_post", "proj"}
    ),
    "open_clip_text": (
        lambda: open_clip_towers()[1], TOKENS, 3, "transformer.resblocks.0", {"ln_final", "text_projection"}
    ),
}  # fmt: skip


def with_gradient(encoder: nn.Module, inputs: Tensor, cut: str) -> set[str]:
    """Parameters that get a gradient when no gradient flows back through the output of ``cut``."""

    def detached(module: nn.Module, given: Any, output: Any) -> Any:
        return tuple(part.detach() for part in output) if isinstance(output, tuple) else output.detach()

    handle = encoder.get_submodule(cut).register_forward_hook(detached)
    encoder.zero_grad(set_to_none=True)
    output = encoder(inputs)
    if hasattr(output, "last_hidden_state"):
        pooled = getattr(output, "pooler_output", None)
        output = output.last_hidden_state if pooled is None else pooled
    if output.requires_grad:  # else nothing comes after it
        (output * torch.randn(output.shape, generator=torch.Generator().manual_seed(1))).sum().backward()
    handle.remove()
    return {name for name, parameter in encoder.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("name", CASES)
def test_blocks_and_depths_are_those_of_the_gradient(name: str) -> None:
    make, inputs, count, first, after = CASES[name]
    torch.manual_seed(0)
    encoder = make().eval()
    blocks, depth = ordered_blocks(encoder), depths(encoder)
    assert (len(blocks), blocks[0]) == (count, first)
    assert set(depth) == {n for n, _ in encoder.named_parameters()}
    last = {n for n, i in depth.items() if i == count + 1}
    assert {n for n in after if not any(p == n or p.startswith(f"{n}.") for p in last)} == set()
    assert all(any(p == n or p.startswith(f"{n}.") for n in after) for p in last)
    behind_the_last = with_gradient(encoder, inputs, blocks[-1])
    assert behind_the_last <= last
    behind_the_first = with_gradient(encoder, inputs, blocks[0])
    early = {n for n, i in depth.items() if i <= 1}
    shared = {n for n in early if "relative_attention_bias" in n}  # MPNet's table is used by every block
    assert not behind_the_first & (early - shared)
    assert {n for n in behind_the_first if depth[n] == 2}  # and the second block does get one


def test_encoders_of_open_clip_have_their_blocks(tmp_path: Path) -> None:
    config = {
        "embed_dim": 12,
        "vision_cfg": {"layers": [1, 1, 1, 1], "width": 8, "image_size": 32},
        "text_cfg": {"context_length": 4, "vocab_size": 10, "width": 24, "heads": 2, "layers": 2},
    }
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    name = f"local-dir:{tmp_path}"
    image, text = OpenClipImageEncoder(name), OpenClipTextEncoder(name)
    assert ordered_blocks(image) == tuple(f"tower.layer{i}" for i in (1, 2, 3, 4))
    assert depths(image)["tower.attnpool.positional_embedding"] == 5
    assert depths(image)["tower.conv3.weight"] == 0
    assert ordered_blocks(text) == tuple(f"tower.transformer.resblocks.{i}" for i in (0, 1))
    assert (depths(text)["tower.text_projection"], depths(text)["tower.positional_embedding"]) == (3, 0)


def test_a_row_of_single_layers_counts_where_there_is_no_other() -> None:
    with torch.device("meta"):
        network = torchvision.models.alexnet(weights=None)
    assert ordered_blocks(network) == tuple(f"features.{i}" for i in (0, 3, 6, 8, 10))
    assert depths(network)["classifier.1.weight"] == 6


def test_stages_are_numbered_in_turn() -> None:
    """ShuffleNet: conv1 and conv5 are no row beside stage2 to stage4."""
    with torch.device("meta"):
        network = torchvision.models.shufflenet_v2_x0_5(weights=None, num_classes=2)
    assert ordered_blocks(network) == ("stage2", "stage3", "stage4")
    assert (depths(network)["conv1.0.weight"], depths(network)["conv5.0.weight"]) == (0, 4)


def test_a_wrapper_is_looked_through() -> None:
    """As of sentence-transformers: modules 0 (the transformer) and 2 (a dense layer)."""
    inner = BertModel(BertConfig(vocab_size=10, **SMALL))
    outer = nn.Sequential(inner, nn.Identity(), nn.Sequential(nn.Linear(16, 4)))
    assert ordered_blocks(outer) == tuple(f"0.encoder.layer.{i}" for i in range(3))
    assert depths(outer)["2.0.weight"] == 4


def test_between_two_blocks_belongs_to_the_first() -> None:
    network = timm_model("densenet121", growth_rate=8, block_config=(1, 1, 1, 1))
    assert ordered_blocks(network) == tuple(f"features.denseblock{i}" for i in (1, 2, 3, 4))
    depth = depths(network)
    assert (
        depth["features.transition2.conv.weight"]
        == depth["features.denseblock2.denselayer1.conv1.weight"]
        == 2
    )
    assert depth["features.conv0.weight"] == 0
    assert depth["features.norm5.weight"] == 5


def test_a_network_without_a_row_is_named() -> None:
    with torch.device("meta"):
        network = torchvision.models.Inception3(init_weights=False, num_classes=2)
    with pytest.raises(
        ValueError, match=r"^Inception3 has no row of numbered blocks \(its parts: Conv2d_1a_3x3, "
    ):
        ordered_blocks(network)

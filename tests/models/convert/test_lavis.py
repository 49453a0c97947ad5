"""BLIP and BLIP-2 files in LAVIS's format: their names, and the forward pass of the parts that the names come from."""

import re
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from hypvl.errors import CheckpointError
from hypvl.models.convert import lavis
from tests.models.test_matching import random_

State = dict[str, Tensor]
WORDS, PLACES, WIDTH, SHARED = 40, 36, 64, 12


def vision(*, norm: bool) -> VisionTransformer:
    """timm's vision transformer, whose names BLIP's image encoder has."""
    made = VisionTransformer(
        img_size=16, patch_size=8, embed_dim=128, depth=2, num_heads=2, num_classes=0, class_token=True,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
    )  # fmt: skip
    if not norm:
        made.norm = nn.Identity()
    return made


def bert(words: int) -> Any:
    """transformers' BERT with attention to another encoder, whose names BLIP's text encoder has."""
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=words, hidden_size=WIDTH, intermediate_size=96, num_hidden_layers=3, num_attention_heads=1,
        max_position_embeddings=PLACES, is_decoder=True, add_cross_attention=True, encoder_width=128,
    )  # fmt: skip
    model = BertModel(config, add_pooling_layer=False)
    for layer in model.encoder.layer:  # of the width of the image encoder
        attention = layer.crossattention.self
        attention.key, attention.value = nn.Linear(128, WIDTH), nn.Linear(128, WIDTH)
    return model


@torch.no_grad()
def bert_states(model: Any, ids: Tensor, image: Tensor | None = None) -> Tensor:
    """Its last states (B, L, W), every token attending to every other, and to image tokens where there are some."""
    embedded = model.embeddings
    x = embedded.word_embeddings(ids) + embedded.position_embeddings(torch.arange(ids.shape[1]))
    x = embedded.LayerNorm(x)
    for layer in model.encoder.layer:
        x = layer.attention(x, attention_mask=x.new_zeros(len(x), 1, 1, x.shape[1]))[0]  # not causal
        if image is not None:
            x = layer.crossattention(x, encoder_hidden_states=image)[0]
        x = layer.feed_forward_chunk(x)
    return x


class Blip(nn.Module):
    """The modules of a BLIP file for retrieval."""

    def __init__(self, words: int = WORDS) -> None:
        super().__init__()
        self.visual_encoder = vision(norm=True)
        self.text_encoder = bert(words)
        self.vision_proj, self.text_proj = nn.Linear(128, SHARED), nn.Linear(WIDTH, SHARED)
        self.itm_head = nn.Linear(WIDTH, 2)

    def file(self) -> State:
        state = {name: t for name, t in self.state_dict().items() if "token_type" not in name}
        twins = {name.replace(".", "_m.", 1): t for name, t in state.items() if "itm_head" not in name}
        more = {
            "temp": torch.tensor(0.07),
            "image_queue": torch.zeros(SHARED, 8),
            "text_queue": torch.zeros(SHARED, 8),
        }
        more |= {"queue_ptr": torch.zeros(1), "idx_queue": torch.zeros(1, 8)}
        positions = {"text_encoder.embeddings.position_ids": torch.arange(PLACES)[None]}
        return {**state, **twins, **more, **positions}


@torch.no_grad()
def test_blip_of_transformers_is_blip() -> None:
    from transformers import BlipConfig, BlipForImageTextRetrieval

    torch.manual_seed(0)
    ours = random_(Blip())
    state = ours.file()
    assert lavis.kind_of(state) == "blip"
    weights = lavis.to_transformers({f"module.{name}": tensor for name, tensor in state.items()})
    config = BlipConfig(**lavis.config_of(weights))
    assert (config.vision_config.image_size, config.vision_config.num_attention_heads) == (16, 2)
    text = {"bos_token_id": 0, "sep_token_id": 1, "pad_token_id": 0}
    config.text_config.update(text)
    model: Any = BlipForImageTextRetrieval(config).eval()
    model.load_state_dict(weights, strict=True)
    pixels, ids = torch.randn(3, 3, 16, 16), torch.randint(0, WORDS, (3, 7))
    image = ours.visual_encoder.forward_features(pixels)
    itc = model(
        pixel_values=pixels, input_ids=ids, attention_mask=torch.ones_like(ids), use_itm_head=False
    ).itm_score
    text_side = F.normalize(ours.text_proj(bert_states(ours.text_encoder, ids)[:, 0]), dim=-1)
    wanted = F.normalize(ours.vision_proj(image[:, 0]), dim=-1) @ text_side.T
    torch.testing.assert_close(itc, wanted, rtol=0, atol=1e-5)
    itm = model(pixel_values=pixels, input_ids=ids, attention_mask=torch.ones_like(ids)).itm_score
    wanted = ours.itm_head(bert_states(ours.text_encoder, ids, image)[:, 0])
    assert wanted.std(0).min() > 1e-3
    torch.testing.assert_close(itm, wanted, rtol=0, atol=1e-5)


def blip2_file(model: Any, images: VisionTransformer) -> State:
    """The Q-Former of transformers and an image encoder by the names of LAVIS."""
    state: State = {}
    for name, tensor in model.state_dict().items():
        name = re.sub(r"^embeddings\.", "Qformer.bert.embeddings.", name)
        name = name.replace("qformer.layernorm.", "Qformer.bert.embeddings.LayerNorm.")
        name = name.replace("qformer.", "Qformer.bert.").replace("attention.attention.", "attention.self.")
        name = name.replace("vision_projection.", "vision_proj.").replace("text_projection.", "text_proj.")
        name = name.replace("vision_model.post_layernorm.", "ln_vision.")
        if not name.startswith("vision_model."):
            state[name] = tensor
    for name, tensor in images.state_dict().items():
        if name.endswith("attn.qkv.bias"):
            q, k, v = tensor.chunk(3)
            assert not k.any()
            base = f"visual_encoder.{name.removesuffix('qkv.bias')}"
            state |= {f"{base}q_bias": q, f"{base}v_bias": v}
        else:
            state[f"visual_encoder.{name}"] = tensor
    head = {"Qformer.cls.predictions.bias": torch.zeros(WORDS), "temp": torch.tensor(0.07)}
    return {**state, **head, "Qformer.bert.embeddings.position_ids": torch.arange(PLACES)[None]}


@torch.no_grad()
def test_blip2_of_transformers_is_blip2() -> None:
    from transformers import Blip2Config, Blip2ForImageTextRetrieval

    torch.manual_seed(0)
    qformer = {
        "vocab_size": WORDS, "hidden_size": WIDTH, "encoder_hidden_size": 128, "intermediate_size": 96,
        "num_hidden_layers": 3, "num_attention_heads": 1, "max_position_embeddings": PLACES,
        "use_qformer_text_input": True,
    }  # fmt: skip
    vision_config = {
        "hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 2,
        "image_size": 16, "patch_size": 8,
    }  # fmt: skip
    first = random_(
        Blip2ForImageTextRetrieval(
            Blip2Config(
                vision_config=vision_config,
                qformer_config=qformer,
                num_query_tokens=4,
                image_text_hidden_size=SHARED,
            )
        )
    )
    images = random_(vision(norm=False))
    for block in images.blocks:
        block.attn.qkv.bias[128:256] = 0
    state = blip2_file(first, images)
    assert lavis.kind_of(state) == "blip-2"
    weights = lavis.to_transformers(state)
    config = Blip2Config(**lavis.config_of(weights))
    assert config.qformer_config.cross_attention_frequency == 2 and config.num_query_tokens == 4
    model: Any = Blip2ForImageTextRetrieval(config).eval()
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not unexpected and all(name.endswith("position_ids") for name in missing)
    pixels, ids = torch.randn(3, 3, 16, 16), torch.randint(0, WORDS, (3, 7))
    tokens = images.forward_features(pixels)  # without a last norm, which is ln_vision
    torch.testing.assert_close(
        model.vision_model(pixel_values=pixels).last_hidden_state,
        first.vision_model.post_layernorm(tokens),
        rtol=0,
        atol=1e-5,
    )
    first.vision_model.load_state_dict(
        model.vision_model.state_dict()
    )  # the rest is the library's own forward
    both = {"pixel_values": pixels, "input_ids": ids, "attention_mask": torch.ones_like(ids)}
    for matching in (False, True):
        ours, theirs = (
            m(**both, use_image_text_matching_head=matching).logits_per_image for m in (model, first)
        )
        assert theirs.std() > 1e-3
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_the_frozen_image_encoder_is_a_file_of_its_own() -> None:
    state = {
        "query_tokens": torch.zeros(1, 4, WIDTH), "Qformer.bert.embeddings.LayerNorm.bias": torch.zeros(WIDTH),
    }  # fmt: skip
    with pytest.raises(
        CheckpointError, match=r"has no visual_encoder\.\*; .* put LAVIS's eva_vit_g\.pth beside"
    ):
        lavis.to_transformers(state)
    frozen = vision(norm=True).state_dict()
    whole = lavis.with_image_encoder(state, {**frozen, "head.weight": torch.zeros(3)})
    images = [name for name in whole if name.startswith("visual_encoder.")]
    assert not any(
        ".1." in name or "norm.weight" in name.split("blocks")[0] for name in images
    )  # the last of 2 blocks
    assert "visual_encoder.blocks.0.attn.qkv.weight" in images and "visual_encoder.head.weight" not in images
    assert any(name.startswith("vision_model.encoder.layers.0.") for name in lavis.to_transformers(whole))


def test_names_of_other_files_are_listed() -> None:
    with pytest.raises(CheckpointError, match=r"names visual\.proj; expected those of BLIP or BLIP-2"):
        lavis.to_transformers({"visual.proj": torch.zeros(2)})
    state = {
        "text_encoder.encoder.layer.0.output.dense.bias": torch.zeros(2),
        "prompt.weight": torch.zeros(2),
    }
    with pytest.raises(CheckpointError, match=r"unexpected prompt\.weight; expected the names of BLIP"):
        lavis.to_transformers(state)
    with pytest.raises(CheckpointError, match=r"qkv\.bias \(of q_bias alone\)"):
        lavis.to_transformers({**state, "visual_encoder.blocks.0.attn.q_bias": torch.zeros(2)})

"""A cross encoder: an encoder of images and one of texts, then layers in which text tokens attend to the image."""

from typing import Any

import torch
from timm.models.swin_transformer import SwinTransformer
from torch import Tensor, nn

from hypvl.encoders.text_huggingface import require_transformers
from hypvl.models.convert.xvlm import Sizes


class CrossEncoder(nn.Module):
    """X-VLM: a Swin transformer, a text encoder, and a fusion encoder with a matching head.

    Image tokens are the mean of the patches, then the patches; the first one is projected for embeddings, as is the
    first token of a text.

    Source: Zeng, Zhang and Li 2022, X-VLM (arXiv 2111.08276), section 3.
    """

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        transformers = require_transformers()
        ids = {"bos_token_id": None, "sep_token_id": None, "pad_token_id": 0}
        self.config = transformers.BlipTextConfig(**sizes.text, **ids, is_decoder=False)
        crossed = {**sizes.text, "num_hidden_layers": sizes.fusion_layers}
        fusion = transformers.BlipTextConfig(**crossed, **ids, is_decoder=True)  # with attention to the image
        self.vision_model = SwinTransformer(**sizes.vision)
        self.text_encoder = transformers.BlipTextModel(self.config, add_pooling_layer=False)
        self.fusion_encoder = transformers.BlipTextModel(fusion, add_pooling_layer=False)
        self.fusion_encoder.embeddings = nn.Identity()  # its inputs are states
        wide = int(sizes.text["encoder_hidden_size"])
        width = int(sizes.text["hidden_size"])
        self.vision_proj, self.text_proj = nn.Linear(wide, sizes.width), nn.Linear(width, sizes.width)
        self.itm_head = nn.Sequential(
            nn.Linear(width, 2 * width), nn.LayerNorm(2 * width), nn.GELU(), nn.Linear(2 * width, 2)
        )

    def image_tokens(self, pixels: Tensor) -> Tensor:
        """Normalised pixels (B, 3, S, S) -> (B, 1 + N, W)."""
        patches: Tensor = self.vision_model.forward_features(pixels).flatten(1, 2)  # (B, N, W)
        return torch.cat((patches.mean(dim=1, keepdim=True), patches), dim=1)

    def text_states(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Ids and mask (B, L) -> states of the texts alone (B, L, W)."""
        states: Tensor = self.text_encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        return states

    def match(self, ids: Tensor, mask: Tensor, tokens: Tensor, seen: Tensor) -> Tensor:
        """Texts (P, L) and image tokens (P, T, W) with their masks -> logits (P, 2), [not, matches]."""
        fused: Any = self.fusion_encoder(
            encoder_embeds=self.text_states(ids, mask),
            attention_mask=mask,
            encoder_hidden_states=tokens,
            encoder_attention_mask=seen,
        )
        logits: Tensor = self.itm_head(fused.last_hidden_state[:, 0])
        return logits

"""BLIP-2's contrastive half: 32 vectors of an image, of which the closest one counts, and one of a text."""

from typing import Any

import torch
from torch import Tensor, nn

from hypvl.encoders.huggingface_towers import HuggingFaceImageTower, HuggingFaceTextTower
from hypvl.errors import CheckpointError
from hypvl.geometry.sphere import Sphere
from hypvl.geometry.token_scorer import LargestTokenCosine
from hypvl.models.dual_encoder import DualEncoder
from hypvl.models.matching import Blip2Matching


class ImageTrunk(nn.Module):
    """The image encoder, and the Q-Former that queries it: pixels (B, 3, S, S) -> tokens (B, T * W)."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.vision_model = model.vision_model
        self.query_tokens = model.query_tokens
        self.qformer = model.qformer

    def forward(self, pixels: Tensor) -> Tensor:
        states = self.vision_model(pixel_values=pixels).last_hidden_state  # (B, N, V)
        queries = self.query_tokens.expand(len(states), -1, -1)  # (B, T, W)
        mask = torch.ones(states.shape[:-1], dtype=torch.long, device=states.device)
        out = self.qformer(query_embeds=queries, encoder_hidden_states=states, encoder_attention_mask=mask)
        tokens: Tensor = out.last_hidden_state
        return tokens.flatten(1)


class TextTrunk(nn.Module):
    """The Q-Former on a text alone: ids and mask (B, L) -> its first state (B, W)."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.embeddings = model.embeddings
        self.qformer = model.qformer

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        out = self.qformer(query_embeds=self.embeddings(input_ids=ids), query_length=0, attention_mask=mask)
        first: Tensor = out.last_hidden_state[:, 0]
        return first


class TokenHead(nn.Module):
    """Projects each of T tokens and normalises it: (B, T * W) -> (B, T * D)."""

    def __init__(self, projection: nn.Linear, tokens: int) -> None:
        super().__init__()
        self.projection = projection
        self.tokens = tokens
        self.out_features = tokens * projection.out_features

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.projection(x.unflatten(-1, (self.tokens, -1)))
        return nn.functional.normalize(tokens, dim=-1).flatten(-2)


class RepeatedHead(nn.Module):
    """Projects a vector and writes it T times, once for each token of an image: (B, W) -> (B, T * D)."""

    def __init__(self, projection: nn.Linear, tokens: int) -> None:
        super().__init__()
        self.projection = projection
        self.tokens = tokens
        self.out_features = tokens * projection.out_features

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.normalize(self.projection(x), dim=-1).tile(self.tokens)


def build(model: Any, processor: Any, tokenizer: Any, source: str) -> DualEncoder:
    """A dual encoder of the parts of a ``Blip2ForImageTextRetrieval``."""
    config = model.config
    if not config.qformer_config.use_qformer_text_input:
        raise CheckpointError(
            f"hf:{source}: its Q-Former takes no texts (use_qformer_text_input is false); expected one with "
            "contrastive heads, such as Salesforce/blip2-itm-vit-g."
        )
    tokens, width = config.num_query_tokens, config.qformer_config.hidden_size
    visual = HuggingFaceImageTower(
        ImageTrunk(model),
        lambda trunk, pixels: trunk(pixels),
        width=tokens * width,
        image_size=config.vision_config.image_size,
        processor=processor,
        source=source,
    )
    textual = HuggingFaceTextTower(
        TextTrunk(model),
        lambda trunk, ids, mask: trunk(ids, mask),
        width=width,
        tokenizer=tokenizer,
        vocab_size=config.qformer_config.vocab_size,
    )
    built = DualEncoder(
        visual,
        textual,
        visual_head=lambda _: TokenHead(model.vision_projection, tokens),
        textual_head=lambda _: RepeatedHead(model.text_projection, tokens),
        geometry=Sphere(),
        scorer=LargestTokenCosine(tokens=tokens),
    )
    built.pair_scorer = Blip2Matching(
        model, visual=visual, tokenizer=tokenizer, fill_id=textual.fill_id, name="BLIP-2's matching head"
    )
    return built

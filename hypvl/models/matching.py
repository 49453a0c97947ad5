"""Matching heads, which see an image and a text together: pair scorers of BLIP, BLIP-2 and X-VLM.

They satisfy the ``PairScorer`` of ``hypvl/embedding/pair_scorer.py``. A score is the logit of "matches", by which
the published evaluations rank.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from hypvl.encoders.image_base import ImageEncoder, normalize_pixels


class MatchingHead(ABC):
    """A model with a matching head.

    It is no module, so that a model may carry it (``DualEncoder.pair_scorer``) whose towers are parts of it.

    Args:
        model: Of transformers, or of the same kind; all parts of the head are in it.
        visual: The image encoder of ours over its image half: how images are resized and normalised.
        tokenizer: Texts -> int64 (B, L), filled at the end with its ``pad_token``.
        fill_id: Id that the model gets in place of padding, which its mask hides.
        name: What results call it.
    """

    def __init__(
        self,
        model: Any,
        *,
        visual: ImageEncoder,
        tokenizer: Callable[[Sequence[str]], Tensor],
        fill_id: int,
        name: str,
    ) -> None:
        self.model = model
        self.visual = visual
        self.tokenizer = tokenizer
        self.fill_id = fill_id
        self.name = name

    @property
    def image_size(self) -> int:
        """Side in pixels of the images that it takes."""
        return self.visual.image_size

    @property
    def interpolation(self) -> str:
        """How images are resized for it."""
        return str(self.visual.interpolation)

    @property
    def image_transform(self) -> Any:
        """The transform of another library that it was trained with; None = the evaluator's."""
        return getattr(self.visual, "image_transform", None)

    @property
    def training(self) -> bool:
        """Whether the model is in training mode."""
        return bool(self.model.training)

    def train(self, mode: bool = True) -> Self:
        """Training mode, or evaluation mode, of the model."""
        self.model.train(mode)
        return self

    def parameters(self) -> Iterator[nn.Parameter]:
        """Those of the model."""
        return iter(self.model.parameters())

    def image_states(self, images: Tensor) -> Tensor:
        """uint8 (I, 3, S, S) -> all tokens of the image encoder (I, T, W)."""
        pixels = normalize_pixels(images, self.visual.pixel_mean, self.visual.pixel_std)
        states: Tensor = self.model.vision_model(pixel_values=pixels).last_hidden_state
        return states

    def score(self, states: Tensor, texts: Sequence[str]) -> Tensor:
        """Image tokens (P, T, W) and P texts -> logits that they match, (P,)."""
        tokens = self.tokenizer(texts).to(states.device)  # (P, L)
        pad = getattr(self.tokenizer, "pad_token", 0)
        places = torch.arange(1, tokens.shape[1] + 1, device=tokens.device)
        ends = torch.where(tokens != pad, places, 0).amax(dim=1, keepdim=True)  # (P, 1)
        mask = places <= ends
        ids = torch.where(mask, tokens, self.fill_id)
        seen = torch.ones(states.shape[:-1], dtype=torch.int64, device=states.device)  # (P, T)
        return self.logits(ids, mask.long(), states, seen)[:, 1]

    @abstractmethod
    def logits(self, ids: Tensor, mask: Tensor, states: Tensor, seen: Tensor) -> Tensor:
        """The head: ids and mask (P, L), image tokens (P, T, W) and their mask (P, T) -> (P, 2), [not, matches]."""


class BlipMatching(MatchingHead):
    """The matching head of BLIP: its text encoder attends to the image tokens, and the first token is read out.

    Args:
        model: ``BlipForImageTextRetrieval``.
        first_id: Id in place of the first token of every text; None = as the tokenizer gives it, which is what
            transformers does. BLIP was trained and evaluated with ``[ENC]`` there.
    """

    def __init__(self, model: Any, *, first_id: int | None = None, **settings: Any) -> None:
        super().__init__(model, **settings)
        self.first_id = first_id

    def logits(self, ids: Tensor, mask: Tensor, states: Tensor, seen: Tensor) -> Tensor:
        if self.first_id is not None:
            ids = ids.clone()
            ids[:, 0] = self.first_id
        read = self.model.text_encoder(
            input_ids=ids, attention_mask=mask, encoder_hidden_states=states, encoder_attention_mask=seen
        ).last_hidden_state
        logits: Tensor = self.model.itm_head(read[:, 0])
        return logits


class Blip2Matching(MatchingHead):
    """The matching head of BLIP-2: the mean over query tokens, which attend to the text and the image tokens.

    ``model`` is a ``Blip2ForImageTextRetrieval``.
    """

    def logits(self, ids: Tensor, mask: Tensor, states: Tensor, seen: Tensor) -> Tensor:
        queries = self.model.query_tokens.expand(len(ids), -1, -1)  # (P, Q, W)
        count = queries.shape[1]
        mask = torch.cat((mask.new_ones(len(ids), count), mask), dim=1)  # (P, Q + L)
        read = self.model.qformer(
            query_embeds=self.model.embeddings(input_ids=ids, query_embeds=queries),
            query_length=count,
            attention_mask=mask,
            encoder_hidden_states=states,
            encoder_attention_mask=seen,
        ).last_hidden_state
        logits: Tensor = self.model.itm_head(read[:, :count]).mean(dim=1)
        return logits


class CrossEncoderMatching(MatchingHead):
    """The matching head of X-VLM: later layers of its text encoder attend to the image tokens.

    ``model`` is a :class:`hypvl.models.cross_encoder.CrossEncoder`.
    """

    def image_states(self, images: Tensor) -> Tensor:
        """uint8 (I, 3, S, S) -> the mean of the patches and the patches (I, 1 + N, W)."""
        pixels = normalize_pixels(images, self.visual.pixel_mean, self.visual.pixel_std)
        tokens: Tensor = self.model.image_tokens(pixels)
        return tokens

    def logits(self, ids: Tensor, mask: Tensor, states: Tensor, seen: Tensor) -> Tensor:
        logits: Tensor = self.model.match(ids, mask, states, seen)
        return logits

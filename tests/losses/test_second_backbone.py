"""CE-CLIP's terms on another backbone: an image-text model with cross-attention fusion, in the manner of X-VLM.

The terms see a step only through the PairContext, so that nothing of them knows which model is behind it.
"""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hypvl.geometry.base import Geometry
from hypvl.geometry.scorers import Cosine, Modality
from hypvl.geometry.sphere import Sphere
from hypvl.losses.base import IMAGE, TEXT, Objective, PairContext
from hypvl.losses.cross_modal_rank import CrossModalRank
from hypvl.losses.hard_negative import NEGATIVE_TEXT, HardNegativeContrastive
from hypvl.losses.intra_modal import IntraModal
from hypvl.training.step import Learner

WIDTH, LENGTH, PATCHES, WORDS = 16, 4, 4, 12
SAMPLES, K, STEPS = 6, 2, 12


class Encoders(nn.Module):
    """Tokens of images and of texts, and a fusion in which the words attend to the patches."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, kernel_size=4, stride=4)
        self.words = nn.Embedding(WORDS, WIDTH)
        self.places = nn.Parameter(0.1 * torch.randn(LENGTH, WIDTH))
        self.visual = nn.TransformerEncoderLayer(WIDTH, 2, 2 * WIDTH, dropout=0.0, batch_first=True)
        self.textual = nn.TransformerEncoderLayer(WIDTH, 2, 2 * WIDTH, dropout=0.0, batch_first=True)
        self.fusion = nn.TransformerDecoderLayer(WIDTH, 2, 2 * WIDTH, dropout=0.0, batch_first=True)

    def image_tokens(self, images: Tensor) -> Tensor:
        """uint8 (B, 3, 8, 8) -> (B, PATCHES, WIDTH)."""
        return self.visual(self.patches(images.float() / 255 - 0.5).flatten(2).mT)

    def text_tokens(self, tokens: Tensor) -> Tensor:
        """(B, L) -> (B, LENGTH, WIDTH)."""
        padded = nn.functional.pad(tokens, (0, LENGTH - tokens.shape[1]))
        return self.textual(self.words(padded) + self.places)

    def fused(self, text_tokens: Tensor, image_tokens: Tensor) -> Tensor:
        """One vector for each text with its image, (B, WIDTH)."""
        return self.fusion(text_tokens, image_tokens).mean(1)


class FusedFeatures(nn.Module):
    """The pooled output of the fusion is a text's feature, given its own image; images are pooled patches.

    A text knows its image this way, so this shows that the terms run and train, not a method.
    """

    def __init__(self) -> None:
        super().__init__()
        self.encoders, self.geometry, self.scorer = Encoders(), Sphere(), Cosine()

    def embed(self, features: Tensor, *, modality: Modality) -> Tensor:
        return self.geometry.lift(features)

    def context(self, batch: Mapping[str, Tensor]) -> PairContext:
        patches = self.encoders.image_tokens(batch["image"])
        repeated = patches.repeat_interleave(K, dim=0)  # sample-major, as the negatives
        rows = {
            IMAGE: patches.mean(1),
            TEXT: self.encoders.fused(self.encoders.text_tokens(batch["text"]), patches),
            NEGATIVE_TEXT: self.encoders.fused(self.encoders.text_tokens(batch["negative_text"]), repeated),
        }
        return PairContext(rows, batch=batch, model=self)


class Tokens(Sphere):
    """Embeddings that are all tokens of their image or text, in one row."""

    def lift(self, features: Tensor) -> Tensor:
        return features


class MatchingScorer(Cosine):
    """Image and text are scored together by the fusion; two texts by the cosine of their mean tokens."""

    def __init__(self, encoders: Encoders) -> None:
        super().__init__(log_scale_init=0.0)
        self.encoders, self.head = encoders, nn.Linear(WIDTH, 1)

    def logits(
        self,
        geometry: Geometry,
        query: Tensor,
        key: Tensor,
        *,
        query_modality: Modality,
        key_modality: Modality,
    ) -> Tensor:
        first, second = (x.unflatten(1, (-1, WIDTH)) for x in (query, key))  # (Q, T, WIDTH), (K, T, WIDTH)
        if query_modality == key_modality:
            return self.scale * nn.functional.cosine_similarity(
                first.mean(1)[:, None], second.mean(1)[None], dim=-1
            )
        every_first = first.repeat_interleave(len(second), dim=0)  # all pairs, Q-major
        every_second = second.repeat(len(first), 1, 1)
        texts, images = (
            (every_second, every_first) if query_modality == "image" else (every_first, every_second)
        )
        return self.scale * self.head(self.encoders.fused(texts, images)).view(len(first), len(second))


class Matching(nn.Module):
    """The fusion scores every pair, as X-VLM's matching head does; what a learner asks of a model is here."""

    def __init__(self) -> None:
        super().__init__()
        self.encoders, self.geometry = Encoders(), Tokens()
        self.scorer = MatchingScorer(self.encoders)

    def encode_image(self, images: Tensor, stage: str) -> Tensor:
        return self.encoders.image_tokens(images).flatten(1)

    def encode_text(self, tokens: Tensor, stage: str) -> Tensor:
        return self.encoders.text_tokens(tokens).flatten(1)

    def project(self, trunk: Tensor, *, modality: Modality) -> Tensor:
        return trunk

    def embed(self, features: Tensor, *, modality: Modality) -> Tensor:
        return self.geometry.lift(features)

    def update_(self, *, image: Any, text: Any) -> None:
        """Keeps no running statistics."""

    def context(self, batch: Mapping[str, Tensor]) -> PairContext:
        learner = Learner(self, objective())  # type: ignore[arg-type]  # the DualEncoder it is typed with is one such model
        return learner(batch)[1]


def objective() -> Objective:
    """All three terms as the recipe weighs them."""
    terms = {
        "contrastive": HardNegativeContrastive(),
        "cross_modal_rank": CrossModalRank(),
        "intra_modal": IntraModal(),
    }
    return Objective(terms, {"cross_modal_rank": 0.2, "intra_modal": 0.3})


def batch() -> dict[str, Tensor]:
    """Images of one shade each; captions name it, negatives change a word. The last type is often absent."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (SAMPLES, 3, 1, 1), generator=generator, dtype=torch.uint8).expand(
        -1, -1, 8, 8
    )
    text = torch.stack([torch.tensor([1, 3 + i, 9]) for i in range(SAMPLES)])
    negatives = text.repeat_interleave(K, dim=0).clone()
    negatives[0::K, 1] = 3 + (negatives[0::K, 1] - 2) % SAMPLES
    negatives[1::K, 2] = 10
    mask = torch.ones(SAMPLES, K, dtype=torch.bool)
    mask[::2, 1] = False
    return {"image": image.contiguous(), "text": text, "negative_text": negatives, "negative_mask": mask}


@pytest.mark.parametrize("make", [FusedFeatures, Matching])
def test_terms_train_a_fusion_model(make: type[FusedFeatures] | type[Matching]) -> None:
    torch.manual_seed(0)
    model, terms, data = make(), objective(), batch()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    totals, margins = [], []
    for step in range(STEPS):
        ctx = model.context(data)
        output = terms(ctx)
        assert all(torch.isfinite(value) for value in output.terms.values()), output.terms
        assert step > 2 or all(value != 0 for value in output.terms.values()), output.terms
        optimizer.zero_grad()
        output.total.backward()
        optimizer.step()
        terms.update_(ctx)
        totals.append(output.total.item())
        margin = ctx.own_logits(IMAGE, TEXT) - ctx.own_logits(IMAGE, NEGATIVE_TEXT)
        margins.append(margin[data["negative_mask"]].mean().item())
    assert totals[-1] < 0.8 * totals[0], totals
    assert margins[-1] > margins[0] + 0.5, margins
    rank = terms.terms["cross_modal_rank"]
    assert isinstance(rank, CrossModalRank)
    assert rank.thresholds.shape == (K,) and bool((rank.thresholds > 0).all())
    still = {name for name, x in model.named_parameters() if torch.equal(x.detach(), before[name])}
    assert still == set(), "each part trains, the fusion too"


def test_a_learner_trains_it() -> None:
    """The loop's own module encodes the views, constrains, and updates the thresholds."""
    torch.manual_seed(0)
    model, data = Matching(), batch()
    learner = Learner(model, objective())  # type: ignore[arg-type]  # the DualEncoder it is typed with is one such model
    assert {str(view) for view in learner.views} == {str(view) for view in (IMAGE, TEXT, NEGATIVE_TEXT)}
    learner.constrain_()
    output, ctx = learner(data)
    output.total.backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in learner.parameters())
    learner.update_(ctx)
    assert learner.state_dict()["objective.terms.cross_modal_rank.thresholds"].shape == (K,)

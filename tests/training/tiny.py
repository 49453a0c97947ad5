"""Tiny real models, batches and learners for the training tests."""

from typing import Any

import torch

from hypvl.data.batch import row_lengths
from hypvl.encoders.conv_vit import ConvStemViT
from hypvl.encoders.heads import ProjectionHead, ScaledProjectionHead
from hypvl.encoders.text import TextTransformer
from hypvl.geometry.lorentz import Lorentz
from hypvl.geometry.scorers import Cosine, ExteriorAngle, NegativeDistance
from hypvl.geometry.sphere import Sphere
from hypvl.losses.base import LossTerm, Objective
from hypvl.losses.contrastive import Contrastive
from hypvl.losses.entailment import Entailment
from hypvl.models.dual_encoder import DualEncoder
from hypvl.training.step import Learner

RECIPES = ("clip", "meru", "atmg")


def tiny_model(recipe: str, *, seed: int = 0, vocab_size: int = 50) -> DualEncoder:
    torch.manual_seed(seed)
    head = ProjectionHead if recipe == "clip" else ScaledProjectionHead
    geometry, scorer = {
        "clip": (Sphere, Cosine),
        "meru": (Lorentz, NegativeDistance),
        "atmg": (lambda: Lorentz(curv_init=0.1, learn_curv=False, curv_range=5.0), ExteriorAngle),
    }[recipe]
    return DualEncoder(
        ConvStemViT(16, 1, heads=2, image_size=16, patch_size=4),
        TextTransformer("L1_W16_A2", vocab_size=vocab_size, context_length=8),
        visual_head=lambda width: head(width, 12),
        textual_head=lambda width: head(width, 12),
        geometry=geometry(),
        scorer=scorer(),
    )


def tiny_learner(recipe: str, *, seed: int = 0) -> Learner:
    terms: dict[str, LossTerm] = {"contrastive": Contrastive()}
    weights = {}
    if recipe == "meru":
        terms["entailment"] = Entailment()
        weights["entailment"] = 0.2
    return Learner(tiny_model(recipe, seed=seed), Objective(terms, weights))


def tiny_batch(rows: int = 8, *, seed: int = 0) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    text = torch.randint(1, 49, (rows, 6), generator=generator)
    text[:, -1] = 49  # end of text
    image = torch.randint(0, 256, (rows, 3, 16, 16), generator=generator, dtype=torch.uint8)
    return {"image": image, "text": text, "position": torch.arange(rows), "bad": []}


def ragged_batch(rows: int = 8, *, seed: int = 0) -> dict[str, Any]:
    """Captions of 2 to 5 tokens, with their lengths: encoded in groups."""
    batch, generator = tiny_batch(rows, seed=seed), torch.Generator().manual_seed(seed)
    lengths = torch.randint(2, 6, (rows,), generator=generator).tolist()
    for row, length in zip(batch["text"], lengths, strict=True):
        row[length:], row[length - 1] = 0, 49
    return batch | {"text_lengths": row_lengths(batch["text"])}


def rows_of(batch: dict[str, Any], rank: int, world: int) -> dict[str, Any]:
    """The rows of one rank."""
    size = len(batch["text"]) // world
    return {
        key: value[rank * size : (rank + 1) * size] if hasattr(value, "shape") else value
        for key, value in batch.items()
    }

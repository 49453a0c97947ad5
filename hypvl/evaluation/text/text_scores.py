"""How two texts are compared: by the model's own score of two texts, and by the cosine of flat embeddings."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hypvl.checks import one_of
from hypvl.embedding.cosine import flat_embeddings
from hypvl.embedding.encode import CachedEncoder
from hypvl.embedding.protocol import EvaluableModel, Stage, check_embeddings
from hypvl.embedding.search import pair_scores
from hypvl.errors import UserError

_ROWS = 1 << 14  # whose cosines are taken at once, in fp64
_CHUNK = 128  # pairs scored at once, all of a chunk against all


@dataclass(frozen=True)
class EncodedTexts:
    """Different texts, encoded once each, on the CPU."""

    embeddings: Tensor  # (N, D)
    vectors: Tensor  # (N, W), what cosines are taken of
    row: dict[str, int]  # of each text

    def rows(self, texts: Sequence[str]) -> Tensor:
        """Rows (K,) int64 of some of the texts."""
        return torch.tensor([self.row[text] for text in texts], dtype=torch.int64)


def encode_distinct(
    encoder: CachedEncoder, texts: Sequence[str], *, stage: Stage, label: str
) -> EncodedTexts:
    """Encode each different text once.

    Args:
        stage: Whose rows cosines are taken of; ``embeddings`` are flattened first (``geometry.flatten``: unit vectors
            stay as they are, points of a hyperboloid become tangent vectors at the root).
        label: What the texts are, for messages.

    Raises:
        UserError: when the model's rows hold NaN.
    """
    one_of("stage", stage, Stage)
    distinct = list(dict.fromkeys(texts))
    embeddings = encoder.encode_texts(distinct, label=label)
    check_embeddings(embeddings)
    if stage == "embeddings":
        vectors = flat_embeddings(encoder.model, embeddings)
    else:
        vectors = encoder.encode_texts(distinct, stage=stage, label=label)
        check_embeddings(vectors)
    return EncodedTexts(embeddings, vectors, {text: row for row, text in enumerate(distinct)})


def text_scores(model: EvaluableModel, first: Tensor, second: Tensor) -> list[float]:
    """The model's own score of each row of one tensor with the same row of another: (N, D), (N, D) -> N numbers.

    Both sides are texts. A hyperbolic model ranks two texts by their distance, as it ranks a text and an image; ATMG,
    whose angles need an image and a text, too.
    """
    asked = [[row] for row in range(len(first))]
    scored = pair_scores(
        model, first, second, asked, query_modality="text", key_modality="text", chunk=_CHUNK
    )
    return [score for (score,) in scored]


def text_cosines(first: Tensor, second: Tensor) -> list[float]:
    """Cosine of each row of one tensor with the same row of another; 0 where one is the zero vector."""
    cosines: list[float] = []
    for x, y in zip(first.split(_ROWS), second.split(_ROWS), strict=True):
        cosines += torch.nn.functional.cosine_similarity(x.double(), y.double(), dim=-1, eps=1e-30).tolist()
    return cosines


def refuse_constant(values: Sequence[float], *, cosines: bool, of: str) -> None:
    """UserError when all scores of a set are equal, so that they have no correlation."""
    if len(set(values)) < 2:
        raise UserError(
            f"the model's {'cosines' if cosines else 'scores'} of {of}: all {len(values)} are {values[0]:g}, and a "
            "constant has no correlation; use a model that distinguishes texts."
        )

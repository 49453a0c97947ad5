"""A model of texts alone, and what every evaluator of texts keeps."""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from hypvl.geometry.base import Geometry
from hypvl.geometry.euclidean import Euclidean
from tests.evaluation.contract import EvaluatorContract
from tests.evaluation.fakes import WORDS, FakeTokenizer


class TextModel:
    """Embeds a text as the sum of its colour words, without a tower for images; scores = minus squared distances."""

    context_length = 7
    tokenizer = FakeTokenizer()

    def __init__(
        self, words: Mapping[str, Sequence[float]] = WORDS, *, geometry: Geometry | None = None
    ) -> None:
        rows = [(0.0, 0.0, 0.0), *words.values(), (0.1, 0.2, 0.3)]
        self.table = nn.Parameter(torch.tensor(rows))  # (1 + words + unknown, 3)
        self.geometry = Euclidean() if geometry is None else geometry
        self.training = True

    def encode_text(self, tokens: Tensor, stage: str = "embeddings") -> Tensor:
        assert not self.training
        features = self.table[tokens].sum(dim=1)
        return self.geometry.lift(features) if stage == "embeddings" else features

    def scores(self, query: Tensor, key: Tensor, *, query_modality: str, key_modality: str) -> Tensor:
        assert query_modality == key_modality == "text"
        return self.geometry.ranking_similarity(query, key)

    def pool(self, features: Tensor, *, modality: str) -> Tensor:
        assert modality == "text"
        return self.geometry.pool(features)

    def parameters(self) -> Iterator[nn.Parameter]:
        return iter([self.table])

    def train(self, mode: bool = True) -> None:
        self.training = mode


class Rows(TextModel):
    """Texts are numbers: of the rows of a table of embeddings."""

    def __init__(self, rows: Tensor, *, geometry: Geometry | None = None) -> None:
        super().__init__(geometry=geometry)
        self.table = nn.Parameter(rows)

    def tokenizer(self, texts: Sequence[str]) -> Tensor:  # type: ignore[override]
        return torch.tensor([[int(text) + 1] for text in texts])

    def encode_text(self, tokens: Tensor, stage: str = "embeddings") -> Tensor:
        features = self.table[tokens[:, 0] - 1]
        return self.geometry.lift(features) if stage == "embeddings" else features


class TextEvaluatorContract(EvaluatorContract):
    """As its base, for evaluators that read no images: their model has no tower for them, and ``bad`` says nothing."""

    def model(self) -> TextModel:  # type: ignore[override]
        return TextModel()

    def test_broken_images_are_counted_and_never_help(self, tmp_path) -> None:  # type: ignore[no-untyped-def, override]
        assert self.make(tmp_path)(self.model()).meta["unreadable"] == 0

    test_too_many_broken_images_are_an_error = None  # type: ignore[assignment]

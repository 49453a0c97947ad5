"""Cross-modal transfer of a classifier of entailment: trained with captions as premises, tested with images."""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hypvl.allowlist import configurable
from hypvl.checks import number, whole_number
from hypvl.data.transforms import ResizeCenterCrop
from hypvl.datasets.protocol import check_set
from hypvl.datasets.text.snli_ve import LABELS, EntailmentSet
from hypvl.embedding.cosine import flat_embeddings
from hypvl.embedding.encode import CachedEncoder
from hypvl.embedding.protocol import EvaluableModel, check_embeddings
from hypvl.errors import DataError
from hypvl.evaluation.protocol import EvaluationResult, Evaluator
from hypvl.geometry.sphere import normalize
from hypvl.io.progress import counted
from hypvl.metrics.ranking import accuracy_chance


@dataclass(frozen=True)
class _Rows:
    """Rows of two tables of unit vectors that are premise and hypothesis of each pair, and the labels."""

    premises: Tensor  # (P, W)
    hypotheses: Tensor  # (H, W)
    premise: Tensor  # (N,) int64
    hypothesis: Tensor  # (N,) int64
    labels: Tensor  # (N,) int64

    def inputs(self, rows: Tensor) -> Tensor:
        """[p, h, p + h, p - h, p * h] of some pairs: (B, 5 W)."""
        p, h = self.premises[self.premise[rows]], self.hypotheses[self.hypothesis[rows]]
        return torch.cat([p, h, p + h, p - h, p * h], dim=1)


@configurable("evaluate")
@dataclass
class VisualEntailment(Evaluator):
    """Accuracy of entailment, neutral or contradiction for an image and a hypothesis, learnt without images.

    The encoders are frozen. A perceptron with one hidden layer sees [p, h, p + h, p - h, p * h] of two unit vectors: of
    the hypothesis (h), and of the premise (p), which is a caption in training and an image in the test. The vectors are
    flat embeddings (``geometry.flatten``) of length 1, so that a caption and an image of a hyperbolic model have the
    same radius. The epoch with the best accuracy on dev is used, with captions as premises.

    Metrics, in percent, with chance: ``accuracy`` with images as premises (a row whose image cannot be read is wrong),
    ``text_accuracy`` with captions.

    Items, one per row of the test: ``image``, ``label``, ``predicted`` (None for an unreadable image).

    Args:
        train: Pairs to learn from; their images are not read.
        dev: Pairs to choose the epoch by; likewise.
        test: Pairs with images.
        hidden: Width of the hidden layer.
        epochs: Passes over ``train``.
        batch_size: Pairs a step.
        learning_rate: Of Adam.
        seed: Of weights and order.

    Source: Song et al. 2022, "CLIP Models are Few-shot Learners" (arXiv 2203.07190), from memory: the inputs of the
        classifier; its width and training are choices made here. Not verified against the paper.
    """

    train: EntailmentSet
    dev: EntailmentSet
    test: EntailmentSet
    _: KW_ONLY
    hidden: int = 1024
    epochs: int = 10
    batch_size: int = 1024
    learning_rate: float = 1e-3
    seed: int = 0

    main_metric = "accuracy"

    def __post_init__(self) -> None:
        for name in ("hidden", "epochs", "batch_size"):
            whole_number(name, getattr(self, name), least=1)
        whole_number("seed", self.seed, least=0)
        number("learning_rate", self.learning_rate, above=0)
        for name in ("train", "dev", "test"):
            check_set(getattr(self, name), EntailmentSet, name=name)
        if self.test.images is None:
            raise DataError("test: has no images; give its reader the folder of Flickr30k's images.")
        self._images = self.test.images

    def measure(self, model: EvaluableModel, encoder: CachedEncoder) -> EvaluationResult:
        device = next((p.device for p in model.parameters()), torch.device("cpu"))
        parts = {"train": self.train, "dev": self.dev, "test": self.test}
        train, dev, texts = (_text_rows(encoder, part, name, device) for name, part in parts.items())
        encoded = encoder.encode_images(self._images, transform=ResizeCenterCrop.of(model), label="images")
        check_embeddings(encoded.embeddings)
        row_of = {image: row for row, image in enumerate(encoded.indices.tolist())}
        readable = [row for row, image in enumerate(self.test.image) if image in row_of]
        images = _Rows(
            normalize(flat_embeddings(model, encoded.embeddings)).float().to(device),
            texts.hypotheses,
            torch.tensor([row_of[self.test.image[row]] for row in readable], device=device),
            texts.hypothesis[readable],
            texts.labels[readable],
        )
        network, notes = self._fit(train, dev)
        predicted: list[int | None] = [None] * len(self.test.labels)
        for row, guess in zip(readable, self._predict(network, images), strict=True):
            predicted[row] = guess
        result = EvaluationResult(
            items={
                "image": [self.test.keys[image] for image in self.test.image],
                "label": [LABELS[label] for label in self.test.labels],
                "predicted": [None if guess is None else LABELS[guess] for guess in predicted],
            },
            meta={
                "pairs": len(predicted),
                "training_pairs": len(self.train.labels),
                "images": len(self._images),
                "verified": "not verified against the paper",
                **notes,
                **self.test.notes,
            },
        )
        chance = accuracy_chance(len(LABELS))
        result.add_mean("accuracy", _hits(predicted, self.test.labels), chance=chance)
        result.add_mean(
            "text_accuracy", _hits(self._predict(network, texts), self.test.labels), chance=chance
        )
        return result

    def _fit(self, train: _Rows, dev: _Rows) -> tuple[nn.Module, dict[str, Any]]:
        """The network after the epoch that is best on dev, and which one that is."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            width = train.hypotheses.shape[1]
            network = nn.Sequential(
                nn.Linear(5 * width, self.hidden), nn.ReLU(), nn.Linear(self.hidden, len(LABELS))
            ).to(train.labels.device)
        generator = torch.Generator().manual_seed(self.seed)
        optimizer = torch.optim.Adam(network.parameters(), lr=self.learning_rate)
        accuracies: list[float] = []
        best = {name: value.clone() for name, value in network.state_dict().items()}
        for _ in counted(range(self.epochs), "training the classifier"):
            order = torch.randperm(len(train.labels), generator=generator).to(train.labels.device)
            for rows in order.split(self.batch_size):
                loss = nn.functional.cross_entropy(network(train.inputs(rows)), train.labels[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            hits = _hits(self._predict(network, dev), dev.labels.tolist())
            accuracies.append(sum(hits) / len(hits))
            if accuracies[-1] > max(accuracies[:-1], default=-1.0):
                best = {name: value.clone() for name, value in network.state_dict().items()}
        network.load_state_dict(best)
        epoch = accuracies.index(max(accuracies))
        return network, {"epoch": epoch + 1, "dev_text_accuracy": accuracies[epoch]}

    @torch.no_grad()
    def _predict(self, network: nn.Module, rows: _Rows) -> list[int]:
        every = torch.arange(len(rows.labels), device=rows.labels.device)
        guesses: list[int] = []
        for some in every.split(self.batch_size):
            guesses += network(rows.inputs(some)).argmax(dim=1).tolist()
        return guesses


def _text_rows(encoder: CachedEncoder, data: EntailmentSet, name: str, device: torch.device) -> _Rows:
    """With captions as premises."""
    texts = list(dict.fromkeys([*data.premises, *data.hypotheses]))
    encoded = encoder.encode_texts(texts, label=f"{name} texts")
    check_embeddings(encoded)
    vectors = normalize(flat_embeddings(encoder.model, encoded)).float().to(device)
    place = {text: row for row, text in enumerate(texts)}
    premise, hypothesis = (
        torch.tensor([place[text] for text in part], device=device)
        for part in (data.premises, data.hypotheses)
    )
    return _Rows(vectors, vectors, premise, hypothesis, torch.tensor(list(data.labels), device=device))


def _hits(predicted: Sequence[int | None], labels: Sequence[int]) -> list[float]:
    return [100.0 * (guess == label) for guess, label in zip(predicted, labels, strict=True)]

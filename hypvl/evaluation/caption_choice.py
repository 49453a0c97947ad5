"""Compositionality: does a picture score its own caption above one that is false by a word?"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from hypvl.data.tokenizer import get_tokenizer
from hypvl.data.transforms import ResizeCenterCrop
from hypvl.errors import DataError
from hypvl.evaluation.datasets.images import FileImages
from hypvl.evaluation.features import Encoding, check_scores, encode_images, encode_texts, evaluating
from hypvl.evaluation.protocol import EvaluableModel, EvaluationResult, Evaluator, ImageSource, Tokenizer


@dataclass(frozen=True)
class Choice:
    """A true and a false caption of one picture.

    Attributes:
        image: Position of the picture in the set's ``images``.
        caption: The true one.
        foil: The false one.
        kind: What was changed ("attribute", "relation", ...).
    """

    image: int
    caption: str
    foil: str
    kind: str


class ChoiceSet(Protocol):
    """Pictures with true and false captions.

    Attributes:
        images: Read when asked for.
        choices: In order.
        keys: A name for each picture.
    """

    @property
    def images(self) -> ImageSource: ...
    @property
    def choices(self) -> Sequence[Choice]: ...
    @property
    def keys(self) -> Sequence[str]: ...


@dataclass(frozen=True)
class Choices:
    """A :class:`ChoiceSet` in memory; its pictures are read when asked for."""

    images: ImageSource
    choices: Sequence[Choice]
    keys: Sequence[str]


class CaptionChoice(Evaluator):
    """Share of choices in which the true caption scores higher, by the model's own image-to-text score.

    Metrics, in percent: ``accuracy`` over all choices (the main one) and ``accuracy_<kind>`` of each kind, with
    ``_chance`` of 50. A tie is wrong, and so is a picture that cannot be read.

    Items, one per choice: ``key`` of its picture, ``kind``, ``margin`` (score of the caption minus that of the
    foil, None for an unreadable picture).

    Args:
        dataset: Pictures with choices, at least one.
        encoding: Batches, workers, precision.
        tokenizer: In place of hypvl's own, with the model's context length.

    Raises:
        ValueError: without choices.

    Source: the pairwise accuracy of SugarCrepe (arXiv 2306.14610) and VALSE (arXiv 2112.07566).
    """

    main_metric = "accuracy"

    def __init__(
        self, dataset: ChoiceSet, *, encoding: Encoding | None = None, tokenizer: Tokenizer | None = None
    ) -> None:
        if not dataset.choices:
            raise ValueError("dataset: got no choices; expected at least one.")
        self.dataset = dataset
        self.encoding = Encoding() if encoding is None else encoding
        self.tokenizer = tokenizer

    def __call__(self, model: EvaluableModel) -> EvaluationResult:
        """Encode, compare and count."""
        choices = self.dataset.choices
        texts = list(dict.fromkeys(text for choice in choices for text in (choice.caption, choice.foil)))
        row = {text: i for i, text in enumerate(texts)}
        tokenizer = get_tokenizer(model.context_length) if self.tokenizer is None else self.tokenizer
        keys = encode_texts(model, texts, tokenizer=tokenizer, encoding=self.encoding, label="captions")
        images = encode_images(
            model,
            self.dataset.images,
            transform=ResizeCenterCrop(model.image_size),
            encoding=self.encoding,
        )
        of_image: dict[int, list[int]] = {}
        for i, choice in enumerate(choices):
            of_image.setdefault(choice.image, []).append(i)
        margins: list[float | None] = [None] * len(choices)
        with evaluating(model) as device:
            keys = keys.to(device)
            for embedding, image in zip(images.embeddings, images.indices.tolist(), strict=True):
                asked = of_image.get(image, [])
                rows = [row[text] for i in asked for text in (choices[i].caption, choices[i].foil)]
                if not rows:
                    continue
                scores = model.scores(
                    embedding[None].to(device), keys[rows], query_modality="image", key_modality="text"
                )  # (1, 2 * choices of this picture)
                check_scores(scores)
                pairs = scores.double().cpu().reshape(-1, 2)
                for i, margin in zip(asked, (pairs[:, 0] - pairs[:, 1]).tolist(), strict=True):
                    margins[i] = margin
        return EvaluationResult(
            metrics=self._metrics(margins),
            items={
                "key": [self.dataset.keys[choice.image] for choice in choices],
                "kind": [choice.kind for choice in choices],
                "margin": margins,
            },
            meta={
                "images": len(self.dataset.images),
                "choices": len(choices),
                "unreadable": len(images.bad),
                "unreadable_first": [reason for _, reason in images.bad[:10]],
                "main_metric": self.main_metric,
            },
        )

    def _metrics(self, margins: Sequence[float | None]) -> dict[str, float]:
        right = [margin is not None and margin > 0 for margin in margins]
        kinds = [choice.kind for choice in self.dataset.choices]
        groups = {"accuracy": right}
        for kind in sorted(set(kinds)):
            groups[f"accuracy_{kind}"] = [hit for hit, own in zip(right, kinds, strict=True) if own == kind]
        found: dict[str, float] = {}
        for name, hits in groups.items():
            found[name] = 100.0 * sum(hits) / len(hits)
            found[f"{name}_chance"] = 50.0
        return found


def demo_choices(hierarchy: str | Path) -> Choices:
    """The demo's test scenes with their hard negatives.

    Args:
        hierarchy: ``datasets/demo/eval/hierarchy.json``: ``{"scenes": [{"image", "caption", "negatives":
            [{"type", "text"}]}, ...]}``, pictures relative to the file.

    Raises:
        DataError: when the file is missing or built differently.
    """
    path = Path(hierarchy)
    try:
        scenes: list[dict[str, Any]] = json.loads(path.read_text())["scenes"]
        choices = [
            Choice(image, scene["caption"], negative["text"], negative["type"])
            for image, scene in enumerate(scenes)
            for negative in scene["negatives"]
        ]
        names = [str(scene["image"]) for scene in scenes]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: cannot be read as scenes with negatives ({error}); make it with "
            "scripts/make_demo_data.py."
        ) from error
    return Choices(FileImages([path.parent / name for name in names]), choices, [Path(n).stem for n in names])

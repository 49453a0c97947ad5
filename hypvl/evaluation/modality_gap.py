"""How far apart the pictures and the captions of a data set lie."""

import torch

from hypvl.data.tokenizer import get_tokenizer
from hypvl.data.transforms import Squeeze
from hypvl.errors import DataError
from hypvl.evaluation.features import Encoding, encode_images, encode_texts, evaluating
from hypvl.evaluation.protocol import EvaluableModel, EvaluationResult, Evaluator, RetrievalSet, Tokenizer
from hypvl.evaluation.traversal import check_embeddings
from hypvl.geometry.gap import gap_metrics


class ModalityGap(Evaluator):
    """The metrics of :func:`hypvl.geometry.gap.gap_metrics` over pictures and their captions.

    Each picture that can be read is paired with its first caption. Distances are in flat coordinates: of unit
    vectors on the sphere, in the tangent space at the root of a hyperboloid. ``linear_separability`` is in percent,
    with its ``_chance`` of 50; cosines, distances and ``relative_modality_gap`` are what they are.

    Items, one per pair: ``key`` of the picture, ``cosine`` of the pair.

    Args:
        dataset: Pictures and captions, at least two pictures with one.
        encoding: Batches, workers, precision.
        tokenizer: In place of hypvl's own, with the model's context length.
    """

    main_metric = "centroid_distance"

    def __init__(
        self, dataset: RetrievalSet, *, encoding: Encoding | None = None, tokenizer: Tokenizer | None = None
    ) -> None:
        self.dataset = dataset
        self.encoding = Encoding() if encoding is None else encoding
        self.tokenizer = tokenizer

    def __call__(self, model: EvaluableModel) -> EvaluationResult:
        """Encode and measure."""
        data = self.dataset
        first: dict[int, str] = {}
        for caption, image in zip(data.captions, data.caption_image, strict=True):
            first.setdefault(image, caption)
        tokenizer = get_tokenizer(model.context_length) if self.tokenizer is None else self.tokenizer
        images = encode_images(
            model, data.images, transform=Squeeze(model.image_size), encoding=self.encoding
        )
        rows = [row for row, image in enumerate(images.indices.tolist()) if image in first]
        positions = [int(images.indices[row]) for row in rows]
        if len(rows) < 2:
            raise DataError(
                f"modality gap: {len(rows)} readable pictures with a caption; expected at least 2 to compare."
            )
        captions = [first[image] for image in positions]
        texts = encode_texts(model, captions, tokenizer=tokenizer, encoding=self.encoding, label="captions")
        with evaluating(model) as device:
            x, y = images.embeddings[rows].to(device), texts.to(device)
            check_embeddings(x, y)
            x, y = model.geometry.flatten(x).cpu().double(), model.geometry.flatten(y).cpu().double()
            found = gap_metrics(x, y)
            cosines = torch.nn.functional.cosine_similarity(x, y, dim=-1)
        found["linear_separability"] *= 100.0
        return EvaluationResult(
            metrics={**found, "linear_separability_chance": 50.0},
            items={"key": [data.keys[image] for image in positions], "cosine": cosines.tolist()},
            meta={
                "images": len(data.images),
                "pairs": len(rows),
                "unreadable": len(images.bad),
                "unreadable_first": [reason for _, reason in images.bad[:10]],
                "main_metric": self.main_metric,
            },
        )

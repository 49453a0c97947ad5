"""Distances of images and captions to the root: general items should lie nearer."""

import math
from dataclasses import dataclass

import torch

from hypvl.allowlist import configurable
from hypvl.data.transforms import Squeeze
from hypvl.datasets.protocol import RetrievalSet, check_set
from hypvl.embedding.encode import CachedEncoder
from hypvl.embedding.protocol import EvaluableModel, check_embeddings, evaluating
from hypvl.errors import DataError
from hypvl.evaluation.protocol import EvaluationResult, Evaluator
from hypvl.evaluation.traversal import find_root, radius
from hypvl.metrics.chains import order_hits


@configurable("evaluate")
@dataclass
class EmbeddingRadii(Evaluator):
    """Mean distance to the root of the images and of the captions of a data set.

    Metrics, in flat coordinates (for Lorentz: geodesic distances): ``image_radius`` and ``text_radius``, the
    means; ``image_radius_std`` and ``text_radius_std``; ``text_nearer_root_share`` in percent, over the pairs
    of a caption and its image (a tie counts half), with its ``_chance`` of 50. Where the geometry has no root
    (sphere) the mean of all embeddings stands for it; ``meta["root"]`` says which.

    Items, one per caption: ``key`` of its image, ``text_radius``, ``image_radius``.
    """

    dataset: RetrievalSet

    main_metric = "text_radius"

    def __post_init__(self) -> None:
        check_set(self.dataset, RetrievalSet)

    def measure(self, model: EvaluableModel, encoder: CachedEncoder) -> EvaluationResult:
        data = self.dataset
        texts = encoder.encode_texts(data.captions, label="captions")
        images = encoder.encode_images(data.images, transform=Squeeze.of(model))
        with evaluating(model) as device:
            both = torch.cat([images.embeddings, texts]).to(device)
            check_embeddings(both)
            root, source = find_root(model.geometry, both)
            radii = radius(model.geometry, both, root=root).double().cpu()
        image_radii, text_radii = radii.split([len(images.embeddings), len(texts)])
        image_radius = dict(zip(images.indices.tolist(), image_radii.tolist(), strict=True))
        of_pair = torch.tensor(
            [image_radius.get(image, math.nan) for image in data.caption_image], dtype=torch.float64
        )
        readable = ~of_pair.isnan()
        if not bool(readable.any()):
            raise DataError("radii: no caption has an image that can be read; expected at least one pair.")
        result = EvaluationResult(
            items={
                "key": [data.keys[image] for image in data.caption_image],
                "text_radius": text_radii.tolist(),
                "image_radius": [image_radius.get(image) for image in data.caption_image],
            },
            meta={
                "images": len(data.images),
                "captions": len(data.captions),
                "root": "geometry" if source == "geometry" else "mean of the embeddings",
            },
        )
        for name, radii in (("image_radius", image_radii), ("text_radius", text_radii)):
            result.metrics |= {name: float(radii.mean()), f"{name}_std": float(radii.std(correction=0))}
            result.samples[name] = radii.tolist()
        hits = order_hits(text_radii[readable], of_pair[readable])
        result.add_mean("text_nearer_root_share", hits, chance=50.0)
        return result

"""Captions of an image by level: whether more specific ones lie farther out, and whether the image retrieves them."""

from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor

from hypvl.allowlist import configurable
from hypvl.checks import whole_number
from hypvl.data.transforms import ResizeCenterCrop
from hypvl.datasets.hierarchy.caption_chains import CaptionChains
from hypvl.embedding.encode import CachedEncoder, EncodedImages
from hypvl.embedding.protocol import EvaluableModel, check_embeddings, check_scores, evaluating
from hypvl.evaluation.protocol import EvaluationResult, Evaluator
from hypvl.evaluation.traversal import find_root, radius
from hypvl.geometry.base import Geometry
from hypvl.metrics.chains import along_radii, level_tau

_BLOCK = 64  # images scored at once against every text


@configurable("evaluate")
@dataclass
class HierarCaps(Evaluator):
    """Order and retrieval of chains of captions.

    Metrics: ``tau_d`` (the main one), the mean over the chains of
    :func:`hypvl.metrics.chains.level_tau` of distances to the root, in [-1, 1]; in percent ``ordered_share``,
    chains whose every level lies farther out than the one before; ``precision`` and ``recall`` of the texts of an
    image's own chain among those it retrieves within ``steps`` radius thresholds
    (:func:`~hypvl.metrics.chains.along_radii`; candidates: the texts of all chains, by the model's score), with the
    ``_chance`` of as many random texts; ``level_entailment_share``, where there are cones, neighbouring levels of which
    the general one's cone contains the specific one; and ``radius_level_<n>``, mean distances.

    An unreadable image retrieves nothing: precision and recall are 0.

    Items, one per image: ``key``, ``tau``, ``retrieved`` (texts from the root outwards, None for an unreadable
    image), ``right`` (how many are its own).

    Args:
        steps: Thresholds, at least 2, evenly spaced from the smallest to the largest radius of all texts.
        root_text: A text that stands for the root where the geometry has none (HierarCaps takes the empty text);
            None = the mean of all texts.

    Source: Alper and Averbuch-Elor 2024 (arXiv 2407.08521), section 5.
    Differs: candidates are ranked by the score the model was trained with; the thresholds span the radii of all texts.
    """

    dataset: CaptionChains
    _: KW_ONLY
    steps: int = 50
    root_text: str | None = None

    main_metric = "tau_d"

    def __post_init__(self) -> None:
        whole_number("steps", self.steps, least=2)

    def measure(self, model: EvaluableModel, encoder: CachedEncoder) -> EvaluationResult:
        data = self.dataset
        names = list(dict.fromkeys(text for chain in data.chains for text in chain))
        row = {text: i for i, text in enumerate(names)}
        asked = names if self.root_text is None else [*names, self.root_text]
        texts = encoder.encode_texts(asked, label="captions")
        images = encoder.encode_images(data.images, transform=ResizeCenterCrop.of(model))
        chains = [[row[text] for text in chain] for chain in data.chains]
        with evaluating(model) as device:
            keys = texts[: len(names)].to(device)
            check_embeddings(keys, images.embeddings)
            stored = None if self.root_text is None else texts[-1].to(device)
            root, source = find_root(model.geometry, keys, stored=stored)
            radii = radius(model.geometry, keys, root=root).double().cpu()
            retrieved = self._retrieve(model, images, keys, radii)
            entailed = _entailed(model.geometry, keys, chains)
        by_level = radii[torch.tensor(chains)]  # (N, levels)
        taus = [level_tau(levels) for levels in by_level.tolist()]
        ordered = (100.0 * (by_level.diff(dim=1) > 0).all(1)).tolist()
        own = [set(chain) for chain in chains]
        right = [len(own[i] & set(retrieved.get(i, ()))) for i in range(len(chains))]
        result = EvaluationResult(
            items={
                "key": list(data.keys),
                "tau": taus,
                "retrieved": [
                    [names[j] for j in retrieved[i]] if i in retrieved else None for i in range(len(chains))
                ],
                "right": right,
            },
            meta={
                "images": len(data.images),
                "levels": data.levels,
                "texts": len(names),
                "steps": self.steps,
                "root": {"checkpoint": "root_text", "text pool": "mean of the texts"}.get(source, source),
            },
        )
        counts = [len(texts) for texts in retrieved.values()]
        result.add_mean("tau_d", taus)
        result.add_mean("ordered_share", ordered)
        result.add_mean(
            "precision",
            [100.0 * hits / len(retrieved[i]) if i in retrieved else 0.0 for i, hits in enumerate(right)],
            chance=100.0 * sum(map(len, own)) / len(own) / len(names),
        )
        result.add_mean(
            "recall",
            [100.0 * hits / len(own[i]) for i, hits in enumerate(right)],
            chance=100.0 * sum(counts) / len(counts) / len(names),
        )
        if entailed is not None:
            result.add_mean("level_entailment_share", entailed)
        for level in range(data.levels):
            result.metrics[f"radius_level_{level + 1}"] = float(by_level[:, level].mean())
        return result

    def _retrieve(
        self, model: EvaluableModel, images: EncodedImages, keys: Tensor, radii: Tensor
    ) -> dict[int, list[int]]:
        """Texts that each readable image retrieves: position in the data set -> texts."""
        retrieved: dict[int, list[int]] = {}
        parts = zip(images.embeddings.split(_BLOCK), images.indices.split(_BLOCK), strict=True)
        for block, indices in parts:
            scores = model.scores(block.to(keys.device), keys, query_modality="image", key_modality="text")
            check_scores(scores)
            lists = along_radii(scores.cpu(), radii, steps=self.steps)
            retrieved |= dict(zip(indices.tolist(), lists, strict=True))
        return retrieved


def _entailed(geometry: Geometry, texts: Tensor, chains: list[list[int]]) -> list[float] | None:
    """Per chain, the percentage of neighbouring levels of which the general one's cone contains the specific one."""
    cones = geometry.cones
    if cones is None:
        return None
    rows = torch.tensor(chains, device=texts.device)
    general, specific = texts[rows[:, :-1]], texts[rows[:, 1:]]  # (N, levels - 1, D)
    angle, aperture = cones.exterior_angle(general, specific), cones.half_aperture(general)
    return (100.0 * (angle <= aperture).all(-1).double().mean(1)).tolist()

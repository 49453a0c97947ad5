"""Whether traversals climb a hierarchy of captions, over demo scenes whose captions have known levels."""

from dataclasses import KW_ONLY, dataclass
from pathlib import Path

import torch

from hypvl.allowlist import configurable
from hypvl.checks import one_of, whole_number
from hypvl.data.transforms import ResizeCenterCrop
from hypvl.datasets.demo import leveled_scenes
from hypvl.embedding.encode import CachedEncoder
from hypvl.embedding.protocol import EvaluableModel, evaluating
from hypvl.evaluation.protocol import EvaluationResult, Evaluator
from hypvl.evaluation.traversal import ROOT_NAME, Entailment, hierarchy_shares, radius, traverse


@configurable("evaluate")
@dataclass
class TraversalLevels(Evaluator):
    """Traversals of test scenes over a pool of captions with levels, 1 = the most general.

    Metrics, in percent of the scenes: those of :func:`hypvl.evaluation.traversal.hierarchy_shares`
    (``hierarchy_share`` is the main one) and ``true_text_share``, texts of the traversals that are true of
    their scene. ``radius_level_<n>``: mean distance to the root of the texts of a level, where the geometry has a
    root.

    Items, one per scene: ``key``, ``texts`` (from the image to the root), ``levels`` (None for the root) and
    ``true`` (None for the root).

    Args:
        hierarchy: JSON, ``{"scenes": [{"image", "chain", "captions", "boxes"}, ...]}``, images relative to
            the file (``datasets/demo/eval/hierarchy.json``).
        levels: JSON, ``{"levels": {text: level}}``, which is the pool too
            (``datasets/demo/text_pool_levels.json``).
        limit: Largest number of scenes, at least 1, evenly spread over the file.
        steps: Points of a traversal.
        entailment: As in :func:`hypvl.evaluation.traversal.traverse`.

    Raises:
        MissingDataError: when a file is not there.
        DataError: when it is built differently.
    """

    hierarchy: str | Path
    levels: str | Path
    _: KW_ONLY
    limit: int = 100
    steps: int = 50
    entailment: Entailment = "auto"

    main_metric = "hierarchy_share"

    def __post_init__(self) -> None:
        one_of("entailment", self.entailment, Entailment)
        whole_number("limit", self.limit, least=1)
        self._scenes = leveled_scenes(self.hierarchy, self.levels, limit=self.limit)

    def measure(self, model: EvaluableModel, encoder: CachedEncoder) -> EvaluationResult:
        names = list(self._scenes.levels)
        texts = encoder.encode_texts(names, label="text pool")
        transform = ResizeCenterCrop.of(model)
        images = encoder.encode_images(self._scenes.images, transform=transform, label="scenes")
        with evaluating(model) as device:
            keys = texts.to(device)
            walks = [
                traverse(model, image, keys, names, steps=self.steps, entailment=self.entailment)
                for image in images.embeddings.to(device)
            ]
            radii = self._radii(model, keys)
        paths = [walk.path for walk in walks]
        true = [
            [None if text == ROOT_NAME else text in self._scenes.true_texts[i] for text in path]
            for i, path in zip(images.indices.tolist(), paths, strict=True)
        ]
        truths = [value for row in true for value in row if value is not None]
        each = [hierarchy_shares([path], self._scenes.levels) for path in paths]
        return EvaluationResult(
            metrics={
                **hierarchy_shares(paths, self._scenes.levels),
                "true_text_share": 100.0 * sum(truths) / max(1, len(truths)),
                **radii,
            },
            items={
                "key": [self._scenes.keys[i] for i in images.indices.tolist()],
                "texts": paths,
                "levels": [[self._scenes.levels.get(text) for text in path] for path in paths],
                "true": true,
            },
            meta={
                "scenes": len(paths),
                "pool": len(names),
                "steps": self.steps,
                "root": walks[0].root,
                "entailment_mask": walks[0].entailment_mask,
            },
            samples={name: [shares[name] for shares in each] for name in each[0]},
        )

    def _radii(self, model: EvaluableModel, texts: torch.Tensor) -> dict[str, float]:
        if model.geometry.root(texts.shape[-1]) is None:
            return {}
        radii = radius(model.geometry, texts).double().cpu()
        level = torch.tensor(list(self._scenes.levels.values()))
        return {f"radius_level_{n}": float(radii[level == n].mean()) for n in sorted(set(level.tolist()))}

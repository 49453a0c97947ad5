"""Do traversals climb a hierarchy of captions? Over drawn scenes whose captions have known levels."""

from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any, cast

import torch

from hypvl.allowlist import configurable
from hypvl.checks import one_of
from hypvl.data.transforms import ResizeCenterCrop
from hypvl.datasets.images import FileImages
from hypvl.embedding.encode import CachedEncoder
from hypvl.embedding.protocol import EvaluableModel, evaluating
from hypvl.errors import DataError, MissingDataError
from hypvl.evaluation.protocol import EvaluationResult, Evaluator
from hypvl.evaluation.traversal import (
    ROOT_NAME,
    Entailment,
    TraversableModel,
    hierarchy_shares,
    radius,
    traverse,
)
from hypvl.io.json_text import parse_json


@configurable("evaluate")
@dataclass
class TraversalLevels(Evaluator):
    """Traversals of test scenes over a pool of captions with levels, 1 = the most general.

    Metrics, in percent of the scenes: those of :func:`hypvl.evaluation.traversal.hierarchy_shares`
    (``hierarchy_share`` is the main one) and ``true_text_share``, how many of the texts on the way are true of
    their scene. ``radius_level_<n>``: mean distance to the root of the pool's texts of a level, where the
    geometry has a root.

    Items, one per scene: ``key``, ``texts`` (from the image to the root), ``levels`` (None for the root) and
    ``true`` (None for the root).

    Args:
        hierarchy: JSON, ``{"scenes": [{"image", "chain", "captions", "boxes"}, ...]}``, images relative to
            the file (``datasets/demo/eval/hierarchy.json``).
        levels: JSON, ``{"levels": {text: level}}``, which is the pool too
            (``datasets/demo/text_pool_levels.json``).
        limit: How many scenes, evenly spread over the file.
        steps: Points of a traversal.
        entailment: As in :func:`hypvl.evaluation.traversal.traverse`.

    Raises:
        MissingDataError: when a file is not there.
        DataError: when it is built differently.
        ValueError: for a limit below 1.
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
        if self.limit < 1:
            raise ValueError(f"limit: got {self.limit}; expected at least 1 scene.")
        file = Path(self.hierarchy)
        self._levels = _read_levels(Path(self.levels))
        scenes = _read(file, "scenes", list)
        count = min(self.limit, len(scenes))
        chosen = [scenes[i * len(scenes) // count] for i in range(count)]
        try:
            self._paths = [file.parent / scene["image"] for scene in chosen]
            self._true_texts = [_true_texts(scene) for scene in chosen]
        except (KeyError, TypeError) as error:
            raise DataError(
                f"{file}: a scene without {error}; expected image, chain, captions and boxes in each, as "
                "scripts/make_demo_data.py writes them."
            ) from error

    def measure(self, model: EvaluableModel, encoder: CachedEncoder) -> EvaluationResult:
        """Encode, traverse and count."""
        names = list(self._levels)
        texts = encoder.encode_texts(names, label="text pool")
        images = encoder.encode_images(
            FileImages(self._paths),
            transform=ResizeCenterCrop(model.image_size),
            label="scenes",
        )
        traversable = cast(TraversableModel, model)  # every model of hypvl shows its scorer
        with evaluating(model) as device:
            keys = texts.to(device)
            walks = [
                traverse(
                    traversable,
                    image.to(device),
                    keys,
                    names,
                    steps=self.steps,
                    entailment=self.entailment,
                )
                for image in images.embeddings
            ]
            radii = self._radii(model, keys)
        paths = [walk.path for walk in walks]
        true = [
            [None if text == ROOT_NAME else text in self._true_texts[i] for text in path]
            for i, path in zip(images.indices.tolist(), paths, strict=True)
        ]
        judged = [value for row in true for value in row if value is not None]
        each = [hierarchy_shares([path], self._levels) for path in paths]
        return EvaluationResult(
            metrics={
                **hierarchy_shares(paths, self._levels),
                "true_text_share": 100.0 * sum(judged) / max(1, len(judged)),
                **radii,
            },
            items={
                "key": [self._paths[i].stem for i in images.indices.tolist()],
                "texts": paths,
                "levels": [[self._levels.get(text) for text in path] for path in paths],
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
        level = torch.tensor(list(self._levels.values()))
        return {f"radius_level_{n}": float(radii[level == n].mean()) for n in sorted(set(level.tolist()))}


def _true_texts(scene: dict[str, Any]) -> frozenset[str]:
    """Every text of the file that is true of the scene."""
    captions = [entry["text"] for entry in scene["captions"]]
    return frozenset([*scene["chain"], *captions, *(box["phrase"] for box in scene["boxes"])])


def _read(path: Path, key: str, kind: type) -> Any:
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise MissingDataError(f"{path}: is not there; make it with scripts/make_demo_data.py.") from error
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}); make it with scripts/make_demo_data.py."
        ) from error
    except ValueError as error:
        raise DataError(f"{path}: not JSON ({error}); make it with scripts/make_demo_data.py.") from error
    value = content.get(key) if isinstance(content, dict) else None
    if not isinstance(value, kind) or not value:
        raise DataError(
            f'{path}: has no {{"{key}": ...}} with entries; make it with scripts/make_demo_data.py.'
        )
    return value


def _read_levels(path: Path) -> dict[str, int]:
    levels = _read(path, "levels", dict)
    wrong = next((text for text, level in levels.items() if not isinstance(level, int) or level < 1), None)
    if wrong is not None:
        raise DataError(f"{path}: the level of {wrong!r} is {levels[wrong]!r}; expected 1, 2, ...")
    return levels

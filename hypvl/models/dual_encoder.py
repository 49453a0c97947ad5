"""Every model of hypvl: image and text encoders, their heads, a geometry and a scorer."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from hypvl.allowlist import configurable
from hypvl.checks import one_of
from hypvl.errors import ConfigError
from hypvl.geometry.base import Geometry
from hypvl.geometry.scorers import Modality, Scorer

Stage: TypeAlias = Literal["trunk", "features", "embeddings"]
MakeTransform: TypeAlias = Callable[[int], nn.Module]
MakeAdapter: TypeAlias = Callable[[nn.Module], nn.Module]
MakePooling: TypeAlias = Callable[[int, int], nn.Module]
#: Parts of a model that only training uses: a file may lack them, and a model without them leaves them in the file.
TRAINING_ONLY = ("query_pooling",)


# Properties that only a model with such a tower has
_OF_A_TOWER: dict[str, Modality] = {"image_size": "image", "context_length": "text", "tokenizer": "text"}


class MissingTowerError(ConfigError, AttributeError, ValueError):
    """Images for a model of texts alone, or the reverse. ``hasattr`` is then false; commands end with exit code 2."""


@configurable("model")
class DualEncoder(nn.Module):
    """Encoders -> features -> embeddings -> scores.

    Args:
        visual: Images (B, 3, H, W), uint8 or float in [0, 1] -> (B, visual.width). None = the model has no image
            tower, and no ``visual_head``: it encodes texts only.
        textual: Tokens (B, L) int64 -> (B, textual.width); as its second argument it takes the texts' lengths. Its
            ``tokenizer`` makes the tokens. None = a model of images only.
        visual_head: Makes the image head: ``in_features -> nn.Module``, whose output is the features.
        textual_head: Likewise for texts.
        geometry: Lifts features onto its manifold.
        scorer: Similarity as the model is trained.
        visual_adapter: Puts an adapter into ``visual``, whose own parameters it freezes: ``encoder -> nn.Module``, see
            :func:`hypvl.encoders.adapters.methods.adapted`. None = all of it is trained.
        textual_adapter: Likewise for texts.
        image_transforms: Feature transforms of the flat image embeddings, each a callable ``embed_dim -> nn.Module``
            (see :mod:`hypvl.encoders.feature_transforms`): one, or several that act one after the other. The output
            of each is lifted again. None = the identity.
        text_transforms: Likewise for texts. Prompts of a class are pooled first, or scored one by one, as the scorer
            does.
        query_pooling: Makes what pools an image for a text, ``(visual.width, textual.width) -> nn.Module``, see
            :class:`~hypvl.encoders.query_pooling.QueryPooling`. Only losses use it. None = none.

    Raises:
        ValueError: for parts that do not fit together, such as a scorer of angles with a geometry that has none.
    """

    image_transforms: nn.ModuleList
    text_transforms: nn.ModuleList
    #: What scores an image and a text together (`PairScorer` of ``hypvl/embedding/pair_scorer.py``); None = nothing.
    pair_scorer: Any = None

    def __init__(
        self,
        visual: nn.Module | None,
        textual: nn.Module | None,
        *,
        visual_head: Callable[[int], nn.Module] | None = None,
        textual_head: Callable[[int], nn.Module] | None = None,
        geometry: Geometry,
        scorer: Scorer,
        visual_adapter: MakeAdapter | None = None,
        textual_adapter: MakeAdapter | None = None,
        image_transforms: MakeTransform | Sequence[MakeTransform] | None = None,
        text_transforms: MakeTransform | Sequence[MakeTransform] | None = None,
        query_pooling: MakePooling | None = None,
    ) -> None:
        super().__init__()
        scorer.check_geometry(geometry)
        self.visual = _adapted("visual", visual, visual_adapter)
        self.textual = _adapted("textual", textual, textual_adapter)
        self.visual_head = _make_head("visual", visual, visual_head)
        self.textual_head = _make_head("textual", textual, textual_head)
        self.geometry = geometry
        self.scorer = scorer
        heads = [head for head in (self.visual_head, self.textual_head) if head is not None]
        dims = [int(head.out_features) for head in heads]  # type: ignore[arg-type]  # nn.Module attributes are typed Tensor | Module
        if not dims:
            raise ValueError("visual and textual: both are null; a model needs at least one encoder.")
        if len(set(dims)) > 1:
            raise ValueError(
                f"visual_head and textual_head: out_features {dims[0]} and {dims[1]} differ; "
                "give both the same embedding size."
            )
        self.embed_dim = dims[0]
        self.image_transforms = _make_transforms("image_transforms", image_transforms, self.embed_dim)
        self.text_transforms = _make_transforms("text_transforms", text_transforms, self.embed_dim)
        self.query_pooling = _make_pooling(query_pooling, visual, textual)

    @property
    def image_size(self) -> int:
        """Side in pixels of the images that the model takes. MissingTowerError without an image tower."""
        return int(self.tower("image").image_size)  # type: ignore[arg-type]

    @property
    def context_length(self) -> int:
        """Longest text in tokens. MissingTowerError without a text tower."""
        return int(self.tower("text").context_length)  # type: ignore[arg-type]

    def tower(self, modality: Modality) -> nn.Module:
        """The encoder of a modality. MissingTowerError where the model has none."""
        return self._part(modality)

    def prototypes(self, modality: Modality) -> nn.Module | None:
        """The prototype layer of the head of a modality; None where it has none."""
        layer = getattr(self._part(modality, "_head"), "prototypes", None)
        return layer if isinstance(layer, nn.Module) else None

    def _part(self, modality: Modality, ending: str = "") -> nn.Module:
        """``visual`` or ``textual``, with ``"_head"`` its head."""
        name = ("visual" if _is_image(modality) else "textual") + ending
        part: nn.Module | None = getattr(self, name)
        if part is None:
            raise MissingTowerError(
                f"model.{name}: is null, so this model takes no {modality}s; give it one to encode {modality}s."
            )
        return part

    def __getattr__(self, name: str) -> Any:
        """Called where a property is an AttributeError: says which tower is missing, as nn.Module's would not."""
        if name in _OF_A_TOWER:
            self._part(_OF_A_TOWER[name])
        return super().__getattr__(name)

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of the text encoder: texts -> int64 (B, L), padded with its ``pad_token`` at the end."""
        return self.tower("text").tokenizer

    @property
    def interpolation(self) -> str:
        """How images are resized for the image encoder: "bicubic" or "bilinear"."""
        return str(getattr(self.visual, "interpolation", "bicubic"))

    @property
    def resize_mode(self) -> str:
        """How images become squares in evaluation: "shortest", as the evaluator says, or "squash", squeezed always."""
        return str(getattr(self.visual, "resize_mode", "shortest"))

    @property
    def image_transform(self) -> Any:
        """The transform of another library whose image encoder this is; None = the evaluator's."""
        return getattr(self.visual, "image_transform", None)

    def forward(self, images: Tensor, texts: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings of images (B1, 3, H, W) and of tokens (B2, L): (B1, D) and (B2, D).

        Called by wrappers and tracers: DataParallel, ``torch.jit.trace``, ``torch.export``.
        """
        return self.encode_image(images), self.encode_text(texts)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile the two encoders in place, for every method; the arguments are those of :func:`torch.compile`.

        ``torch.compile(model)`` compiles only ``model(images, texts)``, not other methods such as ``encode_image``.
        """
        for tower in (self.visual, self.textual):
            if tower is not None:
                tower.compile(*args, **kwargs)

    def encode_image(self, images: Tensor, stage: Stage = "embeddings") -> Tensor:
        """Images (B, 3, H, W) -> trunk features (B, width), features (B, D) or embeddings (B, D)."""
        return self._encode("image", stage, images)

    def encode_text(
        self,
        tokens: Tensor,
        stage: Stage = "embeddings",
        *,
        lengths: Sequence[int] | np.ndarray | None = None,
    ) -> Tensor:
        """Tokens (B, L), int64, padded at the end -> trunk features (B, width), features (B, D) or embeddings (B, D).

        ``lengths`` are the tokens of each text, (B,) on the host (``text_lengths`` of a batch): with them padding is
        skipped on every device, without them on the CPU only.
        """
        return self._encode("text", stage, *((tokens,) if lengths is None else (tokens, lengths)))

    def _encode(
        self, modality: Modality, stage: Stage, *inputs: Tensor | Sequence[int] | np.ndarray
    ) -> Tensor:
        if stage not in ("trunk", "features", "embeddings"):
            one_of("stage", stage, Stage)  # refuses it
        trunk: Tensor = self.tower(modality)(*inputs)
        if stage == "trunk":
            return trunk
        features = self.project(trunk, modality=modality)
        return features if stage == "features" else self.embed(features, modality=modality)

    def encode_image_tokens(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) -> all tokens of the trunk (B, T, width); ValueError for a trunk without tokens."""
        tokens: Tensor = self.tower("image")(images, "tokens")
        return tokens

    def read_out(self, tokens: Tensor) -> Tensor:
        """Tokens of :meth:`encode_image_tokens` (B, T, width) -> trunk features of the images (B, width)."""
        trunk: Tensor = self.tower("image").read_out(tokens)  # type: ignore[operator]  # nn.Module attributes
        return trunk

    def pool_queries(self, tokens: Tensor, queries: Tensor, owner: Tensor) -> Tensor:
        """Features of what images show of texts.

        Args:
            tokens: (B, T, visual.width) of the images, by :meth:`encode_image_tokens`.
            queries: (Q, textual.width) trunk features of the texts.
            owner: (Q,) int64, the image of each, 0 to B - 1.

        Returns:
            (Q, D), features of images.

        Raises:
            ValueError: For a model without ``query_pooling``.
        """
        if self.query_pooling is None:
            raise ValueError(
                "model.query_pooling: is null, but the objective pools images for texts; give the model a QueryPooling."
            )
        patches = tokens[:, int(self.tower("image").prefix_tokens) :]  # type: ignore[arg-type]  # nn.Module attributes
        return self.project(self.query_pooling(patches, queries, owner), modality="image")

    def project(self, trunk: Tensor, *, modality: Modality) -> Tensor:
        """Trunk features (B, width) -> features (B, D), through the head of the modality."""
        projected: Tensor = self._part(modality, "_head")(trunk)
        return projected

    def embed(self, features: Tensor, *, modality: Modality) -> Tensor:
        """Features (..., D) -> embeddings (..., D), feature transforms included."""
        transforms = self.transforms(modality)
        return self._transformed(self.geometry.lift(features), transforms)

    def pool(self, features: Tensor, *, modality: Modality) -> Tensor:
        """Features of several prompts or views of one item, (..., P, D) -> one embedding (..., D).

        Feature transforms act on the pooled embedding, as published (average, normalise, centre, normalise).
        """
        transforms = self.transforms(modality)
        return self._transformed(self.geometry.pool(features), transforms)

    def transforms(self, modality: Modality) -> nn.ModuleList:
        """The feature transforms of a modality, in the order they act; empty = the identity."""
        return self.image_transforms if _is_image(modality) else self.text_transforms

    def _transformed(self, embeddings: Tensor, transforms: nn.ModuleList) -> Tensor:
        for transform in transforms:
            embeddings = self.geometry.lift(transform(self.geometry.flatten(embeddings)))
        return embeddings

    def scores(
        self, query: Tensor, key: Tensor, *, query_modality: Modality, key_modality: Modality
    ) -> Tensor:
        """Ranking scores of embeddings: (Q, D), (K, D) -> (Q, K); higher = closer."""
        _is_image(query_modality, "query_modality")
        _is_image(key_modality, "key_modality")
        return self.scorer.scores(
            self.geometry, query, key, query_modality=query_modality, key_modality=key_modality
        )

    def class_scores(self, image_embeddings: Tensor, prompt_features: Sequence[Tensor]) -> Tensor:
        """Scores of images (Q, D) against C classes given by prompt features, C times (P_c, D) -> (Q, C)."""
        return self.scorer.class_scores(
            self.geometry,
            image_embeddings,
            prompt_features,
            embed=partial(self.embed, modality="text"),
            pool=partial(self.pool, modality="text"),
        )

    def class_logits(self, image_embeddings: Tensor, prompt_features: Sequence[Tensor]) -> Tensor:
        """:meth:`class_scores` as logits (Q, C), whose softmax over a row are the model's probabilities."""
        return self.scorer.class_logits(
            self.geometry,
            image_embeddings,
            prompt_features,
            embed=partial(self.embed, modality="text"),
            pool=partial(self.pool, modality="text"),
        )

    @torch.no_grad()
    def update_(self, *, image: Iterable[Tensor] = (), text: Iterable[Tensor] = ()) -> None:
        """Move the running statistics of feature transforms, once after each step not skipped (a collective).

        They are those of the features (B, D) of each view of the step, as they were embedded.
        """
        modalities: tuple[tuple[Modality, Iterable[Tensor]], ...] = (("image", image), ("text", text))
        for modality, views in modalities:
            transforms = self.transforms(modality)
            for features in views if transforms else ():
                flat = self.geometry.flatten(self.geometry.lift(features))
                for i, transform in enumerate(transforms):
                    update = getattr(transform, "update_", None)
                    if update is not None:
                        update(flat)
                    if i + 1 < len(transforms):
                        flat = self.geometry.flatten(self.geometry.lift(transform(flat)))

    @torch.no_grad()
    def constrain_(self) -> None:
        """Clamp curvature, scales and others into their ranges; call it before each step of your own training loop."""
        constrain_modules_(module for module in self.modules() if module is not self)


@torch.no_grad()
def constrain_modules_(modules: Iterable[nn.Module]) -> None:
    """Call ``constrain_()`` of each module that has one."""
    for module in modules:
        constrain = getattr(module, "constrain_", None)
        if constrain is not None:
            constrain()


def _is_image(modality: Modality, argument: str = "modality") -> bool:
    """Whether a modality is images; another one than images and texts is a ValueError that names the argument."""
    if modality not in ("image", "text"):
        one_of(argument, modality, Modality)  # refuses it
    return modality == "image"


def _adapted(name: str, encoder: nn.Module | None, adapter: MakeAdapter | None) -> nn.Module | None:
    """The encoder with its adapter; the message of a ValueError gets the name of the part."""
    if adapter is None:
        return encoder
    if encoder is None:
        raise ValueError(f"{name}_adapter: is set, but {name} is null; give both or none.")
    try:
        return adapter(encoder)
    except ValueError as error:
        raise ValueError(f"{name}_adapter.{error}") from error


def _make_head(
    name: str, encoder: nn.Module | None, make: Callable[[int], nn.Module] | None
) -> nn.Module | None:
    """The head of an encoder; there is one exactly where there is an encoder."""
    if (encoder is None) != (make is None):
        absent, there = (name, f"{name}_head") if encoder is None else (f"{name}_head", name)
        raise ValueError(f"{absent}: is null, but {there} is not; give both, or neither.")
    return None if encoder is None or make is None else _make(f"{name}_head", make, _width(encoder))


def _make(name: str, make: MakeTransform, width: int) -> nn.Module:
    """Call ``make``; the message of a ValueError gets the name of the part."""
    try:
        return make(width)
    except ValueError as error:
        raise ValueError(f"{name}.{error}") from error


def _make_pooling(
    make: MakePooling | None, visual: nn.Module | None, textual: nn.Module | None
) -> nn.Module | None:
    if make is None:
        return None
    if visual is None or textual is None:
        raise ValueError(
            "query_pooling: is set, but the model lacks an encoder; give visual and textual, too, or leave it null."
        )
    try:
        return make(_width(visual), _width(textual))
    except ValueError as error:
        raise ValueError(f"query_pooling.{error}") from error


def _make_transforms(
    name: str, makes: MakeTransform | Sequence[MakeTransform] | None, dim: int
) -> nn.ModuleList:
    if makes is None:
        makes = []
    elif not isinstance(makes, Sequence):
        makes = [makes]
    return nn.ModuleList([_make(f"{name}.{i}", make, dim) for i, make in enumerate(makes)])


def _width(encoder: nn.Module) -> int:
    width = getattr(encoder, "width", None)
    if not isinstance(width, int):
        raise ValueError(
            f"{type(encoder).__name__}: has no integer `width`; an encoder says how wide its output is."
        )
    return width

"""Scores between embeddings as models are trained and evaluated with them.

A scorer turns a geometry into logits (scaled, for training), scores (for ranking) and class scores (for
zero-shot classification). Scales and biases appear in the logits only: they change no ranking.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Literal, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor, nn

from hypvl.allowlist import configurable
from hypvl.checks import number, one_of
from hypvl.geometry.base import Cones, Geometry
from hypvl.numerics import full_precision
from hypvl.ops.tiled_logsumexp.kernels import TileableGeometry, TiledScores

Modality: TypeAlias = Literal["image", "text"]
Ranking: TypeAlias = Literal["trained", "published"]
Embed: TypeAlias = Callable[[Tensor], Tensor]
_PROMPTS_AT_ONCE = 4096
_LOG_SCALE_LIMIT = 80  # exp of it is a number in fp32
LOG_SCALE_INIT = math.log(1 / 0.07)  # as CLIP begins
LOG_SCALE_MAX = 4.6052  # Parity: log 100 as the published code rounds it


class Scorer(nn.Module):
    """Similarity as a model trains it: that of the geometry, unless a subclass says otherwise.

    Args:
        log_scale_init: Starting value of the learned log of the scale of the logits.
        log_scale_max: Its upper bound, kept by :meth:`constrain_`.
        further_log_scales: Name -> starting value of a further log scale, the parameter ``log_scale_<name>``, with the
            same bound. A loss asks for it by name; everything else uses ``log_scale``. None = there is one scale.
        scale_max: Upper bound of the scales themselves, > 0, beyond which their logs get no gradient; None = that of
            the logs alone. Hyper3-CLIP as published has 100, below exp(4.6052): what has reached it stays there.

    Raises:
        ValueError: for a start beyond the bound, or a name that is none.
    """

    no_weight_decay: frozenset[str] = frozenset({"log_scale"})
    #: Whether scores rank as a distance does. Then the root of the space is a key like any other, and a traversal
    #: allows only texts whose cone holds the point, where there are cones.
    ranks_by_distance: bool = True
    log_scale: nn.Parameter

    def __init__(
        self,
        *,
        log_scale_init: float = LOG_SCALE_INIT,
        log_scale_max: float = LOG_SCALE_MAX,
        further_log_scales: Mapping[str, float] | None = None,
        scale_max: float | None = None,
    ) -> None:
        super().__init__()
        self.log_scale_max = number("log_scale_max", log_scale_max, most=_LOG_SCALE_LIMIT)
        self.scale_max = None if scale_max is None else number("scale_max", scale_max, above=0)
        self.log_scale = self._log_scale("log_scale_init", log_scale_init)
        self.further_scales = tuple(further_log_scales or ())
        for name, start in (further_log_scales or {}).items():
            if not name.isidentifier() or hasattr(self, f"log_scale_{name}"):
                raise ValueError(
                    f"further_log_scales: got the name {name!r}; expected a word that is not taken, such as 'local'."
                )
            parameter = self._log_scale(f"further_log_scales.{name}", start)
            self.register_parameter(f"log_scale_{name}", parameter)
        named = (f"log_scale_{name}" for name in self.further_scales)
        self.no_weight_decay = self.no_weight_decay.union(named)

    def _log_scale(self, argument: str, start: float) -> nn.Parameter:
        number(argument, start, least=-_LOG_SCALE_LIMIT)
        if not start <= self.log_scale_max:
            raise ValueError(
                f"{argument}: got {start}, expected at most log_scale_max = {self.log_scale_max}."
            )
        return nn.Parameter(torch.tensor(float(start)))

    @property
    def scale(self) -> Tensor:
        """exp(log_scale), 0-dim, fp32 or better."""
        return self.scale_of(None)

    def scale_of(self, name: str | None) -> Tensor:
        """A further scale by its name, 0-dim, fp32 or better; None = :attr:`scale`. ValueError where it is missing."""
        if name is not None and name not in self.further_scales:
            raise ValueError(
                f"scale: got {name!r}; the scorer has {', '.join(map(repr, self.further_scales)) or 'none'} beside its "
                f"own; give it further_log_scales.{name}."
            )
        log_scale: Tensor = self.log_scale if name is None else getattr(self, f"log_scale_{name}")
        scale = log_scale.to(torch.promote_types(log_scale.dtype, torch.float32)).exp()
        return scale if self.scale_max is None else scale.clamp(max=self.scale_max)

    def stats(self) -> dict[str, float]:
        """The scales, for the log (waits for the device)."""
        return {"logit_scale": self.scale.item()} | {
            f"logit_scale_{name}": self.scale_of(name).item() for name in self.further_scales
        }

    def _similarity(self, geometry: Geometry, query: Tensor, key: Tensor, *modalities: Modality) -> Tensor:
        """Logits before their scale, (Q, D), (K, D) -> (Q, K); ``modalities`` of query and key, checked already."""
        return geometry.pairwise_similarity(query, key)

    def _scaled(self, similarity: Tensor, scale: Tensor) -> Tensor:
        """Logits of similarities."""
        return scale * similarity

    def logits(
        self,
        geometry: Geometry,
        query: Tensor,
        key: Tensor,
        *,
        query_modality: Modality,
        key_modality: Modality,
        scale: str | None = None,
    ) -> Tensor:
        """Scaled scores for training, embeddings (Q, D), (K, D) -> (Q, K); ``scale`` as :meth:`scale_of`."""
        check_modalities(query=query_modality, key=key_modality)
        similarity = self._similarity(geometry, query, key, query_modality, key_modality)
        return self._scaled(similarity, self.scale_of(scale))

    def check_geometry(self, geometry: Geometry) -> None:
        """Refuse a geometry that lacks what this scorer needs (ValueError); asked when a model is built."""

    def tiled_logits(
        self,
        geometry: Geometry,
        query: Tensor,
        key: Tensor,
        *,
        query_modality: Modality,
        key_modality: Modality,
        scale: str | None = None,
    ) -> TiledScores | None:
        """:meth:`logits`, not computed yet, for losses that hold no matrix of them.

        None where they are not a function of one inner product, as in product spaces.
        """
        check_modalities(query=query_modality, key=key_modality)
        if not isinstance(geometry, TileableGeometry):
            return None
        return self._tiled(geometry, query, key, query_modality, key_modality, scale=self.scale_of(scale))

    def _tiled(
        self, geometry: TileableGeometry, query: Tensor, key: Tensor, *modalities: Modality, scale: Tensor
    ) -> TiledScores | None:
        """:meth:`tiled_logits` in a geometry that has tiles."""
        return geometry.tiled_similarity(query, key).scaled(scale)

    def scores(
        self,
        geometry: Geometry,
        query: Tensor,
        key: Tensor,
        *,
        query_modality: Modality,
        key_modality: Modality,
    ) -> Tensor:
        """Scores for ranking, embeddings (Q, D), (K, D) -> (Q, K); higher = closer.

        By default the cheapest one of the geometry: within a row its order is that of the logits, its values are not.
        """
        check_modalities(query=query_modality, key=key_modality)
        return self._ranking(geometry, query, key, query_modality, key_modality)

    def _ranking(self, geometry: Geometry, query: Tensor, key: Tensor, *modalities: Modality) -> Tensor:
        """:meth:`scores`, of modalities that are checked already."""
        return geometry.ranking_similarity(query, key)

    def class_scores(
        self,
        geometry: Geometry,
        image_embeddings: Tensor,
        prompt_features: Sequence[Tensor] | Tensor,
        *,
        embed: Embed | None = None,
        pool: Embed | None = None,
    ) -> Tensor:
        """Scores of images for classes given by the features of their prompts.

        By default the prompts of a class are pooled into one embedding first.

        Args:
            geometry: The space of the embeddings.
            image_embeddings: (Q, D).
            prompt_features: One (P_c, D) per class, or (C, P, D).
            embed: Embeds prompts one by one, (P, D) -> (P, D); None = ``geometry.lift``.
            pool: Embeds the prompts of a class as one, (..., P, D) -> (..., D); None = ``geometry.pool``.

        Returns:
            (Q, C); higher = closer.

        Raises:
            ValueError: There is no class, or a class has no prompts.
        """
        classes = _pooled(prompt_features, geometry.pool if pool is None else pool)  # (C, D)
        return self.scores(geometry, image_embeddings, classes, query_modality="image", key_modality="text")

    def class_logits(
        self,
        geometry: Geometry,
        image_embeddings: Tensor,
        prompt_features: Sequence[Tensor] | Tensor,
        *,
        embed: Embed | None = None,
        pool: Embed | None = None,
    ) -> Tensor:
        """Logits of images for classes, (Q, C): their softmax over a row are the model's probabilities.

        Arguments and errors are those of :meth:`class_scores`.
        """
        classes = _pooled(prompt_features, geometry.pool if pool is None else pool)  # (C, D)
        return self.logits(geometry, image_embeddings, classes, query_modality="image", key_modality="text")

    @torch.no_grad()
    def constrain_(self) -> None:
        """Clamp the scales into their range, in place; called before each training step only."""
        for name in ("log_scale", *(f"log_scale_{name}" for name in self.further_scales)):
            getattr(self, name).clamp_(max=self.log_scale_max)


@configurable("model")
class NegativeDistance(Scorer):
    """Logits -s d(x, y), as MERU; with a flat geometry -s |x - y|^2, as EuCLIP.

    The distance is the negative similarity of the geometry. Lorentz spaces rank by the inner product, which has the
    same order and costs less.

    Args:
        ranking: What a product of spaces ranks by. ``"trained"``: its distance, as the logits. ``"published"``: the
            evaluator of PHyCLIP, the Lorentz inner products of the factors added up. One factor has the same order
            either way; several do not: a far factor then counts by the exponential of its distance.
        log_scale_init, log_scale_max, further_log_scales, scale_max: As :class:`Scorer`.

    Source: MERU (arXiv 2304.09172); EuCLIP (arXiv 2409.13079); PHyCLIP (arXiv 2510.08919).

    Example:
        >>> from hypvl.geometry.lorentz import Lorentz
        >>> space, scorer = Lorentz(), NegativeDistance(log_scale_init=0.0)
        >>> x = space.lift(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
        >>> scorer.logits(space, x, x, query_modality="image", key_modality="text").detach()
        tensor([[-0., -2.],
                [-2., -0.]])
    """

    def __init__(
        self,
        *,
        ranking: Ranking = "trained",
        log_scale_init: float = LOG_SCALE_INIT,
        log_scale_max: float = LOG_SCALE_MAX,
        further_log_scales: Mapping[str, float] | None = None,
        scale_max: float | None = None,
    ) -> None:
        self.ranking = one_of("ranking", ranking, Ranking)
        super().__init__(
            log_scale_init=log_scale_init,
            log_scale_max=log_scale_max,
            further_log_scales=further_log_scales,
            scale_max=scale_max,
        )

    def check_geometry(self, geometry: Geometry) -> None:
        if self.ranking == "published":
            _with_factors(geometry)

    def _ranking(self, geometry: Geometry, query: Tensor, key: Tensor, *modalities: Modality) -> Tensor:
        if self.ranking == "trained":
            return super()._ranking(geometry, query, key, *modalities)
        # Parity: the evaluator of the published code does not rank by the distance that was trained.
        return _with_factors(geometry).mean_inner(query, key)


@runtime_checkable
class HasFactors(Protocol):
    """A geometry of several Lorentz factors, such as :class:`~hypvl.geometry.product.Product`."""

    def mean_inner(self, x: Tensor, y: Tensor) -> Tensor:
        """Mean over factors of the Lorentz inner products of all pairs: (B1, D), (B2, D) -> (B1, B2)."""


def _with_factors(geometry: Geometry) -> HasFactors:
    if not isinstance(geometry, HasFactors):
        raise ValueError(
            f"ranking: got 'published' with {type(geometry).__name__}, expected a product of spaces, whose inner "
            "products it adds up; set model.scorer.ranking to 'trained'."
        )
    return geometry


@configurable("model")
class Cosine(Scorer):
    """Logits s x.y + b of unit embeddings; CLIP has no bias b, SigLIP learns one.

    Args:
        bias_init: Starting value of a learned bias; None = no bias.
        log_scale_init, log_scale_max, further_log_scales: As :class:`Scorer`; SigLIP starts at log 10.

    Example:
        >>> from hypvl.geometry.sphere import Sphere
        >>> x = Sphere().lift(torch.tensor([[3.0, 4.0], [4.0, 3.0]]))
        >>> logits = Cosine().logits(Sphere(), x, x, query_modality="image", key_modality="text")
        >>> logits.argmax(1)
        tensor([0, 1])
    """

    no_weight_decay: frozenset[str] = frozenset({"log_scale", "bias"})
    bias: nn.Parameter | None

    def __init__(
        self,
        *,
        bias_init: float | None = None,
        log_scale_init: float = LOG_SCALE_INIT,
        log_scale_max: float = LOG_SCALE_MAX,
        further_log_scales: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(
            log_scale_init=log_scale_init, log_scale_max=log_scale_max, further_log_scales=further_log_scales
        )
        if bias_init is not None:
            number("bias_init", bias_init)
        self.bias = None if bias_init is None else nn.Parameter(torch.tensor(float(bias_init)))

    def _scaled(self, similarity: Tensor, scale: Tensor) -> Tensor:
        logits = super()._scaled(similarity, scale)
        return logits if self.bias is None else logits + self.bias.to(logits.dtype)

    def _tiled(
        self, geometry: TileableGeometry, query: Tensor, key: Tensor, *modalities: Modality, scale: Tensor
    ) -> TiledScores | None:
        if self.bias is None:
            return super()._tiled(geometry, query, key, *modalities, scale=scale)
        # Where b changes no softmax and is left out, its gradient is 0, not absent.
        bias = self.bias.to(scale.dtype)
        return replace(geometry.tiled_similarity(query, key).scaled(scale + 0 * bias), shift=bias)


@configurable("model")
class ExteriorAngle(Scorer):
    """Logits from the exterior angle phi at the query: +s phi(I, T) for images, -s phi(T, I) for texts.

    Classes are scored prompt by prompt: the mean over a class's prompts of the angle at the image.

    Args:
        ranking: Which angle ranks retrieval. ``"trained"``: the signs of the logits. ``"published"``: the
            reference evaluator's, +phi(I, T) with the angle at the image for text queries, -phi(T, I) with
            the angle at the text for image queries, each the opposite of what that direction was trained on.
        log_scale_init, log_scale_max, further_log_scales: As :class:`Scorer`.

    Source: Ramasinghe et al., "Accept the Modality Gap: An Exploration in the Hyperbolic Space", 2024.
    Differs: the published text -> image ranking is offered by name only; the trained one is the default.

    Example:
        >>> from hypvl.geometry.lorentz import Lorentz
        >>> space = Lorentz()
        >>> image, texts = space.lift(torch.tensor([[1.0, 0.0]])), space.lift(torch.tensor([[0.5, 0.0], [1.0, 1.0]]))
        >>> ExteriorAngle().scores(space, image, texts, query_modality="image", key_modality="text").detach()
        tensor([[3.1416, 1.8875]])
    """

    ranks_by_distance = False  # towards the root every angle is pi, and at the root angles are undefined

    def __init__(
        self,
        *,
        ranking: Ranking = "trained",
        log_scale_init: float = LOG_SCALE_INIT,
        log_scale_max: float = LOG_SCALE_MAX,
        further_log_scales: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(
            log_scale_init=log_scale_init, log_scale_max=log_scale_max, further_log_scales=further_log_scales
        )
        self.ranking = one_of("ranking", ranking, Ranking)

    def check_geometry(self, geometry: Geometry) -> None:
        _with_cones(geometry)

    def _similarity(self, geometry: Geometry, query: Tensor, key: Tensor, *modalities: Modality) -> Tensor:
        query_modality, key_modality = modalities
        if query_modality == key_modality:
            return super()._similarity(geometry, query, key, *modalities)
        return _signed(query_modality, _angle(geometry, query, key))

    def _tiled(
        self, geometry: TileableGeometry, query: Tensor, key: Tensor, *modalities: Modality, scale: Tensor
    ) -> TiledScores | None:
        query_modality, key_modality = modalities
        if query_modality == key_modality:
            return super()._tiled(geometry, query, key, *modalities, scale=scale)
        scores = geometry.tiled_exterior_angle(query, key)
        sign = -1 if query_modality == "text" else 1
        return None if scores is None else scores.scaled(sign * scale)

    def _ranking(self, geometry: Geometry, query: Tensor, key: Tensor, *modalities: Modality) -> Tensor:
        query_modality, key_modality = modalities
        if query_modality == key_modality:
            return super()._ranking(geometry, query, key, *modalities)
        if self.ranking == "trained":
            return self._similarity(geometry, query, key, *modalities)
        # Parity: the evaluator of the published code takes the angle at the key.
        return _signed(key_modality, _angle(geometry, key, query)).mT

    @full_precision
    def class_scores(
        self,
        geometry: Geometry,
        image_embeddings: Tensor,
        prompt_features: Sequence[Tensor] | Tensor,
        *,
        embed: Embed | None = None,
        pool: Embed | None = None,
    ) -> Tensor:
        """Scores per prompt, averaged over the prompts of a class; ``pool`` is not used."""
        embed = geometry.lift if embed is None else embed
        columns = []
        for group in _grouped(_checked(prompt_features)):
            prompts = embed(torch.cat(group))
            angles = _angle(geometry, image_embeddings, prompts)  # (Q, all prompts of the group)
            columns += [part.mean(-1) for part in angles.split([len(p) for p in group], dim=-1)]
        return torch.stack(columns, dim=-1)  # (Q, C)

    def class_logits(
        self,
        geometry: Geometry,
        image_embeddings: Tensor,
        prompt_features: Sequence[Tensor] | Tensor,
        *,
        embed: Embed | None = None,
        pool: Embed | None = None,
    ) -> Tensor:
        """The scaled scores per prompt, averaged over the prompts of a class."""
        scores = self.class_scores(geometry, image_embeddings, prompt_features, embed=embed, pool=pool)
        return self._scaled(scores, self.scale)


def check_modalities(*, query: Modality, key: Modality) -> None:
    """ValueError for other modalities than image and text: a misspelt one would change the sign of the scores."""
    for name, modality in (("query_modality", query), ("key_modality", key)):
        if modality not in ("image", "text"):
            one_of(name, modality, Modality)


def _signed(apex_modality: Modality, angle: Tensor) -> Tensor:
    return angle if apex_modality == "image" else -angle


def _with_cones(geometry: Geometry) -> Cones:
    if geometry.cones is None:
        raise ValueError(
            f"geometry: got {type(geometry).__name__}, which has no exterior angles; use one with cones."
        )
    return geometry.cones


def _angle(geometry: Geometry, apex: Tensor, point: Tensor) -> Tensor:
    return _with_cones(geometry).pairwise_exterior_angle(apex, point)


def _checked(prompt_features: Sequence[Tensor] | Tensor) -> list[Tensor]:
    prompts = list(prompt_features)
    if not prompts:
        raise ValueError("prompt_features: got no class, expected at least one (P, D) tensor.")
    for i, p in enumerate(prompts):
        if p.dim() != 2 or len(p) == 0:
            raise ValueError(
                f"prompt_features[{i}]: got shape {tuple(p.shape)}, expected (P, D) with P >= 1."
            )
    return prompts


def _pooled(prompt_features: Sequence[Tensor] | Tensor, pool: Embed) -> Tensor:
    """The prompts of each class as one embedding, (C, D)."""
    prompts = _checked(prompt_features)
    if len({len(p) for p in prompts}) == 1:
        return pool(torch.stack(prompts))
    return torch.stack([pool(p) for p in prompts])


def _grouped(prompts: list[Tensor]) -> list[list[Tensor]]:
    """Classes in order, in groups of bounded size: memory does not grow with the number of classes."""
    groups: list[list[Tensor]] = [[]]
    size = 0
    for p in prompts:
        if size + len(p) > _PROMPTS_AT_ONCE and groups[-1]:
            groups.append([])
            size = 0
        groups[-1].append(p)
        size += len(p)
    return groups

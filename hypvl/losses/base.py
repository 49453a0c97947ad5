"""The contract of objectives: what a loss term may ask for, and how terms are summed.

A term declares the views it needs; the learner encodes each view once and passes a :class:`PairContext` to the terms.
``forward`` of a term changes nothing; its state (queues, centres) changes in ``update_``.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn

from hypvl import distributed
from hypvl.allowlist import configurable
from hypvl.checks import number, one_of, whole_number
from hypvl.geometry.base import Geometry
from hypvl.geometry.scorers import Modality, Scorer
from hypvl.losses.owners import OwnedRows, check_uneven, owner_entry
from hypvl.losses.ring import Gather
from hypvl.losses.views import IMAGE, STUDENT, TEXT, View

_SAMPLES = 64  # of a block whose samples are scored with all keys of the block, to take the diagonal


class Model(Protocol):
    """The part of a model that a loss may use.

    Models that distillation compares also have ``embed_dim``, the size of their features, and
    ``prototypes(modality)``, the prototype layer of a head or None; those that pool images for texts have
    ``query_pooling`` and ``pool_queries(tokens, queries, owner)``.
    """

    geometry: Geometry
    scorer: Scorer

    def embed(self, features: Tensor, *, modality: Modality) -> Tensor: ...


class MissingInputError(KeyError, ValueError):
    """A view or an entry of the batch that a term needs is missing; the message is a sentence."""

    def __str__(self) -> str:
        return str(self.args[0])  # a KeyError would put quotes around it


class PairContext(OwnedRows):
    """One step as loss terms see it: features and embeddings of the declared views, the batch and the model.

    It is made of the features of each view on this rank: (B, D) with a row for each of the B samples, or (M, D) where a
    sample has any number of rows (boxes), whose samples the batch names (``box_owner``). M differs between ranks and
    may be 0; B does not. ``teachers`` are the other encoders of the views, by name; ``trunks`` are what the features
    were projected from, see :meth:`trunk`. With ``gather="ring"`` the rows of other ranks are never here: they pass by
    (:mod:`hypvl.losses.ring`).
    """

    def __init__(
        self,
        features: Mapping[View, Tensor],
        *,
        batch: Mapping[str, Any],
        model: Model,
        teachers: Mapping[str, Model] | None = None,
        trunks: Mapping[View, Tensor] | None = None,
        gather: Gather = "all",
    ) -> None:
        super().__init__()
        self.ring = one_of("gather", gather, Gather) == "ring" and distributed.world_size() > 1
        self.batch = batch
        self.model = model
        self._models = {**(teachers if teachers is not None else {}), STUDENT: model}
        self._features = dict(features)
        self._trunks = dict(trunks if trunks is not None else {})
        self._cache: dict[tuple[str, View, bool], Tensor] = {}
        self._replaced: dict[tuple[str, View, bool], Tensor] = {}

    def features(self, view: View, gathered: bool = False) -> Tensor:
        """Features of a view: (B, D) or (M, D), or those of all ranks in rank order, (N, D)."""
        return self._get("features", view, gathered)

    def embeddings(self, view: View, gathered: bool = False) -> Tensor:
        """Embeddings of a view: (B, D) or (M, D), or those of all ranks in rank order, (N, D)."""
        return self._get("embeddings", view, gathered)

    def trunk(self, view: View) -> Tensor:
        """Output of the encoder of a view before its head: (B, W), or all tokens (B, T, W) of a view in ``tokens``.

        The view was encoded once, for these and for its features. MissingInputError where it was not encoded.
        """
        if view not in self._trunks:
            raise MissingInputError(
                f"view {view}: the output of its encoder is not there; a term must declare the view in `needs`. "
                f"There are: {', '.join(map(str, self._trunks)) or 'none'}."
            )
        return self._trunks[view]

    def pooled(self, image: View, query: View) -> View:
        """What the image of each row of ``query`` shows of its text, as a view of images with the rows of ``query``.

        The model pools the tokens of ``image`` once, whoever asks. ValueError where it has no ``query_pooling``.
        """
        view = View("image", query.source, query.encoder, query.grad, query.draw)
        if view not in self._features:
            owner = self.owner(query)
            if owner is None:
                owner = torch.arange(len(self.features(query)), device=self.features(query).device)
            pool = cast(Any, self.model).pool_queries
            self._features[view] = pool(self.trunk(image), self.trunk(query), owner)
        return view

    def model_of(self, view: View) -> Model:
        """The encoder of a view: the model that is trained, or a teacher. MissingInputError for an unknown name."""
        return find_encoder(self._models, view)

    def prototype_logits(
        self, view: View, *, layer_of: View | None = None, share: Tensor | None = None
    ) -> Tensor:
        """Features of a view compared with prototypes, (B, K).

        The prototype layer is that of the view's own head; with ``layer_of`` that of this view's, whose weights then
        get no gradient. ``share`` is a factor of the gradient of the layer's weights, 0-dim; None = 1.
        """
        layer = find_prototypes(self._models, view if layer_of is None else layer_of)
        if layer_of is None and share is None:
            return layer(self.features(view))
        weights = {name: parameter.detach() for name, parameter in layer.named_parameters()}
        if layer_of is None and share is not None:
            for name, parameter in layer.named_parameters():
                fixed = weights[name]
                weights[name] = fixed + share.to(fixed.dtype) * (parameter - fixed)
        return torch.func.functional_call(layer, weights, (self.features(view),))

    def score(
        self, queries: Tensor, keys: Tensor, *, query: View, key: View, scale: str | None = None
    ) -> Tensor:
        """Scaled scores of embeddings (Q, D), (K, D) of two views -> (Q, K); higher = closer.

        ``scale`` names a further scale of the scorer; None = its own.
        """
        further = {} if scale is None else {"scale": scale}  # a scorer of the user's own may have none
        return self.model.scorer.logits(
            self.model.geometry, queries, keys, query_modality=query.modality, key_modality=key.modality, **further
        )  # fmt: skip

    def logits(self, query: View, key: View) -> Tensor:
        """Scaled scores of the local queries with the keys of every rank, (B, N)."""
        return self.score(self.embeddings(query), self.embeddings(key, gathered=True), query=query, key=key)

    def own_logits(self, query: View, key: View) -> Tensor:
        """Scaled scores of each local sample with its own keys only.

        One row of ``query`` per sample, (B, D), and K rows of ``key``, sample-major, (B*K, D), give (B, K). Cost and
        memory grow with B K, not with its square.

        Raises:
            ValueError: when the rows of ``key`` are not a multiple of those of ``query``.
        """
        queries, keys = self.embeddings(query), self.embeddings(key)
        for view in (query, key):
            if self.owner(view) is not None:
                raise ValueError(
                    f"{view}: samples have different numbers of rows ({owner_entry(view)}); expected the same number K "
                    "for each."
                )
        count, rest = divmod(len(keys), len(queries))
        if rest or not count:
            raise ValueError(
                f"{key}: got {len(keys)} rows for {len(queries)} samples; expected the same number K for each."
            )
        blocks = []
        for some, theirs in zip(queries.split(_SAMPLES), keys.split(_SAMPLES * count), strict=True):
            logits = self.score(some, theirs, query=query, key=key)  # (b, b*K)
            blocks.append(logits.unflatten(1, (-1, count)).diagonal().mT)  # (b, K)
        return torch.cat(blocks)

    def similarity(self, first: View, second: View) -> Tensor:
        """The geometry's similarities of local rows with the rows of every rank, (B, N); without a scale."""
        return self.model.geometry.pairwise_similarity(
            self.embeddings(first), self.embeddings(second, gathered=True)
        )

    def with_embeddings(self, view: View, local: Tensor, gathered: Tensor) -> "PairContext":
        """The same step with other embeddings of a view: (B, D) of this rank and (N, D) of every rank."""
        other = copy.copy(self)  # both share the cache of the other views
        other._replaced = {
            **self._replaced,
            ("embeddings", view, False): local,
            ("embeddings", view, True): gathered,
        }
        return other

    def entry(self, name: str, *, meaning: str, otherwise: str) -> Any:
        """An entry of the batch.

        Raises:
            MissingInputError: when the batch lacks it: ``meaning`` says what it is, ``otherwise`` what to do if the
                data cannot give it.
        """
        if name not in self.batch:
            raise MissingInputError(
                f"batch: has no {name!r}, {meaning}; it has {', '.join(map(str, self.batch)) or 'nothing'}; "
                f"let the data give it, {otherwise}."
            )
        return self.batch[name]

    def _get(self, kind: str, view: View, gathered: bool) -> Tensor:
        key = (kind, view, gathered)
        if key in self._replaced:
            return self._replaced[key]
        if key not in self._cache:
            if gathered and self.ring:
                raise ValueError(
                    f"view {view}: a term asks for the {kind} of every rank, which train.gather='ring' never holds; "
                    "set train.gather to 'all'."
                )
            if gathered:
                local = self._get(kind, view, False)
                self._cache[key] = self.gather(local, view)
            elif view not in self._features:
                raise MissingInputError(
                    f"view {view}: not encoded for this step; a term must declare it in `needs`. "
                    f"Declared: {', '.join(map(str, self._features)) or 'none'}."
                )
            elif kind == "features":
                self._cache[key] = self._features[view]
            else:
                model = self.model_of(view)
                self._cache[key] = model.embed(self._features[view], modality=view.modality)
        return self._cache[key]


def find_encoder(models: Mapping[str, Model], view: View) -> Model:
    """The encoder of a view. Raises MissingInputError, naming those there are."""
    if view.encoder not in models:
        names = ", ".join(sorted(models))
        raise MissingInputError(
            f"view {view}: there is no encoder {view.encoder!r}; expected one of {names}, or add it to train.teachers."
        )
    return models[view.encoder]


def find_prototypes(models: Mapping[str, Model], view: View) -> nn.Module:
    """The prototype layer of a view's head. Raises MissingInputError where it has none."""
    layer = getattr(find_encoder(models, view), "prototypes", lambda modality: None)(view.modality)
    if layer is None:
        name = "visual_head" if view.modality == "image" else "textual_head"
        raise MissingInputError(
            f"view {view}: its head has no prototype layer, which this loss compares features with; give the model a "
            f"{name} with prototypes, such as DINOHead(prototypes=65536)."
        )
    return layer


def check_scale(models: Mapping[str, Model], scale: str | None) -> None:
    """ValueError for the name of a scale that the scorer of the trained model does not have."""
    if scale is not None:
        models[STUDENT].scorer.scale_of(scale)


def check_same_width(models: Mapping[str, Model], *views: View) -> None:
    """ValueError for views whose features have different sizes."""
    sizes = {view: getattr(find_encoder(models, view), "embed_dim", None) for view in views}
    known = {size for size in sizes.values() if size is not None}
    if len(known) > 1:
        listed = ", ".join(f"{view}: {size}" for view, size in sizes.items())
        raise ValueError(
            f"features of different sizes are compared ({listed}); give the student a head whose out_features is "
            "that of the teacher."
        )


def check_width(models: Mapping[str, Model], view: View, size: int, *, name: str = "dim") -> None:
    """ValueError for a view whose features have another size than the argument ``name`` of the term says."""
    found = getattr(find_encoder(models, view), "embed_dim", None)
    if found is not None and found != size:
        raise ValueError(
            f"{name}: got {size}, but the features of {view} have size {found}; give it that number."
        )


class Changed(NamedTuple):
    """A buffer that a step may change."""

    module: nn.Module
    name: str  # of the module's buffer
    rows: Tensor | None = None  # only these rows of it, (n,) int64 on its device; None = all


class LossTerm(nn.Module, ABC):
    """One idea, one number.

    The mean over ranks of what ``forward`` returns equals the one-process value on the joined batch,
    gradients included.
    """

    needs: frozenset[View] = frozenset()
    episode_needs: frozenset[View] = (
        frozenset()
    )  # views asked for between steps, see hypvl/losses/episodes.py
    entries: frozenset[str] = frozenset()  # of the batch, beside the inputs of the views: labels, masks
    #: Whether views may have any number of rows for each sample (boxes): means over rows are then those of
    #: :meth:`PairContext.mean`, and rows of two views are brought together by :meth:`PairContext.paired`.
    uneven: bool = False
    #: Whether the term takes no embeddings or features of other ranks but through
    #: :func:`~hypvl.losses.info_nce.info_nce` or :mod:`hypvl.losses.ring`: only then it works with train.gather="ring".
    rings: bool = False
    #: Views of images, among ``needs``, of which the term takes all tokens (:meth:`PairContext.trunk`).
    tokens: frozenset[View] = frozenset()

    def declare(self, *views: str | View) -> tuple[View, ...]:
        """Parse views and ask for them: they become the term's ``needs``."""
        parsed = tuple(View.parse(view) for view in views)
        self.needs = frozenset(parsed)
        return parsed

    def check(self, models: Mapping[str, Model]) -> None:
        """Refuse encoders that the term cannot work with; called once, before anything is written.

        Raises:
            ValueError: naming what does not fit: features of other sizes, a head without prototypes.
        """
        for view in self.needs:
            find_encoder(models, view)

    def check_batch(self, samples: int) -> None:  # most terms take any
        """Refuse batches of so many samples over all ranks (ValueError); called once, before anything is written."""

    def check_classes(self, count: int, models: Mapping[str, Model]) -> None:  # most terms have no classes
        """Refuse labels of 0 to ``count`` - 1 (ValueError); called once, where the data know their classes."""

    @abstractmethod
    def forward(self, ctx: PairContext) -> Tensor:
        """The value, 0-dim. Pure: changes no state."""

    def update_(self, ctx: PairContext) -> None:
        """Change queues, centres, thresholds: once after an optimizer step that was not skipped, without gradient."""

    def changes(self, contexts: Sequence[PairContext]) -> list[Changed]:
        """What :meth:`update_` with these contexts and :meth:`step_` may change: it is kept for a skipped step.

        All buffers of the term, unless a term says less.
        """
        return [
            Changed(part, name) for part in self.modules() for name, _ in part.named_buffers(recurse=False)
        ]

    def step_(self) -> None:
        """Count such a step, after its ``update_`` of each accumulated part."""

    def begin_epoch_(self) -> None:
        """Called when the data begins an epoch."""


class PairTerm(LossTerm):
    """A term about two views, ``first`` and ``second``, whose rows belong together."""

    def __init__(self, *, first: str | View = IMAGE, second: str | View = TEXT) -> None:
        super().__init__()
        self.first, self.second = self.declare(first, second)


class LossOutput(NamedTuple):
    """Value of an objective on one batch (a tuple, so that DDP finds its tensors)."""

    total: Tensor  # weighted sum, 0-dim, with gradient
    terms: dict[str, Tensor]  # each term's unweighted value, detached


@configurable("train")
class Objective(nn.Module):
    """Named, weighted loss terms, summed.

    Args:
        terms: Name -> term.
        weights: Name -> weight; names left out weigh 1.
        warmup: Name -> (first, last): the weight is 0 up to the step ``first``, rises linearly, and has its full value
            from the step ``last`` on. Names left out have their full weight from the start.

    Raises:
        ValueError: for no terms, a weight or warm-up without a term, or steps that do not rise.
    """

    steps: Tensor  # that were not skipped, 0-dim int64; in checkpoints only when there is a warm-up

    def __init__(
        self,
        terms: Mapping[str, LossTerm],
        weights: Mapping[str, float] | None = None,
        *,
        warmup: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        super().__init__()
        if not terms:
            raise ValueError("terms: got none; an objective needs at least one named loss term.")
        weights = dict(weights) if weights is not None else {}
        if unknown := set(weights) - set(terms):
            raise ValueError(f"weights: {sorted(unknown)} name no term; terms are {sorted(terms)}.")
        self.terms = nn.ModuleDict(terms)
        self.weights = {name: number(f"weights.{name}", weights.get(name, 1.0), least=0) for name in terms}
        self.warmup = {name: tuple(steps) for name, steps in (warmup if warmup is not None else {}).items()}
        if unknown := set(self.warmup) - set(terms):
            raise ValueError(f"warmup: {sorted(unknown)} name no term; terms are {sorted(terms)}.")
        for name, between in self.warmup.items():
            whole = [whole_number(f"warmup.{name}", step, least=0) for step in between]
            if len(whole) != 2 or not whole[0] < whole[1]:
                raise ValueError(
                    f"warmup.{name}: got {list(between)}; expected two steps, 0 <= first < last."
                )
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64), persistent=bool(self.warmup))

    @property
    def needs(self) -> frozenset[View]:
        """Every view that a term asks for."""
        return frozenset().union(*(term.needs for term in self._terms().values()))

    @property
    def tokens(self) -> frozenset[View]:
        """Every view of which a term asks for all tokens."""
        return frozenset().union(*(term.tokens for term in self._terms().values()))

    @property
    def views(self) -> frozenset[View]:
        """Every view that a term asks for in a step or between steps."""
        return self.needs.union(*(term.episode_needs for term in self._terms().values()))

    @property
    def entries(self) -> frozenset[str]:
        """Every entry of the batch that a term asks for beside its views."""
        return frozenset().union(*(term.entries for term in self._terms().values()))

    def check(self, models: Mapping[str, Model]) -> None:
        """Let every term refuse the encoders; a ValueError gets the name of the term."""
        self._check(lambda term: term.check(models))

    def check_batch(self, samples: int) -> None:
        """Let every term refuse the samples of a step over all ranks, as :meth:`check`."""
        self._check(lambda term: term.check_batch(samples))

    def check_classes(self, count: int, models: Mapping[str, Model]) -> None:
        """Let every term refuse labels of so many classes, as :meth:`check`."""
        self._check(lambda term: term.check_classes(count, models))

    def _check(self, check: Callable[[LossTerm], None]) -> None:
        for name, term in self._terms().items():
            try:
                check(term)
            except ValueError as error:
                raise ValueError(f"terms.{name}: {error}") from error

    def forward(self, ctx: PairContext) -> LossOutput:
        """The weighted sum and the terms. A term of weight 0 is computed as well, so that it is logged.

        The sum and all gradients are NaN if a row of any needed view is not finite. A term may mask such a row out (an
        invalid negative), but the encoder that computed it has diverged.
        """
        self._check(
            lambda term: check_uneven(ctx, () if term.uneven else term.needs, name=type(term).__name__)
        )
        values = {name: term(ctx) for name, term in self._terms().items()}
        total = torch.stack([self.weight(name) * value for name, value in values.items()]).sum()
        for view in self.needs:
            total = total * torch.where(ctx.features(view).isfinite().all(), 1.0, torch.nan).to(total)
        return LossOutput(total, {name: value.detach() for name, value in values.items()})

    def weight(self, name: str) -> float | Tensor:
        """The weight of a term in the coming step."""
        if name not in self.warmup:
            return self.weights[name]
        first, last = self.warmup[name]
        return self.weights[name] * ((self.steps - first) / (last - first)).clamp(0, 1)

    def update_(self, *contexts: PairContext) -> None:
        """Let each term change its state, after an optimizer step that was not skipped.

        With one context, or that of each accumulated part of the step in order; both count as one step.
        """
        with torch.no_grad():
            self.steps += 1
            for ctx in contexts:
                for term in self._terms().values():
                    term.update_(ctx)
            for term in self._terms().values():
                term.step_()

    def changes(self, contexts: Sequence[PairContext]) -> list[Changed]:
        """What :meth:`update_` with these contexts may change."""
        terms = (change for term in self._terms().values() for change in term.changes(contexts))
        return [Changed(self, "steps"), *terms]

    def begin_epoch_(self) -> None:
        """Tell each term that the data begins an epoch."""
        for term in self._terms().values():
            term.begin_epoch_()

    def _terms(self) -> dict[str, LossTerm]:
        return dict(self.terms.items())  # type: ignore[arg-type]  # ModuleDict is typed Module

"""ProtoCLIP: samples are classified by the clusters of the other modality, whose centres are translated back."""

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hypvl.allowlist import configurable
from hypvl.checks import MOST_FEATURES, number, whole_number
from hypvl.geometry.scorers import LOG_SCALE_MAX
from hypvl.geometry.sphere import normalize
from hypvl.losses.base import IMAGE, TEXT, Changed, Model, PairContext, View, check_width, find_encoder
from hypvl.losses.batch_norm import RunningBatchNorm
from hypvl.losses.episodes import Cluster, EpisodicTerm
from hypvl.numerics import full_precision, inner_products


@full_precision
def prototype_loss(
    x: Tensor,
    centroids: Tensor,
    labels: Tensor,
    *,
    scale: float | Tensor,
    teacher_centroids: Tensor | None = None,
    target_temperature: float | None = None,
) -> Tensor:
    """Cross entropy of each row's scores with centroids, against its cluster or the clusters near it.

    Formula: ``-mean_i sum_k p_ik log softmax_k(scale x_i . c_k)``, where p_i is 1 at the row's label, or
    ``softmax_k(t_y . t_k / tau)`` with the teacher's centroids t and the label y of row i.

    Args:
        x: (B, D) unit rows of the student.
        centroids: c, (K, D), of the student's own space; they get no gradient.
        labels: (B,) int64, the cluster of each row in the teacher's space.
        scale: Inverse temperature > 0, a float or 0-dim.
        teacher_centroids: t, (K, D'); needed with ``target_temperature``.
        target_temperature: tau > 0; None = the label alone is the target.

    Returns:
        0-dim, >= 0.

    Source: Chen et al., ProtoCLIP, 2022 (arXiv 2206.10996), section 3.2.

    Example:
        >>> x = torch.eye(2)
        >>> prototype_loss(torch.zeros(2, 2), x, torch.tensor([0, 1]), scale=1.0)  # log 2
        tensor(0.6931)
    """
    log_probabilities = F.log_softmax(scale * inner_products(x, centroids.detach()), dim=-1)  # (B, K)
    if target_temperature is None:
        return F.nll_loss(log_probabilities, labels)
    if teacher_centroids is None:
        raise ValueError(
            "teacher_centroids: got None; expected the centroids that target_temperature compares."
        )
    similarity = inner_products(teacher_centroids[labels], teacher_centroids)  # (B, K)
    targets = torch.softmax(similarity.detach() / target_temperature, dim=-1)
    return -(targets * log_probabilities).sum(-1).mean()


def back_translate(features: Tensor, labels: Tensor, *, count: int) -> Tensor:
    """Mean of the rows of each cluster: centres of another modality's clusters in the space of ``features``.

    Args:
        features: (E, D).
        labels: (E,) int64 in [0, count), clusters found in another space.
        count: K.

    Returns:
        (K, D); a cluster without members has zeros. Means are not normalised.

    Source: ProtoCLIP (arXiv 2206.10996), section 3.3, "prototype back translation".

    Example:
        >>> back_translate(torch.tensor([[2.0, 0.0], [4.0, 0.0]]), torch.tensor([1, 1]), count=2)
        tensor([[0., 0.],
                [3., 0.]])
    """
    sums = features.new_zeros(count, features.shape[1]).index_add_(0, labels, features)
    members = torch.bincount(labels, minlength=count).clamp(min=1)
    return sums / members[:, None].to(features.dtype)


class Projection(nn.Module):
    """``Linear, BatchNorm, ReLU`` for each hidden layer, then ``Linear``, then rows of length 1.

    In training it normalises by the statistics of the rows of all ranks; :meth:`update_` moves the running ones, which
    evaluation uses.

    Args:
        in_features: Size of the embeddings.
        out_features: Size of the projected rows.
        hidden_layers: Number of hidden layers, >= 0.
        hidden: Their width.
    """

    def __init__(self, in_features: int, out_features: int, *, hidden_layers: int, hidden: int) -> None:
        super().__init__()
        self.linears, self.norms = nn.ModuleList(), nn.ModuleList()
        for _ in range(hidden_layers):
            self.linears.append(nn.Linear(in_features, hidden))
            self.norms.append(RunningBatchNorm(hidden))
            in_features = hidden
        self.linears.append(nn.Linear(in_features, out_features))

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_features) -> (B, out_features)."""
        return self._run(x, update=False)

    @torch.no_grad()
    def update_(self, x: Tensor) -> None:
        """Move the running statistics towards those of the rows of all ranks, of this one (B, in_features)."""
        self._run(x, update=True)

    def _run(self, x: Tensor, *, update: bool) -> Tensor:
        x = x.to(self.linears[0].get_parameter("weight").dtype)
        for linear, norm in zip(self.linears, self.norms, strict=False):  # the last layer has no norm
            x = linear(x)
            if update:
                norm.update_(x)  # type: ignore[operator]  # ModuleList is typed Module
            x = norm(x).relu()
        return normalize(self.linears[-1](x))


@configurable("train")
class ProtoCLIP(EpisodicTerm):
    """:func:`prototype_loss` of images against clusters of texts and of texts against clusters of images.

    At the beginning of an episode both modalities, projected by heads of this term, are clustered by K-Means. The
    clusters of one modality are translated into the other (:func:`back_translate`), where its samples are classified.
    With ``external``, the clusters of a teacher's features are translated into both modalities, and add the mean of
    two more such losses, with labels as targets. Usually beside a contrastive term, with a warm-up over the first
    episode.

    Args:
        embed_dim: Size D of the model's embeddings.
        first, second: Views x and y; in flat coordinates.
        external: View of a teacher whose features are clustered as well, ``"text@teacher"``; None = none.
        external_weight: Of its two losses.
        clusters: K, of each modality.
        external_clusters: Of the teacher's features.
        episode: Samples of all ranks, a multiple of the batch; they are those that are trained on next.
        iterations: Of K-Means.
        target_temperature: tau of the soft targets; None = labels.
        features, hidden, hidden_layers: Size of the projected rows, width and number of hidden layers of the heads.
        scale_init: Inverse temperature at the start; it is learned, its log kept in [0, log 100].

    Raises:
        ValueError: for numbers out of range; by :meth:`check` for embeddings of another size than ``embed_dim``.

    Source: Chen et al., ProtoCLIP, 2022 (arXiv 2206.10996); the published recipe has 20,000 clusters, episodes of
        200,000 samples, 20 iterations, tau 0.01, heads of one hidden layer of 2048 and 128 features.
    Differs: an episode is the next samples of the data order, not drawn with replacement, and features are those of
        the very crops and captions that follow; a centre is the mean of the members of its cluster; batch statistics of
        the heads are those of the batch of all ranks.
    """

    no_weight_decay: frozenset[str] = frozenset({"log_scale"})
    labels: Tensor
    first_position: Tensor

    def __init__(
        self,
        embed_dim: int,
        *,
        first: str | View = IMAGE,
        second: str | View = TEXT,
        external: str | View | None = None,
        external_weight: float = 1.0,
        clusters: int = 20_000,
        external_clusters: int = 20_000,
        episode: int = 200_000,
        iterations: int = 20,
        target_temperature: float | None = 0.01,
        features: int = 128,
        hidden: int = 2048,
        hidden_layers: int = 1,
        scale_init: float = 1 / 0.07,
    ) -> None:
        super().__init__()
        self.first, self.second = self.declare(first, second)
        self.external = None if external is None else View.parse(external)
        self.episode_needs = self.needs | ({self.external} if self.external is not None else set())
        self.external_weight = number("external_weight", external_weight, least=0)
        self.episode = whole_number("episode", episode, least=1)
        self.clusters = whole_number("clusters", clusters, least=1, most=self.episode)
        self.external_clusters = whole_number("external_clusters", external_clusters, least=1)
        self.iterations = whole_number("iterations", iterations, least=1)
        self.target_temperature = (
            None if target_temperature is None else number("target_temperature", target_temperature, above=0)
        )
        number("scale_init", scale_init, least=1, most=math.exp(LOG_SCALE_MAX))
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale_init)))  # 0-dim
        self.embed_dim = whole_number("embed_dim", embed_dim, least=1, most=MOST_FEATURES)
        sizes = {
            "out_features": whole_number("features", features, least=1, most=MOST_FEATURES),
            "hidden": whole_number("hidden", hidden, least=1, most=MOST_FEATURES),
            "hidden_layers": whole_number("hidden_layers", hidden_layers, least=0, most=64),
        }
        self.second_head = Projection(embed_dim, **sizes)
        self.first_head = Projection(embed_dim, **sizes)
        self.first_head.load_state_dict(self.second_head.state_dict())  # both begin equal, as published
        names = ["first", "second", *(["external"] if self.external is not None else [])]
        # Row i is the cluster of the sample at position first_position + i in each space, -1 before the first episode.
        self.register_buffer("labels", torch.full((len(names), self.episode), -1))
        self.register_buffer("first_position", torch.full((), -1))
        for name in ("first", "second"):
            self.register_buffer(f"{name}_centroids", torch.zeros(self.clusters, features))
            self.register_buffer(f"{name}_translated", torch.zeros(self.clusters, features))
            if self.external is not None:
                self.register_buffer(f"{name}_external", torch.zeros(self.external_clusters, features))

    def check(self, models: Mapping[str, Model]) -> None:
        """Refuse a model of another embedding size."""
        for view in self.episode_needs:
            find_encoder(models, view)
        for view in (self.first, self.second):
            check_width(models, view, self.embed_dim, name="embed_dim")

    def episode_rows(self, ctx: PairContext) -> dict[str, Tensor]:
        """Projected rows of both modalities, and the teacher's features, (B, D) each."""
        rows = {
            "first": self.first_head(_flat(ctx, self.first)),
            "second": self.second_head(_flat(ctx, self.second)),
        }
        if self.external is not None:
            rows["external"] = normalize(ctx.features(self.external))
        return rows

    @torch.no_grad()
    def begin_episode_(self, rows: Mapping[str, Tensor], *, first: int, cluster: Cluster) -> None:
        """Cluster each space, and translate the clusters into the others."""
        labels = {
            name: cluster(
                rows[name],
                count=self.external_clusters if name == "external" else self.clusters,
                iterations=self.iterations,
            )
            for name in rows
        }
        self.labels.copy_(torch.stack([labels[name] for name in rows]))
        self.first_position.fill_(first)
        for name, other in (("first", "second"), ("second", "first")):
            own = rows[name]
            centres = {
                "centroids": (labels[name], self.clusters),
                "translated": (labels[other], self.clusters),
            }
            if self.external is not None:
                centres["external"] = (labels["external"], self.external_clusters)
            for kind, (given, count) in centres.items():
                self.get_buffer(f"{name}_{kind}").copy_(back_translate(own, given, count=count))

    def forward(self, ctx: PairContext) -> Tensor:
        labels = self.labels[:, self._places(ctx)]  # (2 or 3, B)
        scale = self.log_scale.exp()
        losses, external = [], []
        for name, view, teacher, known in (
            ("first", self.first, "second", labels[1]),
            ("second", self.second, "first", labels[0]),
        ):
            head = self.first_head if name == "first" else self.second_head
            rows = head(_flat(ctx, view))  # (B, D) with the statistics of all ranks
            losses.append(
                prototype_loss(
                    rows,
                    self.get_buffer(f"{name}_translated"),
                    known,
                    scale=scale,
                    teacher_centroids=self.get_buffer(f"{teacher}_centroids"),
                    target_temperature=self.target_temperature,
                )
            )
            if self.external is not None:
                centroids = self.get_buffer(f"{name}_external")
                external.append(prototype_loss(rows, centroids, labels[2], scale=scale))
        loss = torch.stack(losses).mean()
        return loss + self.external_weight * torch.stack(external).mean() if external else loss

    def update_(self, ctx: PairContext) -> None:
        """Move the running statistics of the heads."""
        for head, view in ((self.first_head, self.first), (self.second_head, self.second)):
            head.update_(_flat(ctx, view))

    def changes(self, contexts: Sequence[PairContext]) -> list[Changed]:
        """The running statistics of the heads; labels and centroids change between steps."""
        heads = [*self.first_head.modules(), *self.second_head.modules()]
        return [Changed(part, name) for part in heads for name, _ in part.named_buffers(recurse=False)]

    @torch.no_grad()
    def constrain_(self) -> None:
        """Clamp the log of the scale into [0, log 100], in place."""
        self.log_scale.clamp_(min=0.0, max=LOG_SCALE_MAX)

    def _places(self, ctx: PairContext) -> Tensor:
        """Rows of ``labels`` of the samples of this step, (B,)."""
        positions: Tensor = ctx.entry(
            "position",
            meaning="the place of each sample in the data order",
            otherwise="or drop this loss term",
        )
        places = positions.to(self.first_position) - self.first_position
        inside = (places >= 0) & (places < self.episode) & (self.first_position >= 0)  # (B,)
        if places.device.type == "cpu" and not bool(inside.all()):
            raise ValueError(
                f"position: got samples {int(positions.min())} to {int(positions.max())} outside the episode that "
                f"begins at {int(self.first_position)}; begin_episode_ is called before it, as hypvl's loop does."
            )
        return places


def _flat(ctx: PairContext, view: View) -> Tensor:
    """Embeddings in flat coordinates, (B, D)."""
    return ctx.model_of(view).geometry.flatten(ctx.embeddings(view))

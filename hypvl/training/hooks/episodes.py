"""Episodes: the coming samples are encoded and clustered before loss terms that ask for it train on them."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from loguru import logger
from torch import Tensor

from hypvl import distributed
from hypvl.errors import ConfigError
from hypvl.losses.episodes import EpisodicTerm
from hypvl.training.loop import Hook, Trainer
from hypvl.training.step import Learner, to_device


def kmeans_labels(rows: Tensor, *, count: int, iterations: int, seed: int) -> Tensor:
    """Labels (E,) int64 of K-Means (Lloyd, scikit-learn) on rows (E, D), which is run by the first process alone.

    Entries that are not finite count as 0. A cluster may be left without members. A collective.
    """

    def cluster() -> Tensor:
        import warnings

        from sklearn.cluster import KMeans
        from sklearn.exceptions import ConvergenceWarning

        known = torch.nan_to_num(rows.float(), nan=0.0, posinf=0.0, neginf=0.0).cpu().numpy()
        model = KMeans(min(count, len(rows)), init="random", n_init=1, max_iter=iterations, random_state=seed)
        with warnings.catch_warnings():
            # for rows that are equal, at the start of training
            warnings.simplefilter("ignore", ConvergenceWarning)
            return torch.from_numpy(model.fit(known).labels_).to(torch.int64)

    return distributed.from_main(cluster).to(rows.device)


def episodic_terms(learner: Learner) -> dict[str, EpisodicTerm]:
    """The loss terms that have episodes, by name."""
    terms = learner.objective.terms.items()
    return {name: term for name, term in terms if isinstance(term, EpisodicTerm)}


def check_episodes(learner: Learner, global_batch_size: int) -> None:
    """ConfigError for a term whose episode is not a whole number of steps."""
    for name, term in episodic_terms(learner).items():
        if term.episode % global_batch_size:
            raise ConfigError(
                f"train.objective.terms.{name}.episode: got {term.episode} with train.total_batch_size="
                f"{global_batch_size}; expected a multiple of the batch, so that an episode is whole steps."
            )


class Episodes(Hook):
    """Begins the episodes of every loss term that has some.

    Args:
        make_loader: The training data from a position on, in samples of all ranks: a context that gives batches.
        seed: Of K-Means.
    """

    def __init__(
        self, terms: Mapping[str, EpisodicTerm], *, make_loader: Callable[[int], Any], seed: int
    ) -> None:
        self._terms = dict(terms)
        self._make_loader = make_loader
        self._seed = seed

    def before_step(self, trainer: Trainer) -> None:
        """Cluster the samples of an episode that begins now."""
        for name, term in self._terms.items():
            if trainer.consumed % term.episode == 0:
                self._begin(trainer, name, term)

    @torch.no_grad()
    def _begin(self, trainer: Trainer, name: str, term: EpisodicTerm) -> None:
        learner, first = trainer.learner, trainer.consumed
        parts: dict[str, list[Tensor]] = {}
        places: list[Tensor] = []
        learner.eval()
        with self._make_loader(first) as loader:
            batches = iter(loader)
            for _ in range(term.episode // trainer.global_batch_size * trainer.naive_parts):
                batch = to_device(next(batches), trainer.precision.device)
                with trainer.precision.autocast():
                    for key, value in term.episode_rows(learner.context(batch, term.episode_needs)).items():
                        parts.setdefault(key, []).append(distributed.gather(value).float())
                places.append(distributed.gather(batch["position"].to(trainer.precision.device)))
        learner.train()
        order = torch.cat(places).argsort()
        ordered = {key: torch.cat(value)[order] for key, value in parts.items()}
        number = first // term.episode

        def cluster(rows: Tensor, *, count: int, iterations: int) -> Tensor:
            return kmeans_labels(rows, count=count, iterations=iterations, seed=self._seed + number)

        term.begin_episode_(ordered, first=first, cluster=cluster)
        logger.info("{}: episode {} of {:,} samples is clustered", name, number, term.episode)

"""The contract of loss terms that learn from clusters of the coming samples: an episode is what lies between."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Protocol

from torch import Tensor

from hypvl.losses.base import LossTerm, PairContext, View


class Cluster(Protocol):
    """Divides rows (E, D) into ``count`` clusters: labels (E,) int64, the same on every rank."""

    def __call__(self, rows: Tensor, *, count: int, iterations: int) -> Tensor: ...


class EpisodicTerm(LossTerm):
    """A term that looks at the samples of an episode before they are trained on.

    Training encodes the next ``episode`` samples in evaluation mode, gives their rows to :meth:`begin_episode_`, and
    trains on the same samples, crops and captions.
    """

    episode: int  # samples of all ranks
    episode_needs: frozenset[View] = (
        frozenset()
    )  # views that episode_rows asks for; those of the steps are ``needs``

    @abstractmethod
    def episode_rows(self, ctx: PairContext) -> dict[str, Tensor]:
        """What the term wants to know of local samples, by name: (B, D) each."""

    @abstractmethod
    def begin_episode_(self, rows: Mapping[str, Tensor], *, first: int, cluster: Cluster) -> None:
        """Change the state: rows (E, D) of all samples, in the order of their positions, which begin at ``first``."""

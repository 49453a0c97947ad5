"""How the batch of a step is divided where its activations would not fit into memory at once."""

from dataclasses import dataclass

from hypvl.errors import ConfigError
from hypvl.training.config import TrainConfig


@dataclass(frozen=True)
class Accumulation:
    """What ``train.grad_cache``, ``train.accumulate`` and ``train.naive_accumulate`` ask for.

    Args:
        micro_batch: Rows that an encoder sees at once, with the gradients of the whole batch; None = all.
        naive_parts: Batches whose losses, each on its own, are averaged; 1 = one.
    """

    micro_batch: int | None = None
    naive_parts: int = 1

    @property
    def divides(self) -> bool:
        """Whether a step has more than one backward pass."""
        return self.micro_batch is not None or self.naive_parts > 1

    def describe(self) -> str:
        """A line for the log."""
        if self.naive_parts > 1:
            return f"naive accumulation: {self.naive_parts} separate losses per step, averaged"
        return f"gradient caching: encoders see {self.micro_batch} rows at once, the loss all of them"

    @classmethod
    def choose(cls, settings: TrainConfig, *, world_size: int) -> "Accumulation":
        """What a config's ``train`` asks for.

        Raises:
            ConfigError: for settings that do not go together.
        """
        micro_batch = settings.grad_cache.micro_batch
        accumulate, naive = settings.accumulate, settings.naive_accumulate
        asked = {"grad_cache.micro_batch": micro_batch is not None, "accumulate": accumulate > 1}
        asked["naive_accumulate"] = naive > 1
        both = [f"train.{name}" for name, there in asked.items() if there]
        if len(both) > 1:
            raise ConfigError(
                f"{' and '.join(both)}: both are set, but each says how a step's batch is divided; keep one of them."
            )
        if both and world_size > 1 and settings.ddp.broadcast_buffers:
            raise ConfigError(
                f"{both[0]}: set together with train.ddp.broadcast_buffers=true, but DDP takes no part in a step of "
                "several backward passes; turn one of them off."
            )
        total = settings.total_batch_size
        if total % world_size:
            raise ConfigError(
                f"train.total_batch_size: got {total} for {world_size} processes; expected a multiple of {world_size}."
            )
        local = total // world_size
        if accumulate > 1:
            if accumulate > local:
                raise ConfigError(
                    f"train.accumulate: got {accumulate}, but a process has {local} samples per step "
                    f"(train.total_batch_size={total}); expected at most so many parts."
                )
            micro_batch = -(-local // accumulate)
        if naive > 1 and total % (world_size * naive):
            raise ConfigError(
                f"train.naive_accumulate: got {naive} with train.total_batch_size={total} on {world_size} processes; "
                f"expected a batch that is a multiple of {world_size * naive}."
            )
        return cls(micro_batch, naive)

"""Which weights are evaluated: those of the model, of a teacher in its checkpoint, or between two checkpoints."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from hypvl.cli.loading import config_of, load_trained
from hypvl.config.plain import to_plain
from hypvl.errors import CheckpointError, ConfigError
from hypvl.models.checkpoint_io import checkpoint_digest, checkpoint_file, load_without_moments
from hypvl.models.dual_encoder import DualEncoder
from hypvl.models.interpolation import interpolate_weights
from hypvl.models.weights import load_weights
from hypvl.training.state import model_changes

MODEL = "model"
# Settings of a model in training: with others it has the same weights and gives the same features.
_OF_TRAINING = frozenset({"pretrained", "drop_path_rate", "dropout", "grad_checkpointing"})


@dataclass(frozen=True)
class WeightChoice:
    """What ``--weights``, ``--interpolate-from`` and ``--alpha`` ask for."""

    name: str  # "model", or a teacher of the checkpoint
    initial: Path | None  # the other checkpoint; None = no interpolation
    alpha: float | None  # share of the checkpoint that is evaluated

    @classmethod
    def of(cls, args: argparse.Namespace) -> "WeightChoice":
        """The choice of the parsed flags. ConfigError for only one of two flags."""
        if (args.interpolate_from is None) != (args.alpha is None):
            there, lacks = ("--interpolate-from", "--alpha")[:: 1 if args.alpha is None else -1]
            raise ConfigError(f"{there}: needs {lacks} beside it; give both, or neither.")
        if args.interpolate_from is None:
            return cls(args.weights, None, None)
        return cls(args.weights, checkpoint_file(args.interpolate_from), args.alpha)

    def load(
        self, checkpoint_path: Path, train_config: str | None, *, device: torch.device
    ) -> tuple[DualEncoder, dict[str, Any]]:
        """As :func:`hypvl.cli.loading.load_trained`, with the weights of the choice.

        Raises:
            CheckpointError: also for a teacher that is not there, and for an initial checkpoint of another model.
        """
        weights = None if self.name == MODEL else self.name
        model, content = load_trained(checkpoint_path, train_config, device=device, weights=weights)
        if self.name != MODEL or self.initial is not None:
            content.pop("root", None)  # the mean embedding of the model's own weights
        if self.initial is not None:
            assert self.alpha is not None
            initial = load_without_moments(self.initial)
            self._check_definition(initial, content, checkpoint_path, train_config)
            finetuned = {name: tensor.clone() for name, tensor in model.state_dict().items()}
            try:
                load_weights(model, initial, positions="exact")
                mixed = interpolate_weights(model.state_dict(), finetuned, alpha=self.alpha)
            except CheckpointError as error:
                reason = str(error).removeprefix("checkpoint: ")
                raise CheckpointError(
                    f"--interpolate-from: {self.initial} and {checkpoint_path} are of different models: {reason}"
                ) from error
            model.load_state_dict(mixed)
        return model, content

    def subject(self) -> dict[str, Any]:
        """What results are about, beside the checkpoint; empty for the model itself."""
        chosen: dict[str, Any] = {} if self.name == MODEL else {"weights": self.name}
        if self.initial is not None:
            chosen |= {"interpolate_from_sha256": checkpoint_digest(self.initial), "alpha": self.alpha}
        return chosen

    def provenance(self) -> dict[str, Any]:
        """As :meth:`subject`, with the path of the other checkpoint."""
        path = {} if self.initial is None else {"interpolate_from": str(self.initial)}
        return path | self.subject()

    def title(self, name: str) -> str:
        """Heading of the printed table, from the name of the checkpoint."""
        shown = name if self.name == MODEL else f"{name}, weights {self.name}"
        if self.initial is None:
            return shown
        return f"{self.alpha:g} x {shown} + {1 - (self.alpha or 0):g} x {self.initial.name}"

    def _check_definition(
        self,
        initial: dict[str, Any],
        content: dict[str, Any],
        checkpoint_path: Path,
        train_config: str | None,
    ) -> None:
        """Refuse an initial checkpoint whose config defines another model; one without a config is not checked."""
        if self.initial is None or initial.get("config") is None:
            return
        definitions = [
            to_plain(OmegaConf.to_container(config.model, resolve=True), source="model")
            for config in (
                config_of(initial, self.initial, None),
                config_of(content, checkpoint_path, train_config),
            )
        ]
        changes = [
            change
            for change in model_changes(*definitions)
            if change.key.rpartition(".")[2] not in _OF_TRAINING
        ]
        if changes:
            raise CheckpointError(
                f"--interpolate-from: {self.initial} and {checkpoint_path} are of different models: "
                f"{'; '.join(map(str, changes[:4]))}."
            )

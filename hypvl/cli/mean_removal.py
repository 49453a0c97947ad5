"""Evaluating a model with the mean of each modality taken out, or moved along the modality gap."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hypvl.diagnostics.gap import shift_offsets
from hypvl.embedding.protocol import Modality
from hypvl.encoders.feature_transforms import Centering
from hypvl.errors import CheckpointError, ConfigError
from hypvl.evaluation.mean_removal import ModalityMeans, fit, load, model_fingerprint
from hypvl.evaluation.protocol import Evaluator
from hypvl.models.dual_encoder import DualEncoder

TRANSDUCTIVE = "transductive"


@dataclass(frozen=True)
class MeanRemover:
    """What ``--standardize`` and ``--shift`` ask for."""

    model: DualEncoder
    fingerprint: str  # of the model
    fitted: ModalityMeans | None  # from a file; None = those of each data set itself
    # None = take the means out; a number = move the modalities along the line between them.
    shift: float | None

    @classmethod
    def of(cls, model: DualEncoder, standardize: str | None, *, shift: float | None) -> "MeanRemover":
        """From the flags, of which at least one is given.

        Raises:
            ConfigError: a shift that is not a finite number, or a file of another kind.
            CheckpointError: a file that cannot be read, or was fitted for another model.
        """
        if shift is not None and not math.isfinite(shift):
            raise ConfigError(f"--shift: got {shift}; expected a finite number, such as 1 or -0.5.")
        fingerprint = model_fingerprint(model.state_dict())
        fitted = None
        if standardize not in (None, TRANSDUCTIVE):
            path = Path(str(standardize))
            if not path.suffix and not path.exists():
                raise ConfigError(
                    f"--standardize: got {standardize!r}; expected `{TRANSDUCTIVE}` or a file of "
                    "hypvl fit-standardization."
                )
            fitted = load(path)
            if fitted.model != fingerprint or len(fitted.image_mean) != model.embed_dim:
                raise CheckpointError(
                    f"--standardize: {path} was fitted for another model (fingerprint {fitted.model[:12]}, this one is "
                    f"{fingerprint[:12]}); fit it for this checkpoint with hypvl fit-standardization."
                )
        return cls(model, fingerprint, fitted, shift)

    @contextmanager
    def applied(self, evaluator: Evaluator, *, set_name: str) -> Iterator[dict[str, Any]]:
        """Remove the means while the context is open; yields a record of it for the results."""
        means = self.fitted
        if means is None:
            means = fit(evaluator, self.model, fingerprint=self.fingerprint, set_name=set_name)
        both = self.model.image_transforms, self.model.text_transforms
        before = [len(transforms) for transforms in both]
        try:
            both_means = means.image_mean, means.text_mean
            moved = both_means if self.shift is None else shift_offsets(*both_means, delta=self.shift)
            add_centering_(self.model, *moved)
            yield {
                "source": TRANSDUCTIVE if self.fitted is None else "file",
                "shift": self.shift,
                "centroid_distance": torch.linalg.vector_norm(means.image_mean - means.text_mean).item(),
                **means.meta(),
            }
        finally:
            for transforms, count in zip(both, before, strict=True):
                del transforms[count:]


def add_centering_(model: DualEncoder, image_offset: Tensor, text_offset: Tensor) -> None:
    """Let a model subtract (D,) vectors from its flat embeddings, after what it does already."""
    like = next(model.parameters())
    given: tuple[tuple[Modality, Tensor], ...] = (("image", image_offset), ("text", text_offset))
    for modality, offset in given:
        centering = Centering(model.embed_dim).to(device=like.device, dtype=like.dtype)
        centering.fill_(offset)
        model.transforms(modality).append(centering)

"""Model plus objective as one module: encodes each declared view once and sums the loss terms."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from hypvl import distributed
from hypvl.errors import ConfigError
from hypvl.losses.base import LossOutput, Objective, PairContext, View
from hypvl.models.dual_encoder import DualEncoder, constrain_modules_
from hypvl.training.step import to_device

# First letters of an entry of a batch -> the switch of the demo's mapper that adds it.
_DEMO_SWITCHES = {"box_": "boxes", "negative_": "negatives", "short_": "short"}


@dataclass(frozen=True)
class Rows:
    """Inputs of an encoder.

    Args:
        values: Images or tokens, (R, ...).
        lengths: (R,) tokens of each text, where the batch has them.
    """

    values: Tensor
    lengths: np.ndarray | None = None

    def split(self, size: int) -> list["Rows"]:
        """Micro-batches of at most ``size`` rows, in order."""
        starts = range(0, max(1, len(self.values)), size)
        return [self[start : start + size] for start in starts]

    def __getitem__(self, rows: slice | list[int]) -> "Rows":
        return Rows(self.values[rows], None if self.lengths is None else self.lengths[rows])


def rows_of(view: View, batch: Mapping[str, Any]) -> Rows:
    """The inputs that a batch holds for a view.

    Raises:
        ConfigError: when it holds none.
    """
    if view.modality == "image":
        return Rows(lookup(batch, view.source))
    above, _, name = view.source.rpartition(".")
    beside = lookup(batch, above) if above else batch
    lengths = beside.get(f"{name}_lengths") if isinstance(beside, Mapping) else None
    return Rows(lookup(batch, view.source), lengths)


class Learner(nn.Module):
    """The module that is trained and that DDP wraps.

    Args:
        model: The model; it is the encoder named "student".
        objective: Named loss terms.

    Raises:
        ValueError: when a term asks for another encoder than "student".
    """

    def __init__(self, model: DualEncoder, objective: Objective) -> None:
        super().__init__()
        self.model = model
        self.objective = objective
        self.views = tuple(sorted(objective.needs, key=lambda view: (str(view), view.grad)))
        for view in self.views:
            if view.encoder != "student":
                raise ValueError(
                    f"view {view}: got encoder {view.encoder!r}; expected 'student', the only one of this learner."
                )

    def forward(self, batch: Mapping[str, Any]) -> tuple[LossOutput, PairContext]:
        """Loss of one local batch (tensors on the model's device)."""
        return self.loss_from_trunks(
            {view: self.trunk(view, rows_of(view, batch)) for view in self.views}, batch
        )

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile the two encoders in place; the arguments are those of :func:`torch.compile`.

        They are nearly all of the work. The objective stays as it is: it has collectives, and large contrastive terms
        compile their own tiles.
        """
        self.model.visual.compile(*args, **kwargs)
        self.model.textual.compile(*args, **kwargs)

    def trunk(self, view: View, rows: Rows) -> Tensor:
        """Output of the encoder of a view: (R, width), without gradient if the view has none."""
        with torch.set_grad_enabled(view.grad and torch.is_grad_enabled()):
            if view.modality == "image":
                return self.model.encode_image(rows.values, stage="trunk")
            lengths = {} if rows.lengths is None else {"lengths": rows.lengths}
            return self.model.encode_text(rows.values, stage="trunk", **lengths)

    def encoder(self, view: View) -> nn.Module:
        """The module behind :meth:`trunk`."""
        return self.model.visual if view.modality == "image" else self.model.textual

    def loss_from_trunks(
        self, trunks: Mapping[View, Tensor], batch: Mapping[str, Any]
    ) -> tuple[LossOutput, PairContext]:
        """Loss of the local batch from the outputs of its trunks: heads, geometry and loss terms.

        Args:
            trunks: Output of :meth:`trunk` for each declared view, of the whole local batch.
            batch: The local batch.
        """
        features = {}
        for view, trunk in trunks.items():
            with torch.set_grad_enabled(view.grad and torch.is_grad_enabled()):
                features[view] = self.model.project(trunk, modality=view.modality)
        ctx = PairContext(features, batch=batch, model=self.model)
        return self.objective(ctx), ctx

    def constrain_(self) -> None:
        """Clamp every learned parameter that has a range (curvature, scales); called before each step.

        Calls ``constrain_()`` of every module of the model and the objective that has one.
        """
        if hasattr(self.model, "constrain_"):
            self.model.constrain_()
        else:
            constrain_modules_(self.model.modules())
        constrain_modules_(self.objective.modules())

    def update_(self, *contexts: PairContext, stepped: Tensor | None = None) -> None:
        """Let terms (queues, thresholds) and the model (running statistics) change state.

        Called once after an optimizer step that was not skipped, with the context of its forward pass, or of each
        part of it in order.

        Args:
            contexts: Of the step.
            stepped: 0-dim bool on the device, which is not waited for: where it is false (a skipped step), buffers keep
                their values. None = true.
        """
        with torch.no_grad():
            before = [] if stepped is None else self._buffers_of_updates()
            self.objective.update_(*contexts)
            views = [view for view in self.views if view.encoder == "student"]
            for ctx in contexts:
                self.model.update_(
                    image=[ctx.features(view).detach() for view in views if view.modality == "image"],
                    text=[ctx.features(view).detach() for view in views if view.modality == "text"],
                )
            for module, name, buffer, old in before:
                new = getattr(module, name)
                value = torch.where(cast(Tensor, stepped), new, old)
                if new is buffer:
                    buffer.copy_(value)
                else:  # the term has put another tensor there, perhaps of another shape
                    setattr(module, name, value)

    def _buffers_of_updates(self) -> list[tuple[nn.Module, str, Tensor, Tensor]]:
        """Buffers that :meth:`update_` may change: module, name, buffer and a copy of it."""
        changing = (self.objective, self.model.image_transforms, self.model.text_transforms)
        return [
            (part, name, buffer, buffer.clone())
            for module in changing
            for part in module.modules()
            for name, buffer in part.named_buffers(recurse=False)
        ]

    def stats(self) -> dict[str, float]:
        """Curvature, scales and the like, for the log (synchronises the device)."""
        return {**self.model.geometry.stats(), "logit_scale": self.model.scorer.scale.item()}


@torch.no_grad()
def mean_embedding(learner: Learner, loader: Iterable[Mapping[str, Any]], *, samples: int) -> Tensor:
    """Normalised mean of the embeddings of training images and texts (a collective).

    Args:
        learner: Its model encodes, and is left in its mode.
        loader: Local training batches.
        samples: How many samples over all ranks, at least.

    Returns:
        (D,) unit vector on the CPU.

    Source: MERU (arXiv 2304.09172) section 5.2: CLIP's [ROOT] is the average of all training embeddings.
    Differs: an average over ``samples`` training samples, not all of them.
    """
    model = learner.model
    device = next(model.parameters()).device
    total = torch.zeros(model.embed_dim, device=device)
    seen = 0
    was_training = model.training
    model.eval()
    for batch in loader:
        batch = to_device(batch, device)
        images, texts = model.encode_image(batch["image"]), model.encode_text(batch["text"])  # (B, D)
        total += images.float().sum(0) + texts.float().sum(0)
        seen += len(images) * distributed.world_size()
        if seen >= samples:
            break
    model.train(was_training)
    return torch.nn.functional.normalize(distributed.all_reduce_sum(total), dim=0).cpu()


def lookup(batch: Mapping[str, Any], source: str) -> Tensor:
    """The tensor at ``source`` ("image", "crops.1") of a batch.

    Raises:
        ConfigError: naming the entries of the batch, and what to do.
    """
    value: Any = batch
    for part in source.split("."):
        try:
            value = value[int(part)] if isinstance(value, (list, tuple)) else value[part]
        except (KeyError, IndexError, ValueError) as error:
            raise ConfigError(
                f"train.objective: needs {source!r}, but the batch has only {', '.join(map(str, batch))}; "
                f"choose data that gives it{_demo_hint(source)}, or another objective."
            ) from error
    return value


def _demo_hint(source: str) -> str:
    for start, switch in _DEMO_SWITCHES.items():
        if source.startswith(start):
            return f" (for the demo data ++dataset.mapper.{switch}=true)"
    return ""

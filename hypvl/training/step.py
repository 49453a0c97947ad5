"""One training step: model plus objective as one module, its precision, forward and backward, the optimizer's step."""

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, cast

import numpy as np
import torch
from loguru import logger
from torch import Tensor, nn

from hypvl import distributed
from hypvl.checks import one_of
from hypvl.errors import ConfigError
from hypvl.losses.base import STUDENT, Changed, LossOutput, Model, Objective, PairContext, View
from hypvl.losses.ring import Gather, check_gather
from hypvl.models.dual_encoder import DualEncoder, constrain_modules_
from hypvl.training.config import Amp
from hypvl.training.freezing import hold_in_eval_, is_held
from hypvl.training.parallel import clip_gradients_
from hypvl.training.teachers import Teacher

# First letters of an entry of a batch -> the switch of the demo's mapper that adds it.
_DEMO_SWITCHES = {"box_": "boxes", "negative_": "negatives", "short_": "short", "labels": "labels"}
_DTYPES: Mapping[Any, torch.dtype | None] = {
    "bf16": torch.bfloat16, "fp16": torch.float16, "fp32": None, False: None,
}  # fmt: skip


@dataclass(frozen=True)
class Precision:
    """Mixed precision of a run."""

    dtype: torch.dtype | None  # torch.bfloat16, torch.float16, or None for full precision
    device: torch.device  # where the model lives

    @classmethod
    def choose(cls, amp: Amp, device: torch.device) -> "Precision":
        """The precision for a value of ``train.amp``; ValueError for another value.

        False is "fp32"; "auto" is bf16 where the hardware has it, else fp16 on a GPU and full precision on a CPU.
        """
        one_of("train.amp", amp, Amp)
        if amp == "auto" and device.type == "cuda":
            amp = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
        elif amp == "auto":
            native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
            amp = "bf16" if native else "fp32"
        return cls(_DTYPES[amp], device)

    def autocast(self) -> contextlib.AbstractContextManager[None]:
        """Context for the forward pass."""
        return torch.autocast(self.device.type, dtype=self.dtype) if self.dtype else contextlib.nullcontext()

    def wire(self, *, compress: bool) -> torch.dtype | None:
        """The dtype in which gradients travel between GPUs; None = their own.

        With ``compress`` it is that of the forward pass, if that has 16 bits. Gradients of bf16 never travel in fp16:
        without a loss scale their small entries would be lost in its range.
        """
        return self.dtype if compress and self.device.type == "cuda" else None

    def make_scaler(self) -> torch.amp.GradScaler:
        """Gradient scaler; does nothing unless the precision is fp16."""
        return torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)


@dataclass(frozen=True)
class Rows:
    """Inputs of an encoder."""

    values: Tensor  # images or tokens, (R, ...)
    lengths: np.ndarray | None = None  # (R,) tokens of each text, where the batch has them

    def filler(self, *, token: int) -> "Rows":
        """One row of the same kind: zeros, or a text of that token, which is no padding."""
        shape = (1, *(max(1, side) for side in self.values.shape[1:]))
        return Rows(self.values.new_full(shape, 0 if self.values.ndim > 2 else token))

    def split(self, size: int) -> list["Rows"]:
        """Micro-batches of at most ``size`` rows, in order."""
        starts = range(0, max(1, len(self.values)), size)
        return [self[start : start + size] for start in starts]

    def __getitem__(self, rows: slice | list[int]) -> "Rows":
        return Rows(self.values[rows], None if self.lengths is None else self.lengths[rows])


def rows_of(view: View, batch: Mapping[str, Any]) -> Rows:
    """The inputs that a batch holds for a view; a ConfigError where it holds none."""
    if view.modality == "image":
        return Rows(lookup(batch, view.source))
    above, _, name = view.source.rpartition(".")
    beside = lookup(batch, above) if above else batch
    lengths = beside.get(f"{name}_lengths") if isinstance(beside, Mapping) else None
    return Rows(lookup(batch, view.source), lengths)


class Learner(nn.Module):
    """The module that is trained and that DDP wraps: a model, which is the encoder named "student", and its loss terms.

    Args:
        model: The student.
        objective: Its loss terms.
        teachers: The other encoders that views may name.
        gather: How loss terms reach the rows of other ranks: all at once, or in a ring (:mod:`hypvl.losses.ring`).

    Raises:
        ValueError: for a ring with a term that needs all rows at once, a teacher named "student", or when a term cannot
            work with the encoders of its views.
    """

    def __init__(
        self,
        model: DualEncoder,
        objective: Objective,
        teachers: Mapping[str, Teacher] | None = None,
        *,
        gather: Gather = "all",
    ) -> None:
        super().__init__()
        check_gather(dict(objective.terms.items()), gather)
        self.gather: Gather = gather
        self.model = model
        self.objective = objective
        self.teachers = nn.ModuleDict(teachers if teachers is not None else {})
        if STUDENT in self.teachers:
            raise ValueError(f"teachers: one is named {STUDENT!r}, as the model is; give it another name.")
        for teacher in self.get_teachers().values():
            teacher.start_(model)
        objective.check(self._encoders())
        self.views = tuple(sorted(objective.needs, key=lambda view: (str(view), view.grad)))
        self._tokens = objective.tokens
        self._said_empty: set[str] = set()  # groups of rows that were empty everywhere in a step

    def get_teachers(self) -> dict[str, Teacher]:
        """The teachers by name."""
        return dict(self.teachers.items())  # type: ignore[arg-type]  # ModuleDict is typed Module

    def _encoders(self) -> dict[str, Any]:
        """The encoders that views may name; a teacher's is a DualEncoder, or encodes like one."""
        return {STUDENT: self.model} | {
            name: teacher.encoder for name, teacher in self.get_teachers().items()
        }

    def train(self, mode: bool = True) -> Self:
        """As of any module; what is frozen stays in evaluation mode, see :mod:`hypvl.training.freezing`."""
        super().train(mode)
        hold_in_eval_(self)
        return self

    def forward(self, batch: Mapping[str, Any]) -> tuple[LossOutput, PairContext]:
        """Loss of one local batch (tensors on the model's device)."""
        return self.loss_from_trunks(
            {view: self.trunk(view, self.rows(view, batch)) for view in self.views}, batch
        )

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile the two encoders in place; the arguments are those of :func:`torch.compile`.

        They are nearly all of the work. The objective stays as it is: it has collectives, and large contrastive terms
        compile their own tiles.
        """
        for encoder in self._encoders().values():
            encoder.compile(*args, **kwargs)

    def rows(self, view: View, batch: Mapping[str, Any]) -> Rows:
        """The inputs of a view's encoder that a batch holds; a ConfigError where it holds none."""
        reads = getattr(
            self._encoders()[view.encoder], "reads", None
        )  # the entry that stored features are found by
        return rows_of(view, batch) if reads is None else Rows(lookup(batch, reads))

    def check_data(self, sample: Mapping[str, Any], *, classes: int | None) -> None:
        """Refuse data of which this is a sample, with labels of so many classes; None = not known.

        Raises:
            ConfigError: for an input of a view or another entry that the objective asks for and the sample lacks, or a
                term that does not take so many classes.
        """
        encoders = self._encoders()
        encoded = {view for view in self.objective.views if not hasattr(encoders[view.encoder], "reads")}
        for source in sorted({view.source for view in encoded} | self.objective.entries):
            lookup(sample, source)
        if classes is not None:
            try:
                self.objective.check_classes(classes, encoders)
            except ValueError as error:
                raise ConfigError(f"train.objective.{error}") from error

    def has_gradient(self, view: View) -> bool:
        """Whether gradients flow back into the encoder of a view, as far as it is trained."""
        return view.grad and view.encoder == STUDENT

    def trunk(self, view: View, rows: Rows) -> Tensor:
        """Output of the encoder of a view: (R, width), or (R, T, width) where a term asks for all tokens.

        Without a graph if frozen or for views without gradient. For no rows (R = 0) it encodes a filler and drops it:
        every parameter gets a gradient, which is 0, as DDP expects, and no encoder has to cope with an empty batch.
        """
        if len(rows.values) == 0:
            pad = getattr(self.encoder(view), "pad_token", 0)
            return self.trunk(view, rows.filler(token=0 if pad else 1))[:0]
        model = self._encoders()[view.encoder]
        grad = self.has_gradient(view) and not is_held(self.encoder(view))
        with torch.set_grad_enabled(grad and torch.is_grad_enabled()):
            if view in self._tokens:
                return model.encode_image_tokens(rows.values)
            if view.modality == "image":
                return model.encode_image(rows.values, stage="trunk")
            lengths = {} if rows.lengths is None else {"lengths": rows.lengths}
            return model.encode_text(rows.values, stage="trunk", **lengths)

    def encoder(self, view: View) -> nn.Module:
        """The module behind :meth:`trunk`."""
        model = self._encoders()[view.encoder]  # as a whole, where it is one of the user's own
        return cast(nn.Module, model.tower(view.modality) if hasattr(model, "tower") else model)

    def loss_from_trunks(
        self, trunks: Mapping[View, Tensor], batch: Mapping[str, Any]
    ) -> tuple[LossOutput, PairContext]:
        """Loss of the whole local batch from the output of :meth:`trunk` for each view: heads, geometry, loss terms."""
        ctx = self._context(trunks, batch)
        output = self.objective(ctx)
        for name in sorted(ctx.empty_groups - self._said_empty):
            self._said_empty.add(name)
            if distributed.is_main():
                logger.warning(
                    "{!r} is empty on every rank in a step, in which the losses of its rows are 0 (said once); let "
                    "more of the data have some, or take a larger batch", name,
                )  # fmt: skip
        return output, ctx

    def context(self, batch: Mapping[str, Any], views: Iterable[View]) -> PairContext:
        """Views of one local batch, encoded, without a loss."""
        return self._context({view: self.trunk(view, self.rows(view, batch)) for view in views}, batch)

    def _context(self, trunks: Mapping[View, Tensor], batch: Mapping[str, Any]) -> PairContext:
        features, encoders = {}, self._encoders()
        for view, trunk in trunks.items():
            with torch.set_grad_enabled(self.has_gradient(view) and torch.is_grad_enabled()):
                encoder = encoders[view.encoder]
                read = encoder.read_out(trunk) if view in self._tokens else trunk
                features[view] = encoder.project(read, modality=view.modality)
        teachers: dict[str, Model] = {name: model for name, model in encoders.items() if name != STUDENT}
        return PairContext(
            features, batch=batch, model=self.model, teachers=teachers, trunks=trunks, gather=self.gather
        )

    def constrain_(self) -> None:
        """Call ``constrain_()`` of every module that has one (curvature, scales); called before each step."""
        whole = hasattr(self.model, "constrain_")  # then it walks its own modules
        constrain_modules_([self.model] if whole else self.model.modules())
        constrain_modules_(self.objective.modules())

    def update_(self, *contexts: PairContext, stepped: Tensor | None = None) -> None:
        """Let terms (queues, thresholds) and the model (running statistics) change state.

        Called once after an optimizer step that was not skipped, with the context of its forward pass, or of each
        part of it in order. ``stepped`` is a 0-dim bool on the device, which is not waited for: where it is false (a
        skipped step), buffers and teachers keep their values. None = true.
        """
        with torch.no_grad():
            before = [] if stepped is None else self._before_updates(contexts)
            self.objective.update_(*contexts)
            for ctx in contexts:
                features: dict[str, list[Tensor]] = {"image": [], "text": []}
                for view in (view for view in self.views if view.encoder == STUDENT):
                    features[view.modality].append(ctx.features(view).detach())
                self.model.update_(**features)
            for (module, name, rows), buffer, old in before:
                new = getattr(module, name)
                if new is not buffer:  # the term has put another tensor there, perhaps of another shape
                    setattr(module, name, torch.where(cast(Tensor, stepped), new, old))
                elif rows is None:
                    buffer.copy_(torch.where(cast(Tensor, stepped), buffer, old))
                else:
                    buffer.index_copy_(0, rows, torch.where(cast(Tensor, stepped), buffer[rows], old))
            for teacher in self.get_teachers().values():
                if stepped is None:
                    stepped = torch.ones((), dtype=torch.bool, device=next(self.model.parameters()).device)
                teacher.update_(self.model, stepped)

    def _before_updates(self, contexts: Sequence[PairContext]) -> list[tuple[Changed, Tensor, Tensor]]:
        """What :meth:`update_` may change: the buffer, and a copy of it or of the rows that change."""
        transforms = (self.model.image_transforms, self.model.text_transforms)
        changes = self.objective.changes(contexts) + [
            Changed(part, name)
            for module in transforms
            for part in module.modules()
            for name, _ in part.named_buffers(recurse=False)
        ]
        buffers = [(change, change.module.get_buffer(change.name)) for change in changes]
        return [
            (change, buffer, buffer.clone() if change.rows is None else buffer[change.rows])
            for change, buffer in buffers
        ]

    def stats(self) -> dict[str, float]:
        """Curvature, scales and the like, for the log (synchronises the device)."""
        return {**self.model.geometry.stats(), **self.model.scorer.stats()}


@torch.no_grad()
def mean_embedding(
    learner: Learner, loader: Iterable[Mapping[str, Any]], *, samples: int, model: DualEncoder | None = None
) -> Tensor:
    """Normalised mean of the embeddings of ``samples`` training images and texts over all ranks, (D,) on the CPU.

    A collective; ``loader`` gives local training batches. ``model`` is a whole copy of a learner's that is sharded.

    Source: MERU (arXiv 2304.09172) section 5.2: CLIP's [ROOT] is the average of all training embeddings.
    Differs: an average over ``samples`` training samples, not all of them.
    """
    model = learner.model if model is None else model
    device = next(model.parameters()).device
    total = torch.zeros(model.embed_dim, device=device)
    seen = 0
    was_training = model.training
    model.eval()
    for batch in loader:
        batch = to_device(batch, device)
        if model.visual is not None:
            total += model.encode_image(batch["image"]).float().sum(0)
        if model.textual is not None:
            total += model.encode_text(batch["text"]).float().sum(0)
        seen += len(batch["text"]) * distributed.world_size()
        if seen >= samples:
            break
    learner.train(was_training)
    return torch.nn.functional.normalize(distributed.all_reduce_sum(total), dim=0).cpu()


def lookup(batch: Mapping[str, Any], source: str) -> Tensor:
    """The tensor at ``source`` ("image", "crops.1") of a batch. Raises ConfigError where it is not there."""
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


def forward_backward(
    learner: nn.Module,
    batch: Mapping[str, Any],
    *,
    precision: Precision,
    scaler: torch.amp.GradScaler,
    cache: Callable[..., tuple[LossOutput, PairContext]] | None = None,
    average: Callable[[Iterable[Tensor]], None] | None = None,
) -> tuple[LossOutput, PairContext]:
    """Loss of the batch and its gradients, added into ``.grad``.

    Args:
        learner: A :class:`Learner`, possibly wrapped by DDP.
        batch: Local batch on the model's device.
        precision: Of the forward pass.
        scaler: Scales the loss in fp16.
        cache: A :class:`~hypvl.training.accumulation.GradCache`, which encodes in micro-batches with the same result;
            gradients are then averaged over ranks also without DDP.
        average: A :class:`~hypvl.training.accumulation.GradientAverage` of a learner that DDP does not wrap.
    """
    if cache is not None:
        return cache(learner, batch, precision=precision, scaler=scaler)
    with precision.autocast():
        output, ctx = learner(batch)
    scaler.scale(output.total).backward()
    if average is not None:
        average(learner.parameters())
    return output, ctx


def optimizer_step(
    optimizer: torch.optim.Optimizer,
    parameters: Iterable[Tensor],
    *,
    scaler: torch.amp.GradScaler,
    clip_norm: float | None,
    loss: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Unscale, clip and step, then clear the gradients; a step that is not finite is skipped (a collective).

    The ranks agree: when the loss or a gradient is not finite on one of them, weights, moments and step counts stay as
    they are on all of them. Fused optimizers skip on the device, and nothing waits for it; with others and in fp16 the
    host reads first whether to skip.

    Args:
        optimizer, scaler: Of the run; overflow lowers the scale.
        parameters: Their gradient norm is measured and clipped.
        clip_norm: Largest allowed norm of all gradients together; None = only measured.
        loss: This rank's loss, 0-dim.

    Returns:
        The gradient norm before clipping, and False for a skipped step; both 0-dim and on the device.
    """
    scaler.unscale_(optimizer)
    norm = clip_gradients_(parameters, clip_norm)
    finite = norm.isfinite()
    if loss is not None:
        finite = finite & loss.detach().isfinite()
    finite = distributed.on_all_ranks(finite)
    if scaler.is_enabled():
        if finite:
            scaler.step(optimizer)
        scaler.update()
    elif getattr(optimizer, "_step_supports_amp_scaling", False):
        vars(optimizer)["found_inf"] = (~finite).float()  # where GradScaler puts it, too
        optimizer.step()
        vars(optimizer)["found_inf"] = None
    elif finite:
        optimizer.step()
    else:
        vars(optimizer)["_opt_called"] = True  # or schedules warn of a step before the optimizer's first one
    optimizer.zero_grad(set_to_none=True)
    return norm, finite


def to_device(batch: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """The batch with its tensors, also those in lists, on ``device``; the rest as it is.

    Asynchronously from pinned memory.
    """
    moved = dict(batch)
    for name, value in batch.items():
        if isinstance(value, Tensor):
            moved[name] = value.to(device, non_blocking=True)
        elif isinstance(value, list) and value and isinstance(value[0], Tensor):
            moved[name] = [item.to(device, non_blocking=True) for item in value]
        elif isinstance(value, Mapping):
            moved[name] = to_device(value, device)
    return moved

"""Sharding of a learner over the ranks (FSDP2): each rank holds a part of every large parameter.

Sharded are the parts of the model, and of teachers, that have a matrix: encoders block by block, so that one block at a
time is whole, and heads. Their gradients are averaged by FSDP. Everything else stays whole on every rank (curvature,
scales, biases of logits, parameters of loss terms), and its gradients are averaged in one message.
"""

import contextlib
import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from hypvl import distributed
from hypvl.errors import ConfigError
from hypvl.models.dual_encoder import DualEncoder
from hypvl.training.blocks import ordered_blocks

_ENCODERS = ("visual", "textual")


def is_sharded(value: Any) -> bool:
    """Whether this rank holds only a part of a tensor."""
    return isinstance(value, DTensor)


def local(tensor: Tensor) -> Tensor:
    """The part of a tensor that this rank holds, without a copy; all of one that is not sharded."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor, without gradient (a collective if it is sharded)."""
    detached = tensor.detach()
    return detached.full_tensor() if isinstance(detached, DTensor) else detached


def as_sharded_like(tensor: Any, like: Tensor) -> Any:
    """This rank's part of a whole tensor that every rank has, where ``like`` is sharded; nothing is sent."""
    if (
        not is_sharded(like)
        or not isinstance(tensor, Tensor)
        or is_sharded(tensor)
        or tensor.shape != like.shape
    ):
        return tensor
    assert isinstance(like, DTensor)
    moved = tensor.to(device=like.device, dtype=like.dtype)
    return distribute_tensor(moved, like.device_mesh, like.placements, src_data_rank=None)


@dataclass(frozen=True)
class Sharding:
    """A learner that is sharded."""

    model: DualEncoder  # the student
    skeleton: DualEncoder  # a copy from before it was sharded, whose parameters have no values

    def whole_model(self) -> DualEncoder:
        """A whole copy of the model as it is now, in evaluation mode and without gradients (a collective).

        It can be called on any rank, any number of times, which the sharded one cannot.
        """
        result = copy.deepcopy(self.skeleton)
        state = {name: whole(tensor) for name, tensor in self.model.state_dict().items()}
        result.load_state_dict(state, assign=True)
        for ours, theirs in zip(result.parameters(), self.model.parameters(), strict=True):
            ours.requires_grad_(theirs.requires_grad)
        return result.eval()


def shard_(learner: nn.Module, *, dtype: torch.dtype | None, wire: torch.dtype | None) -> Sharding:
    """Shard a learner, in place, over all ranks (a collective). Names of parameters stay as they are.

    Args:
        learner: A :class:`~hypvl.training.step.Learner` with the same weights on every rank, on the device of this one.
        dtype: Of the forward pass: torch.bfloat16, or None for full precision.
        wire: In which gradients are averaged; None = their own.

    Raises:
        ConfigError: for float16.
    """
    if torch.float16 in (dtype, wire):
        raise ConfigError(
            "train.parallel: got 'fsdp' with fp16, whose loss scale is not kept over shards; set train.amp=bf16 or "
            "fp32, or train.parallel=ddp."
        )
    distributed.broadcast_([*learner.parameters(), *learner.buffers()])
    model = cast(DualEncoder, learner.model)
    memo: dict[int, Any] = {
        id(p): nn.Parameter(p.detach().to("meta"), requires_grad=p.requires_grad) for p in model.parameters()
    }
    skeleton = copy.deepcopy(model, memo)
    teachers = cast(nn.ModuleDict, learner.teachers).values()
    for encoder in (model, *(cast(nn.Module, teacher.encoder) for teacher in teachers)):
        for name, part in encoder.named_children():
            if any(parameter.ndim > 1 for parameter in part.parameters()):
                _shard_part(part, name, wire=wire)
    for module in learner.modules():
        module.register_load_state_dict_pre_hook(_take_shards)
    return Sharding(model, skeleton)


def _shard_part(part: nn.Module, name: str, *, wire: torch.dtype | None) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    inner: list[nn.Module] = []
    if name in _ENCODERS:
        with contextlib.suppress(ValueError):  # one without a row of blocks is gathered as a whole
            inner = [part.get_submodule(block) for block in ordered_blocks(part)]
    elif (prototypes := getattr(part, "prototypes", None)) is not None:
        inner = [prototypes]  # called on its own, outside of the head
    device = next(part.parameters()).device
    for module in (*inner, part):
        fully_shard(
            module,
            mesh=init_device_mesh(device.type, (distributed.world_size(),)),
            reshard_after_forward=True,  # also of the outermost: between steps every parameter is sharded
            # Weights travel as they are, and autocast rounds what it would round without shards.
            mp_policy=MixedPrecisionPolicy(reduce_dtype=wire, cast_forward_inputs=False),
            ignored_params={parameter for parameter in part.parameters() if parameter.ndim == 0},
        )
    if name in _ENCODERS:
        _gather_for_read_out(part)


def _gather_for_read_out(encoder: nn.Module) -> None:
    """Let an encoder gather its weights also when it reads out tokens that it gave before.

    Its own forward pass may read out, too: then they are gathered already, and stay so until it ends.
    """
    from torch.distributed.fsdp import register_fsdp_forward_method

    own = getattr(encoder, "read_out", None)
    if not callable(own):
        return
    register_fsdp_forward_method(encoder, "read_out")
    gathering = cast(Callable[[Tensor], Tensor], encoder.read_out)
    running: list[bool] = []
    encoder.register_forward_pre_hook(lambda *_: running.append(True))
    encoder.register_forward_hook(lambda *_: (running.pop(), None)[1], always_call=True)
    vars(encoder)["read_out"] = lambda tokens: (own if running else gathering)(tokens)


def _take_shards(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Before a module loads a state: whole tensors become shards where its parameters are."""
    for name, parameter in module.named_parameters(recurse=False):
        if (key := prefix + name) in state:
            state[key] = as_sharded_like(state[key], parameter)


def holds_shards(value: Any) -> bool:
    """Whether there is a sharded tensor in nested dicts and lists."""
    if isinstance(value, Mapping):
        return any(map(holds_shards, value.values()))
    return any(map(holds_shards, value)) if isinstance(value, list | tuple) else is_sharded(value)


def gathered(value: Any) -> Any:
    """The same nested dicts and lists with whole tensors, on the CPU, in place of shards (a collective).

    On other ranks than the first there is None in place of each: nobody but the first writes.
    """
    if isinstance(value, Mapping):
        return {key: gathered(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(gathered(item) for item in value)
    if not is_sharded(value):
        return value
    tensor = whole(value)
    return tensor.cpu() if distributed.is_main() else None


def separate_groups(groups: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Groups of an optimizer in which no sharded parameter stands beside a whole one.

    Optimizers update a group's tensors together, which must then be of one kind. Groups of one kind stay as they are.
    """
    result = []
    for group in groups:
        kinds: dict[bool, list[Tensor]] = {}
        for parameter in group["params"]:
            kinds.setdefault(is_sharded(parameter), []).append(parameter)
        result += [{**group, "params": parameters} for parameters in kinds.values()]
    return result


@torch.no_grad()
def clip_gradients_(parameters: Iterable[Tensor], clip_norm: float | None) -> Tensor:
    """Norm of all gradients together, 0-dim; they are scaled to at most ``clip_norm`` (a collective if any is sharded).

    None only measures. The norm is the same on every rank as far as gradients are.
    """
    parameters = [parameter for parameter in parameters if parameter.grad is not None]
    shards = [local(cast(Tensor, p.grad)) for p in parameters if is_sharded(p)]
    if not shards:
        if clip_norm is not None:
            return nn.utils.clip_grad_norm_(parameters, clip_norm)
        return nn.utils.get_total_norm([cast(Tensor, p.grad) for p in parameters])
    own = [cast(Tensor, p.grad) for p in parameters if not is_sharded(p)]
    norms = distributed.gather(nn.utils.get_total_norm(shards)[None])  # (W,)
    if own:
        norms = torch.cat([norms, nn.utils.get_total_norm(own)[None].to(norms.dtype)])
    norm = torch.linalg.vector_norm(norms)
    if clip_norm is not None:
        factor = (clip_norm / (norm + 1e-6)).clamp(max=1.0)  # as torch's clip_grad_norm_
        for gradient in (*shards, *own):
            gradient.mul_(factor.to(gradient.dtype))
    return norm

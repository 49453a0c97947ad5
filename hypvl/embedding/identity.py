"""The identity of a model: a hash that differs where embeddings do."""

import hashlib
import inspect
from collections.abc import Iterator, Mapping
from typing import Any, TypeGuard

from torch import Tensor, nn, uint8

from hypvl.embedding.protocol import EvaluableModel

# Attributes that say how a module is run, not what it computes.
_RUNTIME_ATTRIBUTES = frozenset(
    {"training", "kept_in_eval", "grad_checkpointing", "dump_patches", "call_super_init", "name_or_path"}
)
_SCORER = "scorer"  # makes no embeddings


def model_fingerprint(state_dict: Mapping[str, Tensor]) -> str:
    """SHA-256 of the names, types, shapes and bytes of all weights and buffers."""
    total = hashlib.sha256()
    for name, tensor in sorted(state_dict.items()):
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        total.update(flat.view(uint8).numpy().data)
    return total.hexdigest()


def model_identity(model: EvaluableModel | nn.Module) -> str | None:
    """SHA-256 of all weights and of the settings of all modules, except the scorer's: equal where embeddings are.

    Settings are the plain numbers, strings and booleans among the attributes of modules (an activation's name, the
    epsilon of a norm). None for an object that is not a module with weights, such as a wrapper that may change a
    model's outputs.
    """
    if not _is_module(model):
        return None
    total = hashlib.sha256(model_fingerprint(model.state_dict()).encode())
    for name, module in model.named_modules():
        if name.split(".")[0] != _SCORER:
            settings = sorted(_settings(module))
            total.update(f"{name} {type(module).__qualname__} {settings}\n".encode())
    return total.hexdigest()


def weights_version(model: EvaluableModel | nn.Module) -> tuple[Any, ...] | None:
    """A value that changes when weights do, without reading them; None where torch does not count changes."""
    if not _is_module(model):
        return None
    parts: list[tuple[str, int, int, str]] = []
    for name, tensor in model.state_dict(keep_vars=True).items():
        if tensor.is_inference():
            return None
        parts.append((name, tensor.data_ptr(), tensor._version, str(tensor.dtype)))
    return (id(model), *parts)


def _is_module(model: object) -> TypeGuard[nn.Module]:
    # Looked up without __getattr__, through which a wrapper would show the weights of what it wraps.
    return callable(inspect.getattr_static(model, "state_dict", None)) and hasattr(model, "named_modules")


def _settings(module: nn.Module) -> Iterator[tuple[str, str]]:
    for key, value in vars(module).items():
        if (
            not key.startswith("_")
            and key not in _RUNTIME_ATTRIBUTES
            and isinstance(value, bool | int | float | str)
        ):
            yield key, repr(value)

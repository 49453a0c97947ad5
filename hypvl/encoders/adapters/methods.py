"""The eight methods of delta-tuning by the names that ITRA gives them, and the builder that a config names.

.. code-block:: python

    model.textual = L(adapted)(encoder=model.textual, method="lora_adapter", options=dict(rank=8))
"""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from hypvl.allowlist import configurable
from hypvl.checks import MOST_FEATURES, one_of, short, whole_number
from hypvl.encoders.adapters.bottleneck import Bottleneck, Nonlinearity
from hypvl.encoders.adapters.gate import Gate, GateVariant
from hypvl.encoders.adapters.hypercomplex import HypercomplexLinear, SharedRule
from hypvl.encoders.adapters.linear import AdapterLinear
from hypvl.encoders.adapters.nice import Nice
from hypvl.encoders.adapters.places import ProjectionName
from hypvl.encoders.adapters.projections import LowRank, Scaling
from hypvl.encoders.adapters.tower import Adapter, EndName, Tower, merge_adapter_

_ENDS: tuple[EndName, ...] = ("attention_output", "ffn_output")


def bottleneck_adapter(
    tower: Tower, *, reduction: int = 16, nonlinearity: Nonlinearity = "relu", dropout: float = 0.0
) -> None:
    """A bottleneck at the end of both sub-layers. Source: Houlsby et al. 2019 (arXiv 1902.00751)."""
    one_of("nonlinearity", nonlinearity, Nonlinearity)
    for layer in tower.layers:
        for end in _ENDS:
            tower.at_end(layer, end, _bottleneck(tower, reduction, nonlinearity, dropout=dropout))


def lang_adapter(
    tower: Tower,
    *,
    reduction: int = 16,
    invertible_reduction: int = 2,
    nonlinearity: Nonlinearity = "relu",
    dropout: float = 0.0,
) -> None:
    """A bottleneck at the end of the feed-forward sub-layer, and NICE after the embeddings.

    Source: MAD-X, Pfeiffer et al. 2020 (arXiv 2005.00052), section 4.
    """
    one_of("nonlinearity", nonlinearity, Nonlinearity)
    tower.at_embeddings(Nice(tower.width, reduction=_reduction("invertible_reduction", invertible_reduction)))
    for layer in tower.layers:
        part = _bottleneck(tower, reduction, nonlinearity, dropout=dropout)
        tower.at_end(layer, "ffn_output", part, normed=True)


def prefix_tuning(tower: Tower, *, length: int = 30, inner: int = 512) -> None:
    """Keys and values before those of every layer. Source: Li and Liang 2021 (arXiv 2101.00190)."""
    tower.prepend_prefix(length=length, inner=inner)


def compacter(
    tower: Tower,
    *,
    reduction: int = 32,
    phm_dim: int = 4,
    phm_rank: int = 1,
    nonlinearity: Nonlinearity = "gelu",
    dropout: float = 0.0,
) -> None:
    """As ``bottleneck_adapter``, of hypercomplex layers with one rule.

    Source: Mahabadi et al. 2021 (arXiv 2106.04647).
    """
    one_of("nonlinearity", nonlinearity, Nonlinearity)
    shared = SharedRule(whole_number("phm_dim", phm_dim, least=1, most=64))
    middle = _middle(tower.width, reduction)
    tower.adapter.shared = shared
    for layer in tower.layers:
        for end in _ENDS:
            down = HypercomplexLinear(tower.width, middle, shared=shared, rank=phm_rank)
            up = HypercomplexLinear(middle, tower.width, shared=shared, rank=phm_rank)
            part = Bottleneck(down, up, nonlinearity=nonlinearity, dropout=dropout)
            tower.at_end(layer, end, part)


def lora_adapter(tower: Tower, *, rank: int = 8, alpha: float = 16.0, dropout: float = 0.0) -> None:
    """Matrices of low rank beside the query and value projections. Source: Hu et al. 2022 (arXiv 2106.09685)."""
    for layer in tower.layers:
        for name in _QUERY_AND_VALUE:
            tower.change_projection(layer, name, partial(LowRank, rank=rank, alpha=alpha, dropout=dropout))


def ia3_adapter(tower: Tower) -> None:
    """Scales of keys, values and the feed-forward middle. Source: Liu et al. 2022 (arXiv 2205.05638)."""
    names: tuple[ProjectionName, ...] = ("key", "value", "intermediate")
    for layer in tower.layers:
        for name in names:
            tower.change_projection(layer, name, lambda _, out_features: Scaling(out_features))


def mam_adapter(
    tower: Tower,
    *,
    length: int = 30,
    inner: int = 800,
    reduction: int = 2,
    scale: float = 4.0,
    nonlinearity: Nonlinearity = "relu",
    dropout: float = 0.0,
) -> None:
    """Mix-and-match: a prefix, and a scaled bottleneck beside the feed-forward sub-layer.

    Source: He et al. 2022 (arXiv 2110.04366), section 4.6.
    """
    one_of("nonlinearity", nonlinearity, Nonlinearity)
    tower.prepend_prefix(length=length, inner=inner)
    middle = _middle(tower.width, reduction)
    for layer in tower.layers:
        down, up = AdapterLinear(tower.width, middle), AdapterLinear(middle, tower.width, std=0.0)
        nn.init.zeros_(down.bias)
        part = Bottleneck(down, up, nonlinearity=nonlinearity, scale=scale, dropout=dropout)
        tower.beside_ffn(layer, part)


def unipelt(
    tower: Tower,
    *,
    length: int = 10,
    inner: int = 512,
    reduction: int = 16,
    nonlinearity: Nonlinearity = "relu",
    rank: int = 8,
    variant: GateVariant = "masked",
    dropout: float = 0.0,
) -> None:
    """A prefix, a bottleneck at the end of the feed-forward sub-layer and LoRA, each with a gate.

    ``variant="published"`` averages the gates over padding, too.

    Source: Mao et al. 2022 (arXiv 2110.07577).
    """
    one_of("nonlinearity", nonlinearity, Nonlinearity)
    one_of("variant", variant, GateVariant)
    gate = partial(Gate, tower.width, tokens=tower.gate_tokens(), variant=variant)
    tower.prepend_prefix(length=length, inner=inner, gate=partial(gate, zero_bias=False))
    for layer in tower.layers:
        for name in _QUERY_AND_VALUE:
            own = gate(zero_bias=False)
            tower.change_projection(layer, name, partial(LowRank, rank=rank, gate=own, dropout=dropout))
        own = gate(zero_bias=True)
        part = _bottleneck(tower, reduction, nonlinearity, gate=own, dropout=dropout)
        tower.at_end(layer, "ffn_output", part, normed=True)


_QUERY_AND_VALUE: tuple[ProjectionName, ...] = ("query", "value")
#: ITRA's name -> the function that puts the parts into a tower.
METHODS: dict[str, Callable[..., None]] = {
    "bottleneck_adapter": bottleneck_adapter,
    "lang_adapter": lang_adapter,
    "prefix_tuning": prefix_tuning,
    "dummy": compacter,
    "lora_adapter": lora_adapter,
    "ia3_adapter": ia3_adapter,
    "mam_adapter": mam_adapter,
    "unipelt": unipelt,
}


@configurable("model")
def adapted(encoder: nn.Module, method: str, *, options: Mapping[str, Any] | None = None) -> nn.Module:
    """The encoder itself, frozen, with an adapter: its child ``adapter`` has all that is trained.

    Names and values of the encoder's own parameters stay, so that a plain pretrained file fits once the adapter may be
    missing (``train.init_missing=[model.textual.adapter.*]``).

    Args:
        encoder: With transformer blocks of a kind in :data:`hypvl.encoders.adapters.tower.KINDS`, itself or somewhere
            inside; changed in place.
        method: A key of :data:`METHODS`.
        options: Arguments of the method's function, for example ``{"rank": 4}``; None = its defaults.

    Raises:
        ValueError: For an unknown method or option, a value out of range, an encoder that has no such blocks, or one
            that has an adapter.
    """
    one_of("method", method, tuple(METHODS))
    make = METHODS[method]
    if not isinstance(options, Mapping | None):
        raise ValueError(f"options: got {short(options)}; expected a mapping of arguments of {method}.")
    known = list(inspect.signature(make).parameters)[1:]
    for name in options or {}:
        if name not in known:
            raise ValueError(
                f"options: got {name!r}, which {method} has not; expected some of {', '.join(known) or 'none'}."
            )
    if _adapters(encoder):
        raise ValueError(
            "encoder: got one with an adapter; expected a plain one, or merge its adapter first."
        )
    tower = Tower(encoder, method)
    try:
        make(tower, **(options or {}))
    except ValueError as error:
        prefix = "options." if str(error).partition(":")[0] in known else ""
        raise ValueError(f"{prefix}{error}") from error
    return tower.finish()


def adapter_state_dict(module: nn.Module) -> dict[str, Tensor]:
    """The adapter weights alone of an encoder, or of a model with adapted encoders; what layers share is in it once."""
    names = _adapter_names(module)
    return {name: tensor for name, tensor in module.state_dict().items() if name in names}


@torch.no_grad()
def load_adapter_state_dict(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Put weights of :func:`adapter_state_dict` into a module with the same adapters.

    Raises:
        ValueError: When a name is missing or unexpected, a shape differs, or a number is not finite; nothing is loaded.
    """
    own = adapter_state_dict(module)
    for kind, names in (
        ("lacks", own.keys() - state.keys()),
        ("has the unexpected", state.keys() - own.keys()),
    ):
        if names:
            raise ValueError(
                f"state: it {kind} {', '.join(sorted(names)[:3])}{' ...' if len(names) > 3 else ''}; expected the "
                f"{len(own)} adapter weights of this module."
            )
    for name, tensor in state.items():
        if tensor.shape != own[name].shape or not bool(tensor.isfinite().all()):
            raise ValueError(
                f"state: {name} is {tuple(tensor.shape)}{'' if bool(tensor.isfinite().all()) else ', not finite'}; "
                f"expected {tuple(own[name].shape)} finite numbers."
            )
    for name, tensor in own.items():
        tensor.copy_(state[name])


def merge_adapters(module: nn.Module) -> nn.Module:
    """Merge LoRA and (IA)3 of an encoder, or of all encoders of a model, into their weights; returns the module.

    The encoders compute the same and are plain again, with the parameters, names and shapes they had before.

    Raises:
        ValueError: When there is no adapter, or one that cannot be merged; a linear map is needed.
    """
    found = _adapters(module)
    if not found:
        raise ValueError(f"module: got {type(module).__name__} without an adapter; expected one to merge.")
    for name, adapter in found.items():
        merge_adapter_(module.get_submodule(name.rpartition(".")[0]), adapter)
    return module


def _adapters(module: nn.Module) -> dict[str, Adapter]:
    return {name: inner for name, inner in module.named_modules() if isinstance(inner, Adapter)}


def _adapter_names(module: nn.Module) -> set[str]:
    return {
        f"{prefix}.{name}" for prefix, adapter in _adapters(module).items() for name in adapter.state_dict()
    }


def _bottleneck(
    tower: Tower, reduction: int, nonlinearity: Nonlinearity, *, gate: Gate | None = None, dropout: float
) -> Bottleneck:
    middle = _middle(tower.width, reduction)
    down, up = AdapterLinear(tower.width, middle, std=0.02), AdapterLinear(middle, tower.width, std=0.02)
    return Bottleneck(down, up, nonlinearity=nonlinearity, gate=gate, dropout=dropout)


def _middle(width: int, reduction: int) -> int:
    return max(1, width // _reduction("reduction", reduction))


def _reduction(name: str, value: int) -> int:
    return whole_number(name, value, least=1, most=MOST_FEATURES)

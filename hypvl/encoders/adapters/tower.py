"""An encoder whose blocks get adapters: finds the blocks, names the parts, and puts them in their places."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, TypeAlias

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from hypvl.checks import one_of
from hypvl.encoders.adapters import huggingface_blocks, text_blocks, timm_blocks
from hypvl.encoders.adapters.bottleneck import after, before_norm, beside, beside_residual
from hypvl.encoders.adapters.gate import Gate, PaddedRows, TokenRows
from hypvl.encoders.adapters.nice import at_entry
from hypvl.encoders.adapters.places import Kind, ProjectionName
from hypvl.encoders.adapters.prefix import LayerPrefix, Prefix
from hypvl.encoders.adapters.projections import ProjectionChange, at_projection

EndName: TypeAlias = Literal["attention_output", "ffn_output"]
#: Name of a block's class -> its places. Classes that inherit from it count, too.
KINDS: dict[str, Kind] = {**text_blocks.KINDS, **timm_blocks.KINDS, **huggingface_blocks.KINDS}


class Adapter(nn.Module):
    """All the parameters that an adapted encoder has on top of its own: its child ``adapter``.

    Parts are named by their place, ``layer0.query``; what layers share is ``prefix`` or ``shared``.

    Args:
        method: The name of the method.
        layers: Blocks of the encoder.
    """

    def __init__(self, method: str, *, layers: int) -> None:
        super().__init__()
        self.method = method
        self.layers = layers
        self.handles: list[RemovableHandle] = []
        for i in range(layers):
            self.add_module(f"layer{i}", nn.ModuleDict())

    def layer(self, index: int) -> nn.ModuleDict:
        """The parts of a layer, by their place."""
        parts = self.get_submodule(f"layer{index}")
        assert isinstance(parts, nn.ModuleDict)
        return parts

    def extra_repr(self) -> str:
        return f"method={self.method!r}"


def find_blocks(encoder: nn.Module) -> tuple[Kind, list[nn.Module]]:
    """The transformer blocks of an encoder, first to last, and their kind.

    Raises:
        ValueError: When it has none that adapters know, or several kinds or widths of them.
    """
    found = [(kind, module) for module in encoder.modules() if (kind := _kind_of(module)) is not None]
    if not found:
        arch = getattr(encoder, "arch", None)
        known = ", ".join(name.rpartition(".")[2] for name in KINDS)
        raise ValueError(
            f"encoder: got {type(encoder).__name__}{'' if arch is None else f' {arch}'}, which has no transformer "
            f"blocks that adapters know; expected an encoder with {known}."
        )
    kind = found[0][0]
    widths = {block_width(kind, block) for kind, block in found}
    if any(other is not kind for other, _ in found) or len(widths) > 1:
        raise ValueError(
            f"encoder: got {type(encoder).__name__} with blocks of several towers (widths {sorted(widths)}); expected "
            f"one tower, adapt each of them by itself."
        )
    return kind, [block for _, block in found]


def _kind_of(module: nn.Module) -> Kind | None:
    names = (f"{base.__module__}.{base.__qualname__}" for base in type(module).__mro__)
    return next((KINDS[name] for name in names if name in KINDS), None)


def block_width(kind: Kind, block: nn.Module) -> int:
    """Channels of the tokens of a block."""
    return kind.intermediate.parameters(block)[0].shape[1]


class Tower:
    """An encoder while it gets its adapter; each method below puts one part into its place.

    Args:
        encoder: Changed in place.
        method: The name of the method.
    """

    def __init__(self, encoder: nn.Module, method: str) -> None:
        self.encoder = encoder
        self.kind, self.blocks = find_blocks(encoder)
        self.width = block_width(self.kind, self.blocks[0])
        self.adapter = Adapter(method, layers=len(self.blocks))
        self.layers = range(len(self.blocks))
        self._tokens: TokenRows | None = None

    def change_projection(
        self, layer: int, name: ProjectionName, make: Callable[[int, int], ProjectionChange]
    ) -> None:
        """Change a projection of a layer by the part that ``make`` makes of its (inputs, outputs)."""
        one_of("name", name, ProjectionName)
        block = self.blocks[layer]
        place = self.kind.projection(name)
        out_features, in_features = place.parameters(block)[0].shape
        part = make(in_features, out_features)
        self.kind.open_projections(self.encoder, block)
        self.adapter.layer(layer)[name] = part
        self._keep(place.seen(block).register_forward_hook(partial(at_projection, part, place.third)))

    def at_end(self, layer: int, end: EndName, part: nn.Module, *, normed: bool = False) -> None:
        """Add ``part(h)`` at the end h of a sub-layer; ``normed``: part(LN(h + r)) where the block has such a norm."""
        one_of("end", end, EndName)
        block = self.blocks[layer]
        self.adapter.layer(layer)[end] = part
        branch, norm = (
            (self.kind.attention_end, self.kind.attention_norm)
            if end == "attention_output"
            else (self.kind.ffn_end, self.kind.ffn_norm)
        )
        if normed and norm is not None:
            module: nn.Module = block.get_submodule(norm)
            self._keep(module.register_forward_pre_hook(partial(before_norm, part)))
        else:
            self._keep(block.get_submodule(branch).register_forward_hook(partial(after, part)))

    def beside_ffn(self, layer: int, part: nn.Module) -> None:
        """Add ``part(x)`` of the input x of the feed-forward sub-layer at its end."""
        block = self.blocks[layer]
        self.adapter.layer(layer)["ffn_output"] = part
        if self.kind.ffn is not None:
            self._keep(block.get_submodule(self.kind.ffn).register_forward_hook(partial(beside, part)))
        else:
            assert self.kind.ffn_residual is not None
            module = block.get_submodule(self.kind.ffn_residual)
            self._keep(module.register_forward_pre_hook(partial(beside_residual, part)))

    def at_embeddings(self, part: nn.Module) -> None:
        """Send the embeddings, the input of the first block, through a part."""
        self.adapter.embedding_nice = part
        hook: Any = partial(at_entry, part)
        self._keep(self.blocks[0].register_forward_pre_hook(hook, with_kwargs=True))

    def prepend_prefix(self, *, length: int, inner: int, gate: Callable[[], Gate] | None = None) -> None:
        """Prepend a prefix to the keys and values of every layer, with a gate in each if there is one."""
        first = self.blocks[0]
        attended = self.kind.projection("key").parameters(first)[0].shape[0]
        prefix = Prefix(self.width, layers=len(self.blocks), attended=attended, length=length, inner=inner)
        self.adapter.prefix = prefix
        for layer, block in enumerate(self.blocks):
            self.kind.open_prefix(self.encoder, block)
            attention: Any = block.get_submodule(self.kind.attention)
            own = None if gate is None else gate()
            attention.key_value_prefix = LayerPrefix(prefix, layer, getattr(attention, self.kind.heads), own)
            if own is not None:
                self.adapter.layer(layer)["prefix_gate"] = own
                hook = attention.key_value_prefix.read_input
                self._keep(attention.register_forward_pre_hook(hook, with_kwargs=True))

    def gate_tokens(self) -> TokenRows:
        """Where the attention of each block notes the rows, for gates."""
        if self._tokens is None:
            self._tokens = TokenRows(PaddedRows())
            for block in self.blocks:
                self.kind.open_gates(self.encoder, block)
                hook: Any = partial(_note_rows, self._tokens, self.kind)
                attention = block.get_submodule(self.kind.attention)
                self._keep(attention.register_forward_pre_hook(hook, with_kwargs=True, prepend=True))
        return self._tokens

    def finish(self) -> nn.Module:
        """The encoder, frozen but for its new child ``adapter``, which has its device and floating dtype."""
        like = next(p for p in self.encoder.parameters() if p.is_floating_point())
        self.encoder.requires_grad_(False)
        self.encoder.add_module("adapter", self.adapter.to(device=like.device, dtype=like.dtype))
        return self.encoder

    def _keep(self, handle: RemovableHandle) -> None:
        self.adapter.handles.append(handle)


def _note_rows(
    tokens: TokenRows, kind: Kind, attention: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    tokens.rows = kind.rows(attention, args, kwargs)


@torch.no_grad()
def merge_adapter_(encoder: nn.Module, adapter: Adapter) -> None:
    """Merge the adapter of an encoder into its own weights, and remove it; ValueError where that is impossible."""
    kind, blocks = find_blocks(encoder)
    parts = [(block, *item) for i, block in enumerate(blocks) for item in adapter.layer(i).items()]
    changes: list[tuple[nn.Module, Any, ProjectionChange]] = [
        (block, name, part)
        for block, name, part in parts
        if isinstance(part, ProjectionChange) and part.mergeable
    ]
    if len(changes) < len(parts) or len(list(adapter.children())) > len(blocks):
        raise ValueError(
            f"adapter: got {adapter.method!r}, which is no linear change of weights; expected lora_adapter or "
            f"ia3_adapter, the others stay beside the encoder."
        )
    for block, name, part in changes:
        part.merge_(*kind.projection(name).parameters(block))
    for handle in adapter.handles:
        handle.remove()
    del encoder.adapter

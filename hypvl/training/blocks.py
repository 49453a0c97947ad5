"""The ordered blocks of an encoder: transformer blocks, stages of a convolutional network.

Found from the module tree, without knowing the architecture: a network keeps its repeated parts in a numbered row
(``blocks.0``, ``resblocks.11``, ``encoder.layer.3``, ``stages.2``, ``layer4``).
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from torch import nn

_NUMBERED = re.compile(r"(.*?)(\d+)")
# A row is the encoder's if it has this share of what is no embedding of tokens; a smaller one is a detail.
_LEAST_SHARE = 0.25
# One member with more than this share is a wrapper around the row that is looked for.
_WRAPPER_SHARE = 0.9
_LAYERS_OF_A_ROW = 4  # single layers that are a network, and no stem, branch or classifier
# In names of an encoder's own parameters.
_USED_AT_THE_END = ("proj", "scale", "bias")


class _Row(NamedTuple):
    """Numbered modules beside each other."""

    container: str  # dotted, "" = the encoder itself
    names: tuple[str, ...]  # of the modules in the container
    size: int  # of their parameters


def ordered_blocks(encoder: nn.Module) -> tuple[str, ...]:
    """Names of an encoder's blocks, from its input to its output.

    Blocks are the members with parameters of the outermost row of numbered modules (``nn.ModuleList``,
    ``nn.Sequential``, or names such as ``layer1`` ... ``layer4``): transformer blocks, or the stages of a ResNet or
    ConvNeXt. Rows of single layers (a convolutional stem) count only where there are no others (AlexNet, VGG).

    Raises:
        ValueError: for an encoder without such a row.

    Example:
        >>> from hypvl.encoders.text import TextTransformer
        >>> ordered_blocks(TextTransformer("L2_W64", vocab_size=9, context_length=4))
        ('resblocks.0', 'resblocks.1')
    """
    row = _row_of(encoder)
    return tuple(_join(row.container, name) for name in row.names)


def depths(encoder: nn.Module) -> dict[str, int]:
    """How deep each parameter of an encoder lies, by its name: with L blocks from 0 to L + 1.

    0 is what comes before the blocks (stem, tables of tokens and positions, class token), i the i-th block, and
    L + 1 what comes after them (final norm, pooling, projection). What stands between two blocks belongs to the first.

    Raises:
        ValueError: as :func:`ordered_blocks`.
    """
    row = _row_of(encoder)
    blocks = {_join(row.container, name): i for i, name in enumerate(row.names, start=1)}
    path = row.container.split(".") if row.container else []
    return {name: _depth(encoder, name.split("."), path, blocks) for name, _ in encoder.named_parameters()}


def _depth(encoder: nn.Module, name: list[str], path: list[str], blocks: dict[str, int]) -> int:
    """Depth of one parameter; ``path`` leads to the container of the blocks."""
    shared = 0
    while shared < len(path) and name[shared] == path[shared]:
        shared += 1
    above, part = ".".join(path[:shared]), name[shared]
    place = encoder.get_submodule(above)
    last = len(blocks) + 1
    children = dict(place.named_children())
    if part not in children:  # a parameter of its own, whose place in the order of the modules says nothing
        return last if any(word in part for word in _USED_AT_THE_END) else 0
    if isinstance(children[part], nn.Embedding) or "embed" in part:
        return 0
    depth = 0
    for child in children:
        depth = blocks.get(_join(above, child), depth)
        if child == part:
            return depth
        if shared < len(path) and child == path[shared]:
            depth = last  # the blocks are in it
        elif depth == last - 1:
            depth = last
    raise AssertionError(part)


def _row_of(encoder: nn.Module) -> _Row:
    total = sum(p.numel() for p in encoder.parameters())
    tokens = {id(p): p for m in encoder.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
    least = _LEAST_SHARE * (total - sum(p.numel() for p in tokens.values()))
    rows = list(_outermost(encoder, "", least=max(least, 1)))
    if rows:
        return max(rows, key=lambda row: row.size)
    modules = list(encoder.named_modules())
    if not any(True for name, module in modules for _ in _rows(module, name, composite=True)):
        single = [row for name, module in modules for row in _rows(module, name, composite=False)]
        single = [row for row in single if len(row.names) >= _LAYERS_OF_A_ROW]
        if single:
            return max(single, key=lambda row: len(row.names))
    parts = ", ".join(name for name, _ in encoder.named_children()) or "none"
    raise ValueError(
        f"{type(encoder).__name__} has no row of numbered blocks (its parts: {parts}); name parameters instead, by "
        "optim.parameters.frozen and optim.parameters.lr."
    )


def _outermost(module: nn.Module, name: str, *, least: float) -> Iterator[_Row]:
    """Rows of blocks that lie in no other row, each with ``least`` parameters."""
    own = [row for row in _rows(module, name, composite=True) if row.size >= least]
    inside = {child for row in own for child in row.names}
    for row in own:
        members = {child: module.get_submodule(child) for child in row.names}
        sizes = {child: _size(member) for child, member in members.items()}
        largest = max(sizes, key=lambda child: sizes[child])
        inner: list[_Row] = []
        if sizes[largest] > _WRAPPER_SHARE * row.size:
            inner = list(_outermost(members[largest], _join(name, largest), least=least))
        yield from inner or [row]
    for child, submodule in module.named_children():
        if child not in inside:
            yield from _outermost(submodule, _join(name, child), least=least)


def _rows(module: nn.Module, name: str, *, composite: bool) -> Iterator[_Row]:
    """Rows among the children of a module: of at least one in a list, of at least two named ``layer1``, ``layer2`` ...

    ``composite``: rows of which some member is made of modules with parameters; else the other ones.
    """
    found: dict[str, list[tuple[str, nn.Module]]] = {}
    for child, submodule in module.named_children():
        match = _NUMBERED.fullmatch(child)
        if match is not None and _size(submodule):
            found.setdefault(match[1], []).append((child, submodule))
    for stem, members in found.items():
        numbers = [int(child.removeprefix(stem)) for child, _ in members]
        in_turn = len(members) > 1 and numbers == list(range(numbers[0], numbers[0] + len(members)))
        if any(_is_composite(m) for _, m in members) == composite and (not stem or in_turn):
            yield _Row(name, tuple(child for child, _ in members), sum(_size(m) for _, m in members))


def _is_composite(module: nn.Module) -> bool:
    return any(_size(child) for child in module.children())


def _size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _join(container: str, name: str) -> str:
    return f"{container}.{name}" if container else name

"""Checkpoints with OpenAI's and open_clip's names, and those of the families that add some to them.

Files of PAC-S, CyCLIP, CE-CLIP and Long-CLIP have these names alone (the second table of positions is one of them).
"""

from collections.abc import Callable, Mapping
from typing import TypeAlias

from torch import Tensor

from hypvl.models.convert import cloob, i0t, open_clip, proto_clip, without_wrappers

#: What a family adds: a state_dict -> the part under open_clip's names, and tensors under ours.
Split: TypeAlias = Callable[[Mapping[str, Tensor]], tuple[dict[str, Tensor], dict[str, Tensor]]]
FAMILIES: tuple[Split, ...] = (cloob.split, proto_clip.split, i0t.split)


def to_hypvl(
    state_dict: Mapping[str, Tensor], *, wanted: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """The same numbers under our names.

    Args:
        state_dict: Prefixes of wrappers (``module.``) are taken off.
        wanted: State dict of the model to fill, as :func:`hypvl.models.convert.open_clip.to_hypvl` takes it.

    Raises:
        CheckpointError: Names are missing or unknown, or the text mask is not the causal one.
    """
    rest = dict(without_wrappers(state_dict))
    added: dict[str, Tensor] = {}
    for split in FAMILIES:
        rest, ours = split(rest)
        added |= ours
    return open_clip.to_hypvl(rest, wanted=wanted) | added

"""Position tables of a checkpoint, resized to those of the model."""

import math
from collections.abc import Mapping
from typing import Literal, TypeAlias

import torch
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from hypvl.checks import one_of
from hypvl.encoders.image_base import sincos_2d
from hypvl.errors import CheckpointError
from hypvl.models.convert.meru import POSITIONS

#: ``"interpolate"``: learned positions of image patches are interpolated to the model's resolution.
#: ``"stretch"``: those of texts are stretched, too. ``"exact"``: neither; other lengths are an error.
Positions: TypeAlias = Literal["interpolate", "stretch", "exact"]
IMAGE_POSITIONS = "visual.trunk.pos_embed"
# The second table of a text encoder with fixed positions, see TextTransformer.
RESIDUAL_POSITIONS = "textual.posit_embed_res"


def interpolate_image_positions(table: Tensor, *, grid: tuple[int, int], prefix: int) -> Tensor | None:
    """Learned positions of image patches for another resolution: bicubic with antialiasing, as timm does it.

    Args:
        table: (1, prefix + n * n, W), for a square grid of patches.
        grid: Rows and columns of patches to make it for.
        prefix: Tokens before the patches (the class token), whose rows are copied.

    Returns:
        (1, prefix + rows * columns, W) in the dtype of ``table``, computed in fp32; None for any other table.
    """
    side = math.isqrt(max(0, table.shape[1] - prefix)) if table.ndim == 3 else 0
    if side < 1 or len(table) != 1 or side * side != table.shape[1] - prefix:
        return None
    return resample_abs_pos_embed(table, list(grid), [side, side], num_prefix_tokens=prefix)


def stretch_positions(table: Tensor, *, keep: int = 20, factor: int = 4) -> Tensor:
    """A longer table of learned positions from a shorter one, by linear interpolation.

    The first ``keep`` rows are copied. Each row j after them becomes ``factor`` rows
    ``(1 - q / factor) p_j + (q / factor) p_{j+1}``, q = 0 .. factor - 1; those of the last row continue the table
    linearly, ``p_L + (q / factor) (p_L - p_{L-1})``. 77 rows become 20 + 4 * 57 = 248.

    Args:
        table: (L, W), L at least 2.
        keep: Rows to copy, 0 .. L: those that short texts trained well.
        factor: At least 1.

    Returns:
        (keep + factor * (L - keep), W), in the dtype of ``table``; computed in fp32 or better.

    Raises:
        ValueError: for a table of another shape, or numbers out of range.

    Source: Long-CLIP, Zhang et al. 2024 (arXiv 2403.15378), section 3.2.
    """
    if table.ndim != 2 or len(table) < 2:
        raise ValueError(f"table: got shape {tuple(table.shape)}; expected (L, W) with L >= 2.")
    if not 0 <= keep <= len(table) or factor < 1:
        raise ValueError(
            f"keep, factor: got {keep}, {factor}; expected keep from 0 to {len(table)} and factor >= 1."
        )
    x = table.to(torch.promote_types(table.dtype, torch.float32))
    following = torch.cat(
        (x[1:], 2 * x[-1:] - x[-2:-1])
    )  # each next row; after the last one, its linear continuation
    share = torch.arange(factor, dtype=x.dtype, device=x.device)[:, None] / factor  # (factor, 1)
    stretched = torch.lerp(x[keep:, None], following[keep:, None], share)  # (L - keep, factor, W)
    return torch.cat((x[:keep], stretched.flatten(0, 1))).to(table.dtype)


def with_positions_of(
    model: nn.Module, state: dict[str, Tensor], *, positions: Positions, source: str
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """A state whose position tables have the lengths of the model's, and a sentence for each one resized.

    Fixed positions (sine-cosine tables) are never interpolated: the model's own are those of its resolution. Tensors
    that are no tables of positions are untouched.

    Raises:
        CheckpointError: With ``"exact"``, for tables of another length; with ``"stretch"``, for texts that cannot be.
    """
    one_of("positions", positions, Positions)
    wanted = model.state_dict()
    if positions == "exact":
        _check_exact(state, wanted, source)
        return state, ()
    state, resized = _interpolated(model, state)
    if positions == "stretch":
        state, stretched = _stretched(state, wanted, source)
        resized = (*resized, *stretched)
    return state, resized


def _check_exact(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], source: str) -> None:
    for name, instead in ((IMAGE_POSITIONS, "interpolate"), (POSITIONS, "stretch")):
        if name in state and name in wanted and _rows(state[name]) != _rows(wanted[name]):
            theirs, ours = _rows(state[name]), _rows(wanted[name])
            raise CheckpointError(
                f"positions='exact': {source} has {theirs} positions in {name}, the model {ours}; "
                f"build the model as the file's, or take positions='{instead}' (train.init_positions)."
            )


def _rows(table: Tensor) -> int:
    return table.shape[-2] if table.ndim > 1 else 0


def _interpolated(model: nn.Module, state: dict[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    trunk = getattr(getattr(model, "visual", None), "trunk", None)
    own = getattr(trunk, "pos_embed", None)
    grid = getattr(getattr(trunk, "patch_embed", None), "grid_size", None)
    given = state.get(IMAGE_POSITIONS)
    if given is None or grid is None or not isinstance(own, nn.Parameter) or own.ndim != 3:
        return state, ()
    rows, columns = int(grid[0]), int(grid[1])
    prefix = own.shape[1] - rows * columns
    if given.ndim != 3 or given.shape[1] == own.shape[1] or _is_fixed(own, (rows, columns), prefix):
        return state, ()
    table = interpolate_image_positions(given, grid=(rows, columns), prefix=prefix)
    if table is None:
        return state, ()
    side = math.isqrt(given.shape[1] - prefix)
    note = f"{IMAGE_POSITIONS} interpolated from {side} x {side} to {rows} x {columns} patches"
    return {**state, IMAGE_POSITIONS: table}, (note,)


def _is_fixed(table: Tensor, grid: tuple[int, int], prefix: int) -> bool:
    width = table.shape[2]
    return width % 4 == 0 and torch.equal(
        table.detach().float().cpu(), sincos_2d(width, grid, prefix_tokens=prefix)
    )


def _stretched(
    state: dict[str, Tensor], wanted: Mapping[str, Tensor], source: str
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    if POSITIONS not in state or POSITIONS not in wanted:
        where = source if POSITIONS not in state else "the model"
        raise CheckpointError(
            f"positions='stretch': {where} has no {POSITIONS}; expected a text transformer's."
        )
    table, length = state[POSITIONS], len(wanted[POSITIONS])
    notes: tuple[str, ...] = ()
    if len(table) != length:
        stretched = stretch_positions(table)
        if len(stretched) != length:
            raise CheckpointError(
                f"positions='stretch': the {len(table)} positions of {source} become {len(stretched)}, but the model "
                f"has {length}; set model.textual.context_length={len(stretched)}."
            )
        notes = (f"{POSITIONS} stretched from {len(table)} to {length}",)
        table = stretched
    state = {**state, POSITIONS: table}
    if RESIDUAL_POSITIONS in wanted:
        state.setdefault(RESIDUAL_POSITIONS, table.clone())
    return state, notes

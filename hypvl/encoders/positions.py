"""Tables of positions: fixed sine-cosine ones for patches of an image, learned ones stretched for longer texts."""

import torch
from torch import Tensor


def sincos_2d(
    width: int, grid: tuple[int, int], *, prefix_tokens: int = 1, temperature: float = 10000.0
) -> Tensor:
    """Position table of a grid of patches, after ``prefix_tokens`` rows of zeros (the class token).

    The patch in grid row i and column j, as a patch embedding flattens them (row after row), gets
    ``[sin(i w), cos(i w), sin(j w), cos(j w)]`` with ``w_k = temperature^(-k / q)``, k = 0 .. q - 1, and
    q = width / 4: the first half of the channels encodes the row, the second half the column.

    Args:
        width: Channels per token, a multiple of 4.
        grid: Rows and columns of patches, both at least 1.
        prefix_tokens: Tokens before the patches, which have no position.
        temperature: Longest wavelength over 2 pi, in patches; above 1.

    Returns:
        fp32 table of shape (1, prefix_tokens + rows * columns, width).

    Raises:
        ValueError: When ``width`` is not a positive multiple of 4.

    Source: Vaswani et al. 2017, section 3.5, per axis as in MoCo v3 (Chen et al. 2021).
    """
    if width < 4 or width % 4:
        raise ValueError(f"width is {width}, but sine-cosine positions need a positive multiple of 4.")
    rows, columns = grid
    quarter = width // 4
    # Parity: fp32 throughout, and the reciprocal of a power; fp64 rounded once differs by up to 3e-7.
    omega = 1.0 / temperature ** (torch.arange(quarter, dtype=torch.float32) / quarter)  # (q,)
    row = torch.arange(rows, dtype=torch.float32)[:, None] * omega  # (rows, q)
    column = torch.arange(columns, dtype=torch.float32)[:, None] * omega  # (columns, q)
    # Parity: the published code calls the first half "w", yet it encodes the ROW; checkpoints need that.
    first = torch.cat([row.sin(), row.cos()], dim=-1)[:, None].expand(rows, columns, -1)
    second = torch.cat([column.sin(), column.cos()], dim=-1)[None].expand(rows, columns, -1)
    patches = torch.cat([first, second], dim=-1).reshape(rows * columns, width)
    return torch.cat([patches.new_zeros(prefix_tokens, width), patches])[None]


def stretch_positions(table: Tensor, *, keep: int = 20, factor: int = 4) -> Tensor:
    """A longer table of learned positions from a shorter one, by linear interpolation.

    The first ``keep`` rows are copied. Each row j after them becomes ``factor`` rows
    ``(1 - q / factor) p_j + (q / factor) p_{j+1}``, q = 0 .. factor - 1; those of the last row go on as the table
    ended, ``p_L + (q / factor) (p_L - p_{L-1})``. 77 rows become 20 + 4 * 57 = 248.

    Args:
        table: (L, W), L at least 2.
        keep: Rows that stay, 0 .. L: those well trained on short texts.
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
    following = torch.cat((x[1:], 2 * x[-1:] - x[-2:-1]))  # the row after the last one, had it gone on
    share = torch.arange(factor, dtype=x.dtype, device=x.device)[:, None] / factor  # (factor, 1)
    stretched = torch.lerp(x[keep:, None], following[keep:, None], share)  # (L - keep, factor, W)
    return torch.cat((x[:keep], stretched.flatten(0, 1))).to(table.dtype)

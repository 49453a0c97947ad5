"""Fixed two-dimensional sine-cosine positions for the patches of an image."""

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

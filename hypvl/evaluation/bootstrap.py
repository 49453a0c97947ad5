"""Bootstrap confidence intervals of metrics that are means over items."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

# Indices drawn at once: 32 MiB of int64.
_BLOCK = 1 << 22


def bootstrap_intervals(
    samples: Mapping[str, Sequence[float]], *, level: float = 0.95, resamples: int = 1000, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Percentile intervals of the means, by resampling the items with replacement.

    Metrics over the same number of items are resampled together, so that their intervals belong to the same draws.

    Args:
        samples: Metric -> value of each item (N,), finite.
        level: Share of the resampled means inside, in (0, 1).
        resamples: How many, >= 100.
        seed: Of the draws; nothing else is random.

    Returns:
        Metric -> (low, high), on the scale of the values. Metrics without items are left out.

    Raises:
        ValueError: for another level or number of resamples, or a value that is not finite.

    Source: Efron & Tibshirani 1993, An Introduction to the Bootstrap, section 13.3 (the percentile interval).
    """
    if not 0 < level < 1 or resamples < 100:
        raise ValueError(
            f"level, resamples: got {level}, {resamples}; expected a level in (0, 1), at least 100 resamples."
        )
    by_length: dict[int, list[str]] = {}
    for name, values in samples.items():
        if len(values):
            by_length.setdefault(len(values), []).append(name)
    found: dict[str, tuple[float, float]] = {}
    edges = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    for names in by_length.values():
        table = torch.tensor([list(samples[name]) for name in names], dtype=torch.float64)  # (M, N)
        if not bool(table.isfinite().all()):
            bad = names[int((~table.isfinite()).any(dim=1).nonzero()[0])]
            raise ValueError(f"samples of {bad}: got NaN or infinite values; expected finite ones.")
        bounds = _resampled_means(table, resamples, seed).quantile(edges, dim=1)  # (2, M)
        for name, low, high in zip(names, bounds[0].tolist(), bounds[1].tolist(), strict=True):
            found[name] = (low, high)
    return {name: found[name] for name in samples if name in found}


def _resampled_means(values: Tensor, resamples: int, seed: int) -> Tensor:
    """(M, N) -> (M, R)."""
    count = values.shape[1]
    generator = torch.Generator().manual_seed(seed)
    at_once = max(1, min(resamples, _BLOCK // count))
    parts = []
    for start in range(0, resamples, at_once):
        draws = torch.randint(count, (min(at_once, resamples - start), count), generator=generator)  # (r, N)
        parts.append(torch.stack([row[draws].mean(dim=1) for row in values]))
    return torch.cat(parts, dim=1)

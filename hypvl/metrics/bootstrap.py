"""Bootstrap confidence intervals of metrics that are means over items, or means over groups of items."""

from collections.abc import Callable, Hashable, Mapping, Sequence

import torch
from torch import Tensor

# Indices drawn at once: 32 MiB of int64.
_BLOCK = 1 << 22


def bootstrap_intervals(
    samples: Mapping[str, Sequence[float]],
    *,
    strata: Mapping[str, Sequence[Hashable]] | None = None,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
    on_draws: Callable[[int, int], None] | None = None,
) -> dict[str, tuple[float, float]]:
    """Percentile intervals of the means, by resampling the items with replacement.

    For a metric that is the unweighted mean of the means of groups (classes, kinds, folds), ``strata`` holds the
    groups. Its items are resampled within their group, for the size of a group is part of the metric: drawn across
    groups, the weights of the items would not add up to 1, and a share could exceed 100 %. A group of one item adds no
    spread.

    Metrics over the same items and groups share their resamples. No bound lies outside the range of the values.

    Args:
        samples: Metric -> value of each item (N,), finite.
        strata: Metric -> group of each item (N,), for metrics that are a mean over groups.
        level: Share of the resampled means inside, in (0, 1).
        resamples: Number of resamples, >= 100.
        seed: Seed of the resamples; nothing else is random.
        on_draws: Called with the resamples that are drawn, and all that will be.

    Returns:
        Metric -> (low, high), on the scale of the values. Metrics without items are left out.

    Raises:
        ValueError: for another level or number of resamples, a value that is not finite, or groups that do not fit.

    Source: Efron & Tibshirani 1993, An Introduction to the Bootstrap, section 13.3 (the percentile interval) and
        section 8.3 (several samples, each resampled on its own).

    Example:
        >>> intervals = bootstrap_intervals({"accuracy": [100.0, 0.0, 100.0, 100.0]})
        >>> low, high = intervals["accuracy"]
        >>> low <= 75.0 <= high
        True
    """
    if not 0 < level < 1 or resamples < 100:
        raise ValueError(
            f"level, resamples: got {level}, {resamples}; expected a level in (0, 1), at least 100 resamples."
        )
    strata = {} if strata is None else strata
    if unknown := [name for name in strata if name not in samples]:
        raise ValueError(f"strata: got groups of {unknown[0]!r}, which has no samples.")
    together: dict[tuple[int, tuple[int, ...] | None], list[str]] = {}
    for name, values in samples.items():
        groups = _numbered(name, strata[name], len(values)) if name in strata else None
        if len(values):
            together.setdefault((len(values), groups), []).append(name)
    result: dict[str, tuple[float, float]] = {}
    edges = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    for number, ((_, groups), names) in enumerate(together.items()):
        table = torch.tensor([list(samples[name]) for name in names], dtype=torch.float64)  # (M, N)
        if not bool(table.isfinite().all()):
            bad = names[int((~table.isfinite()).any(dim=1).nonzero()[0])]
            raise ValueError(f"samples of {bad}: got NaN or infinite values; expected finite ones.")

        def drawn(count: int, before: int = number * resamples) -> None:
            if on_draws is not None:
                on_draws(before + count, len(together) * resamples)

        means = _resampled_means(table, resamples, seed, groups, drawn)  # (M, R)
        # Rounded sums may leave the range by their last digit.
        means = torch.minimum(torch.maximum(means, table.amin(1, keepdim=True)), table.amax(1, keepdim=True))
        bounds = means.quantile(edges, dim=1)  # (2, M)
        for name, low, high in zip(names, bounds[0].tolist(), bounds[1].tolist(), strict=True):
            result[name] = (low, high)
    return {name: result[name] for name in samples if name in result}


def _numbered(name: str, groups: Sequence[Hashable], count: int) -> tuple[int, ...]:
    """The groups of N items as 0, 1, ... in the order in which they appear."""
    if len(groups) != count:
        raise ValueError(
            f"strata of {name}: got {len(groups)} groups for {count} items; expected one per item."
        )
    number: dict[Hashable, int] = {}
    return tuple(number.setdefault(group, len(number)) for group in groups)


def _resampled_means(
    values: Tensor, resamples: int, seed: int, groups: tuple[int, ...] | None, drawn: Callable[[int], None]
) -> Tensor:
    """(M, N) -> (M, R): means, or with groups the plain means of the groups' means."""
    count = values.shape[1]
    generator = torch.Generator().manual_seed(seed)
    at_once = max(1, min(resamples, _BLOCK // count))
    parts = []
    if groups is not None:
        group, order = torch.tensor(groups).sort(stable=True)
        sizes = group.bincount()
        values = values[:, order]
        size = sizes[group]  # (N,), of the group that the item is drawn from
        begin = (sizes.cumsum(0) - sizes)[group]
    for start in range(0, resamples, at_once):
        drawn(start)
        shape = (min(at_once, resamples - start), count)
        if groups is None:
            draws = torch.randint(count, shape, generator=generator)  # (r, N)
            parts.append(torch.stack([row[draws].mean(dim=1) for row in values]))
        else:
            uniform = torch.rand(shape, dtype=torch.float64, generator=generator)  # in [0, 1)
            draws = begin + (uniform * size).long().clamp_(max=size - 1)
            sums = values.new_zeros(len(values), shape[0], len(sizes))  # (M, r, groups)
            for row, total in zip(values, sums, strict=True):
                total.index_add_(1, group, row[draws])
            parts.append((sums / sizes).mean(dim=2))
    return torch.cat(parts, dim=1)

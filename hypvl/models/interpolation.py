"""Weights between those a model was fine-tuned from and those it has now."""

from collections.abc import Mapping

import torch
from torch import Tensor

from hypvl.checks import number
from hypvl.errors import CheckpointError
from hypvl.models.convert import listed


def interpolate_weights(
    initial: Mapping[str, Tensor], finetuned: Mapping[str, Tensor], *, alpha: float
) -> dict[str, Tensor]:
    """The state dict ``(1 - alpha) * initial + alpha * finetuned`` of one model.

    Parameters and floating buffers are interpolated as they are stored: curvature and scales by their logarithms. Other
    buffers (counters) are those of ``finetuned``. With 0 and 1 the result is the one or the other, bit for bit.

    Args:
        initial, finetuned: State dicts with the same names and shapes.
        alpha: In [0, 1]; the paper's choice without a held-out set is 0.5.

    Returns:
        Tensors in the dtypes of ``finetuned``.

    Raises:
        ValueError: for another ``alpha``.
        CheckpointError: for state dicts of different models, naming what differs.

    Source: WiSE-FT (Wortsman et al. 2022, arXiv 2109.01903), section 3, equation 1.

    Example:
        >>> interpolate_weights({"w": torch.tensor([0.0])}, {"w": torch.tensor([4.0])}, alpha=0.25)
        {'w': tensor([1.])}
    """
    alpha = number("alpha", alpha, least=0, most=1)
    one_only = sorted(initial.keys() ^ finetuned.keys())
    if one_only:
        raise CheckpointError(f"different models: only one of them has {listed(one_only, limit=4)}.")
    for name, theirs in finetuned.items():
        ours = initial[name]
        if ours.shape != theirs.shape or ours.is_floating_point() != theirs.is_floating_point():
            raise CheckpointError(
                f"different models: {name} is {ours.dtype} {tuple(ours.shape)} in the initial one and {theirs.dtype} "
                f"{tuple(theirs.shape)} in the fine-tuned one."
            )
    if alpha in (0, 1):  # a sum would lose the sign of -0.0
        return {name: tensor.clone() for name, tensor in (finetuned if alpha else initial).items()}
    return {name: _between(initial[name], theirs, alpha) for name, theirs in finetuned.items()}


def _between(initial: Tensor, finetuned: Tensor, alpha: float) -> Tensor:
    if not finetuned.is_floating_point():
        return finetuned.clone()
    return torch.lerp(initial.double(), finetuned.double(), alpha).to(finetuned.dtype)

"""The device a command works on."""

from typing import TYPE_CHECKING

from hypvl.errors import ConfigError

if TYPE_CHECKING:
    import torch


def pick_device(name: str | None) -> "torch.device":
    """The device of that name; None = a GPU if there is one, else the CPU.

    Raises:
        ConfigError: when the name is unknown, or the device cannot be used here.
    """
    import torch

    try:
        device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name is None else name)
        torch.empty(1, device=device)
    # Unknown names and absent GPUs; torch asserts where CUDA was left out, and meta has no values.
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(f"--device: {name!r} cannot be used ({reason}); expected cpu or cuda.") from error
    return device

"""Commands that work in one process, or as one of those that torchrun has started."""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import torch

Result = TypeVar("Result")


def run_on_ranks(main: Callable[..., Result], *args: object, device: str | None) -> Result:
    """``main(*args)`` in a process group under torchrun, else just so.

    Args:
        main: Does the work; under torchrun every process calls it.
        args: For it.
        device: As ``--device``; ``cpu`` uses no GPU.

    Raises:
        ConfigError: when there are fewer GPUs than processes.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return main(*args)
    from hypvl.distributed import launch

    on_gpu = device is None or device.startswith("cuda")
    result: Result = launch(main, *args, num_gpus=None if on_gpu else 0)
    return result


def rank_device(name: str | None) -> "torch.device":
    """The device of this process: its own GPU under torchrun, else as :func:`hypvl.cli.devices.pick_device`.

    Raises:
        ConfigError: when it cannot be used here.
    """
    from hypvl import distributed
    from hypvl.cli.devices import pick_device

    return distributed.device() if distributed.is_initialized() else pick_device(name)

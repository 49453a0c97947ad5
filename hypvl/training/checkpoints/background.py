"""Checkpoints written by a thread while training continues: one at a time, from a copy of the state on the host."""

import copy
import threading
from collections.abc import Callable, Mapping
from typing import Any

import torch
from loguru import logger
from torch import Tensor


class BackgroundWriter:
    """Runs one write at a time in a thread; its error is raised by whoever asks next."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    @property
    def failed(self) -> bool:
        """Whether the last write ended with an error, which :meth:`finish` raises."""
        return self._error is not None

    def start(self, write: Callable[[], object]) -> None:
        """Begin a write, after the one before has ended. Raises the error of that one."""
        self.finish()
        # Not a daemon: a process that ends by itself waits for it.
        self._thread = threading.Thread(target=self._run, args=(write,), name="checkpoint")
        self._thread.start()

    def finish(self) -> None:
        """Wait until nothing is being written. Raises the error of the last write, once."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def close(self) -> None:
        """As :meth:`finish`, but an error is only logged: for the end after another error."""
        try:
            self.finish()
        except Exception as error:  # noqa: BLE001  # whatever it was, the run ends with the error before it
            logger.error("a checkpoint could not be written: {}", error)

    def _run(self, write: Callable[[], object]) -> None:
        try:
            write()
        except BaseException as error:  # noqa: BLE001  # it is raised in the main thread
            self._error = error


def on_host(state: Any) -> Any:
    """A copy of nested dicts, lists and tuples whose tensors lie on the host, and that later steps do not change.

    Tensors that are the same memory stay the same memory, so that a file of the copy is that of the state.

    Example:
        >>> weight = torch.zeros(2)
        >>> kept = on_host({"weight": weight})
        >>> weight += 1
        >>> kept["weight"]
        tensor([0., 0.])
    """
    copies: dict[tuple[Any, ...], Tensor] = {}

    def convert(value: Any) -> Any:
        if isinstance(value, Tensor):
            place = (value.device, value.data_ptr(), value.dtype, value.shape, value.stride())
            if value.numel() == 0 or place not in copies:
                copies[place] = value.detach().to("cpu", copy=True)
            return copies[place]
        if isinstance(value, dict):
            result = copy.copy(value)  # with what a state_dict has beside its entries
            for key, item in value.items():
                result[key] = convert(item)
            return result
        if isinstance(value, Mapping):
            return {key: convert(item) for key, item in value.items()}
        if type(value) in (list, tuple):
            return type(value)(convert(item) for item in value)
        return copy.deepcopy(value)

    with torch.no_grad():
        return convert(state)

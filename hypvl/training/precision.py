"""In which precision a run computes."""

import contextlib
from dataclasses import dataclass
from typing import Any, Literal

import torch

from hypvl.errors import ConfigError

Amp = Literal["auto", "bf16", "fp16", "fp32", False]


@dataclass(frozen=True)
class Precision:
    """Mixed precision of a run.

    Args:
        dtype: torch.bfloat16, torch.float16, or None for full precision.
        device: Where the model lives.
    """

    dtype: torch.dtype | None
    device: torch.device

    @classmethod
    def choose(cls, amp: Amp, device: torch.device) -> "Precision":
        """Precision that ``train.amp`` asks for.

        Args:
            amp: "bf16", "fp16", "fp32" (the same as False), or "auto": bf16 where the hardware has it, else fp16
                on a GPU and full precision on a CPU.
            device: Where the model lives.

        Raises:
            ConfigError: for another value.
        """
        if amp == "auto":
            if device.type == "cuda":
                native = torch.cuda.is_bf16_supported(including_emulation=False)
                return cls(torch.bfloat16 if native else torch.float16, device)
            return cls(torch.bfloat16 if _cpu_has_bf16() else None, device)
        choices: dict[Any, torch.dtype | None] = {"bf16": torch.bfloat16, "fp16": torch.float16}
        choices |= {"fp32": None, False: None}
        if amp not in choices:
            raise ConfigError(f"train.amp: got {amp!r}; expected 'auto', 'bf16', 'fp16', 'fp32' or false.")
        return cls(choices[amp], device)

    def autocast(self) -> contextlib.AbstractContextManager[None]:
        """Context for the forward pass."""
        if self.dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def wire(self, *, compress: bool) -> torch.dtype | None:
        """What gradients are sent as between GPUs; None = as they are.

        The 16 bits of the forward pass. Only a scaled loss keeps gradients inside the range of fp16: unscaled ones,
        as bf16's are, would lose their small entries in it.

        Args:
            compress: Whether 16 bits are wanted; on CPUs, and in full precision, they are never used.
        """
        return self.dtype if compress and self.device.type == "cuda" else None

    def make_scaler(self) -> torch.amp.GradScaler:
        """Gradient scaler; does nothing unless the precision is fp16."""
        return torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)


def _cpu_has_bf16() -> bool:
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())

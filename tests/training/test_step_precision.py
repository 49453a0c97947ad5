import pytest
import torch

from hypvl.training.step import Precision

CPU = torch.device("cpu")


def test_precision_by_name() -> None:
    assert Precision.choose("bf16", CPU).dtype == torch.bfloat16
    assert Precision.choose("fp16", CPU).dtype == torch.float16
    assert Precision.choose(False, CPU).dtype is None
    with pytest.raises(ValueError, match=r"train\.amp: got 'half'"):
        Precision.choose("half", CPU)  # type: ignore[arg-type]  # refused


def test_bf16_is_for_hardware_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Turing card can hold bf16 tensors, and computes with them slowly."""
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    assert Precision.choose("auto", torch.device("cuda")).dtype == torch.float16
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    assert Precision.choose("auto", torch.device("cuda")).dtype == torch.bfloat16


def test_gradients_travel_as_fp16_only_when_the_loss_is_scaled() -> None:
    """Unscaled, 1e-8 is a gradient in bf16 and nothing in fp16."""
    gpu = torch.device("cuda")
    for dtype in (torch.float16, torch.bfloat16, None):
        wire = Precision(dtype, gpu).wire(compress=True)
        assert wire == dtype
        if wire is not None and wire != torch.float16:
            assert torch.tensor(1e-8).to(wire).item() == pytest.approx(1e-8, rel=4e-3)
        assert Precision(dtype, gpu).wire(compress=False) is None
        assert Precision(dtype, CPU).wire(compress=True) is None

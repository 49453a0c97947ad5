import pytest
import torch

from hypvl.errors import ConfigError
from hypvl.training.precision import Precision

CPU = torch.device("cpu")


def test_precision_by_name() -> None:
    assert Precision.choose("bf16", CPU).dtype == torch.bfloat16
    assert Precision.choose("fp16", CPU).dtype == torch.float16
    assert Precision.choose(False, CPU).dtype is None
    with pytest.raises(ConfigError, match=r"train\.amp: got 'half'"):
        Precision.choose("half", CPU)  # type: ignore[arg-type]

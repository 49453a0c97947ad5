import pytest
import torch

from hypvl.training.summary import flops_per_sample, parameter_counts, summary_table
from tests.training.tiny import tiny_model


def test_parameters_by_hand() -> None:
    counts = parameter_counts(tiny_model("meru"))
    assert counts["geometry"] == (1, 1)
    assert counts["scorer"] == (1, 1)
    assert counts["visual_head"] == (16 * 12 + 1, 16 * 12 + 1)
    assert counts["visual"][1] == counts["visual"][0] - 16 * 16  # 16 fixed positions of width 16


def test_text_flops_by_hand_with_attention() -> None:
    """The last block, of width W on L tokens: 4 L W^2 and 2 L^2 W for attention; 8 W^2 for the one token read out."""
    model = tiny_model("clip")
    length, width = 8, 16
    matrices = 4 * length * width**2 + 8 * width**2
    attention = 2 * length**2 * width
    norms = 5 * width * (length + 2)  # fvcore counts 5 operations per normalised value
    assert flops_per_sample(model)["textual"] == pytest.approx(matrices + attention + norms, rel=0.02)


def test_counting_changes_neither_mode_nor_weights() -> None:
    model = tiny_model("clip").train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    table = summary_table(model)
    assert model.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert "visual_head" in table
    assert "textual" in table

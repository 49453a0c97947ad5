"""Text transformers that are not causal, or read out elsewhere than at end-of-text, against open_clip's own."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from hypvl.encoders.text import MLP, TextTransformer, pad_texts
from hypvl.models.convert.open_clip import to_hypvl

EOT = 59
# Our arguments, and those of open_clip's transformer that mean the same.
OPTIONS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"causal": False}, {"no_causal_mask": True}),
    ({"read_out": "last"}, {"pool_type": "last"}),
    ({"causal": False, "read_out": "last", "pad_token": 1}, {"no_causal_mask": True, "pool_type": "last"}),
    ({"causal": False, "read_out": "first"}, {"no_causal_mask": True, "pool_type": "first"}),
    ({"read_out": "largest_id"}, {"pool_type": "argmax"}),
    ({"eot_token": 2}, {"pool_type": "eos", "eos_id": 2}),
    ({"mlp_ratio": 3.7362}, {"mlp_ratio": 3.7362}),
]


def tokens(pad: int = 0) -> Tensor:
    rows = torch.full((3, 9), pad)
    for row, text in zip(
        rows, ([58, 5, 3, 2, EOT], [58, 2, EOT], [58, 7, 6, 3, 9, 4, 9, 2, EOT]), strict=True
    ):
        row[: len(text)] = torch.tensor(text)
    return rows


@pytest.mark.parametrize(("options", "theirs"), OPTIONS, ids=str)
def test_features_are_those_of_open_clip(options: dict[str, Any], theirs: dict[str, Any]) -> None:
    from open_clip.transformer import TextTransformer as OpenClipText

    torch.manual_seed(0)
    other = OpenClipText(9, 60, width=24, heads=2, layers=2, output_dim=24, **theirs).double().eval()
    with torch.no_grad():
        for p in other.parameters():
            p.add_(0.2 * torch.randn_like(p))
        other.text_projection.copy_(torch.eye(24))
    state = {f"text.{key}": tensor for key, tensor in other.state_dict().items()}
    image = {"visual.trunk.norm.weight": torch.ones(1)}
    names = {**state, **image, "logit_scale": torch.zeros(())}
    mine = {
        key.removeprefix("textual."): tensor
        for key, tensor in to_hypvl(names).items()
        if key.startswith("textual.")
    }
    ours = TextTransformer("L2_W24_A2", vocab_size=60, context_length=9, **options).double()
    ours.load_state_dict(mine)
    full = tokens(options.get("pad_token", 0))
    wanted = other(full)
    assert wanted.std(0).min() > 0.01  # the texts differ
    torch.testing.assert_close(ours(full), wanted, rtol=0, atol=1e-10)
    # Filled with 0, or cut to the longest text, they are the same texts.
    torch.testing.assert_close(ours(tokens()[:2, :5]), wanted[:2], rtol=0, atol=1e-10)
    torch.testing.assert_close(ours(tokens()[:2, :5], [5, 3]), wanted[:2], rtol=0, atol=1e-10)


def test_padding_belongs_to_the_text_where_it_is_read() -> None:
    torch.manual_seed(0)
    model = TextTransformer(
        "L1_W8_A2", vocab_size=60, context_length=9, causal=False, read_out="last", pad_token=1
    )
    other = TextTransformer("L1_W8_A2", vocab_size=60, context_length=9, causal=False, read_out="last")
    other.load_state_dict(model.state_dict())
    assert (model(tokens()) - other(tokens())).abs().max() > 1e-3


def test_zeros_after_a_text_are_padding_and_those_inside_are_not() -> None:
    rows = torch.tensor([[5, 0, 6, 0, 0], [0, 0, 0, 0, 0]])
    assert pad_texts(rows, 6, pad_token=3).tolist() == [[5, 0, 6, 3, 3, 3], [3] * 6]
    assert pad_texts(rows, 6, pad_token=0).tolist() == [[5, 0, 6, 0, 0, 0], [0] * 6]


def test_gelu_by_tanh_and_epsilons_by_hand() -> None:
    mlp = MLP(1, activation="gelu_tanh", ratio=1.0).double()
    with torch.no_grad():
        mlp.c_fc.weight.fill_(1)
        mlp.c_proj.weight.fill_(1)
        mlp.c_fc.bias.zero_()
        mlp.c_proj.bias.zero_()
    x = 1.5
    expected = 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    assert mlp(torch.tensor([[x]], dtype=torch.float64)).item() == pytest.approx(expected, abs=1e-12)
    model = TextTransformer("L1_W8_A2", vocab_size=60, context_length=9, norm_eps=1e-6)
    assert [m.eps for m in model.modules() if isinstance(m, torch.nn.LayerNorm)] == [1e-6] * 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"read_out": "mean"}, "read_out: got 'mean'; expected 'end_of_text', 'first', 'last'"),
        ({"causal": "no"}, "causal: got 'no'; expected True or False"),
        ({"mlp_ratio": 0}, "mlp_ratio: got 0"),
        ({"norm_eps": 0}, "norm_eps: got 0; expected a number above 0"),
        ({"pad_token": 60}, "pad_token: got 60; expected a whole number of at least 0 and up to 59"),
        ({"prompt_vectors": 8}, "prompt_vectors: got 8; expected a whole number of at least 0 and up to 7"),
    ],
)
def test_options_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TextTransformer("L1_W8_A2", vocab_size=60, context_length=9, **options)

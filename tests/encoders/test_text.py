"""The text transformer: masks, padding, read-out, names, initial scale, checkpointing."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from hypvl.encoders.text import (
    MLP,
    ResidualBlock,
    SelfAttention,
    TextTransformer,
    parse_arch,
    read_out_positions,
)
from hypvl.errors import ConfigError
from tests.parity.reference import load

EOT = 99


def tiny(**options: Any) -> TextTransformer:
    torch.manual_seed(0)
    model = TextTransformer("L2_W32_A4", vocab_size=100, context_length=12, **options).double()
    with torch.no_grad():
        for p in model.parameters():  # larger than at the start, so that every part matters
            p.add_(0.2 * torch.randn_like(p))
    return model


TOKENS = torch.tensor([[98, 5, 6, 7, EOT, 0, 0], [98, EOT, 0, 0, 0, 0, 0], [98, 1, 2, 3, 4, 5, EOT]])


def on_rows(layer: torch.nn.Module, x: Tensor) -> Tensor:
    """A layer on rows of equal length: (B, L, W) -> (B, L, W)."""
    rows, length, _ = x.shape
    return layer(x.flatten(0, 1), [(rows, length)]).unflatten(0, (rows, length))


def masked_attention(attention: SelfAttention, x: Tensor) -> Tensor:
    """Attention written out: softmax of the masked products, head by head."""
    length, width = x.shape[1:]
    size = width // attention.heads
    q, k, v = F.linear(x, attention.in_proj_weight, attention.in_proj_bias).split(width, dim=-1)
    future = torch.ones(length, length, dtype=torch.bool).triu(1)
    heads = []
    for h in range(attention.heads):
        part = slice(h * size, (h + 1) * size)
        logits = (q[..., part] @ k[..., part].mT / math.sqrt(size)).masked_fill(future, -math.inf)
        heads.append(logits.softmax(dim=-1) @ v[..., part])
    return F.linear(torch.cat(heads, dim=-1), attention.out_proj.weight, attention.out_proj.bias)


def test_attention_equals_masked_softmax() -> None:
    torch.manual_seed(1)
    attention = SelfAttention(24, 3).double()
    torch.nn.init.normal_(attention.in_proj_weight, std=0.5)
    torch.nn.init.normal_(attention.in_proj_bias)
    x = torch.randn(2, 9, 24, dtype=torch.float64)
    torch.testing.assert_close(on_rows(attention, x), masked_attention(attention, x), rtol=0, atol=1e-12)


def test_attention_has_the_layout_of_torch() -> None:
    torch.manual_seed(2)
    theirs = torch.nn.MultiheadAttention(16, 4, batch_first=True, dtype=torch.float64)
    ours = SelfAttention(16, 4).double()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 5, 16, dtype=torch.float64)
    mask = torch.ones(5, 5, dtype=torch.bool).triu(1)
    torch.testing.assert_close(
        on_rows(ours, x), theirs(x, x, x, attn_mask=mask, need_weights=False)[0], rtol=0, atol=1e-12
    )


def test_block_equals_that_of_torch() -> None:
    torch.manual_seed(3)
    theirs = torch.nn.TransformerEncoderLayer(
        16, 4, 64, dropout=0.0, activation=F.gelu, batch_first=True, norm_first=True, dtype=torch.float64
    )
    ours = ResidualBlock(16, 4).double()
    names = {
        "self_attn": "attn",
        "linear1": "mlp.c_fc",
        "linear2": "mlp.c_proj",
        "norm1": "ln_1",
        "norm2": "ln_2",
    }
    state = theirs.state_dict()
    for name in list(state):
        part, _, rest = name.partition(".")
        state[f"{names[part]}.{rest}"] = torch.randn_like(state[name])
        state[name] = state[f"{names[part]}.{rest}"]
    theirs.load_state_dict({n: state[n] for n in theirs.state_dict()})
    ours.load_state_dict({n: state[n] for n in ours.state_dict()})
    x = torch.randn(2, 5, 16, dtype=torch.float64)
    mask = torch.ones(5, 5, dtype=torch.bool).triu(1)
    torch.testing.assert_close(
        on_rows(ours, x), theirs(x, src_mask=mask, is_causal=True), rtol=1e-10, atol=1e-10
    )


def test_no_square_buffer_is_held() -> None:
    assert list(TextTransformer("L1_W64", vocab_size=50).buffers()) == []


def test_padding_changes_nothing() -> None:
    model = tiny()
    trimmed = model(TOKENS)
    padded = model(F.pad(TOKENS, (0, 5)))
    torch.testing.assert_close(padded, trimmed, rtol=0, atol=1e-12)
    alone = torch.cat([model(row[None, : int((row != 0).sum())]) for row in TOKENS])
    torch.testing.assert_close(alone, trimmed, rtol=0, atol=1e-12)


def test_reads_the_first_end_of_text() -> None:
    model = tiny()
    once = torch.tensor([[98, 5, EOT, 0, 0]])
    again = torch.tensor([[98, 5, EOT, 7, EOT]])
    torch.testing.assert_close(model(again), model(once), rtol=0, atol=1e-12)
    assert read_out_positions(TOKENS, eot_token=EOT).tolist() == [4, 1, 6]


def test_row_without_end_is_read_at_its_last_token() -> None:
    rows = torch.tensor([[98, 5, 6, 0], [98, 5, 6, 7], [0, 0, 0, 0], [98, 0, 6, 0]])
    assert read_out_positions(rows, eot_token=EOT).tolist() == [2, 3, 0, 2]


def test_every_token_before_the_end_counts_and_its_place_too() -> None:
    model = tiny()
    base = model(torch.tensor([[98, 5, 6, EOT]]))
    for other in ([98, 5, 7, EOT], [98, 6, 5, EOT], [97, 5, 6, EOT], [98, 5, 6, 6, EOT]):
        assert (model(torch.tensor([other])) - base).abs().max() > 1e-3


def test_output_is_normalised_last() -> None:
    model = tiny()
    with torch.no_grad():
        model.ln_final.weight.fill_(3.0)
        model.ln_final.bias.fill_(1.0)
    features = model(TOKENS)
    ones = torch.ones(3, dtype=torch.float64)
    torch.testing.assert_close(features.mean(dim=1), ones)
    torch.testing.assert_close(features.std(dim=1, correction=0), 3 * ones, rtol=1e-4, atol=0)  # eps 1e-5


def test_grad_checkpointing_gives_the_same_gradients() -> None:
    gradients = []
    for recompute in (False, True):
        model = tiny(grad_checkpointing=recompute)
        model(TOKENS).square().sum().backward()
        gradients.append([p.grad for p in model.parameters()])
    assert all(g is not None for g in gradients[0])
    for direct, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(recomputed, direct, rtol=0, atol=1e-12)


def test_grad_checkpointing_keeps_less_for_the_backward_pass() -> None:
    def saved(model: TextTransformer) -> int:
        sizes: list[int] = []

        def note(t: Tensor) -> Tensor:
            sizes.append(t.numel())
            return t

        with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
            model(TOKENS)
        return sum(sizes)

    model = tiny()
    plain = saved(model)
    model.set_grad_checkpointing()
    assert saved(model) < plain / 3


@pytest.mark.parametrize(
    ("arch", "parsed"),
    [("L12_W512", (12, 512, 8)), ("L12_W512_A8", (12, 512, 8)), ("L2_W128_A4", (2, 128, 4)), ("L1_W64", (1, 64, 1))],
)  # fmt: skip
def test_arch_names(arch: str, parsed: tuple[int, int, int]) -> None:
    assert parse_arch(arch) == parsed


@pytest.mark.parametrize(
    ("arch", "message"),
    [
        ("L12W512", "L<layers>_W<width>"),
        ("l12_w512", "L12_W512"),
        ("L12_W512_A8 ", "it must read"),
        ("L2_W96", "L2_W96_A4"),
        ("L2_W96_A5", "divide the width"),
        ("L0_W64", "at least 1"),
        ("L2_W64_A0", "at least 1"),
        ("L100000000_W64", "at most 1000 layers"),
        ("L2_W640000", "a width of at most 65536"),
        (f"L2_W{'9' * 5000}", "it must read"),
    ],
)
def test_wrong_arch_names(arch: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_arch(arch)


def test_wrong_tokens_are_named() -> None:
    model = tiny()
    with pytest.raises(ValueError, match=r"tokens are 13 long, but the context length is 12"):
        model(torch.ones(1, 13, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"shape \(7,\)"):
        model(TOKENS[0])
    with pytest.raises(ValueError, match=r"shape \(2, 0\)"):
        model(TOKENS[:2, :0])
    with pytest.raises(ValueError, match=r"eot_token: got 100; .* up to 99"):
        TextTransformer("L1_W64", vocab_size=100, eot_token=100)


def test_end_of_text_is_the_last_id_unless_given() -> None:
    assert tiny().eot_token == 99
    assert tiny(eot_token=7).eot_token == 7
    assert read_out_positions(TOKENS, eot_token=7)[0] == 3


def test_initial_deviations() -> None:
    torch.manual_seed(0)
    model = TextTransformer("L3_W256", vocab_size=2000)
    block = model.resblocks[1]
    expected = {
        model.token_embed.weight: 0.02,
        model.posit_embed: 0.01,
        block.attn.in_proj_weight: 1 / 16,
        block.attn.out_proj.weight: 1 / 16 / math.sqrt(6),
        block.mlp.c_fc.weight: 1 / math.sqrt(512),
        block.mlp.c_proj.weight: 1 / 16 / math.sqrt(6),
    }
    for weight, std in expected.items():
        assert weight.std().item() == pytest.approx(std, rel=0.03)  # sampling: 0.5 % and less
        assert weight.mean().item() == pytest.approx(0, abs=std / 20)
    assert block.ln_1.eps == model.ln_final.eps == 1e-5


def test_published_names_and_shapes() -> None:
    manifest = load("state_dict_manifest")
    if manifest is None:
        pytest.skip("state_dict_manifest.json is absent")
    published = {
        name.removeprefix("textual."): tuple(shape)
        for name, (shape, _) in manifest["models"]["CLIP_S"]["state_dict"].items()
        if name.startswith("textual.") and name != "textual.attn_mask"
    }
    with torch.device("meta"):
        model = TextTransformer("L12_W512")
    assert {name: tuple(v.shape) for name, v in model.state_dict().items()} == published


def test_two_tables_of_positions_start_equal_and_only_the_second_learns() -> None:
    torch.manual_seed(0)
    model = TextTransformer("L1_W32_A4", vocab_size=100, context_length=12, fixed_positions=3)
    assert torch.equal(model.posit_embed, model.posit_embed_res)
    single = TextTransformer("L1_W32_A4", vocab_size=100, context_length=12)
    assert set(model.state_dict()) - set(single.state_dict()) == {"posit_embed_res"}
    single.load_state_dict({k: v for k, v in model.state_dict().items() if k != "posit_embed_res"})
    assert torch.equal(model(TOKENS), single(TOKENS))
    (model(TOKENS) * torch.randn(3, 32)).sum().backward()
    assert model.posit_embed.grad is None and model.posit_embed_res.grad is not None
    used = model.posit_embed_res.grad.abs().sum(1) > 0
    assert used.tolist() == [False] * 3 + [True] * 4 + [False] * 5  # texts of 7, the first 3 fixed


@pytest.mark.parametrize(("fixed", "length"), [(0, 4), (3, 2), (3, 3), (3, 12), (12, 12)])
def test_positions_come_from_both_tables(fixed: int, length: int) -> None:
    model = TextTransformer("L1_W32_A4", vocab_size=100, context_length=12, fixed_positions=fixed)
    with torch.no_grad():
        model.posit_embed.fill_(1.0)
        model.posit_embed_res.fill_(2.0)
    expected = [1.0] * min(fixed, length) + [2.0] * max(0, length - fixed)
    assert model.positions(length)[:, 0].tolist() == expected


def test_more_fixed_positions_than_there_are_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"fixed_positions: got 13; .* up to 12"):
        TextTransformer("L1_W32_A4", vocab_size=100, context_length=12, fixed_positions=13)


def test_quick_gelu_is_x_sigmoid_of_1702_thousandths_x() -> None:
    torch.manual_seed(0)
    mlp = MLP(4, activation="quick_gelu")
    with torch.no_grad():  # the first hidden channel is the first input, the output is that channel
        for parameter in mlp.parameters():
            parameter.zero_()
        mlp.c_fc.weight[0, 0] = mlp.c_proj.weight[0, 0] = 1.0
    x = torch.zeros(3, 4)
    x[:, 0] = torch.tensor([0.0, 2.0, -1.0])
    expected = [0.0, 2 / (1 + math.exp(-3.404)), -1 / (1 + math.exp(1.702))]
    assert mlp(x)[:, 0].tolist() == pytest.approx(expected, rel=1e-6)


def test_activation_changes_the_features_and_no_name() -> None:
    torch.manual_seed(0)
    exact = TextTransformer("L1_W32_A4", vocab_size=100, context_length=12)
    quick = TextTransformer("L1_W32_A4", vocab_size=100, context_length=12, activation="quick_gelu")
    quick.load_state_dict(exact.state_dict())
    difference = (quick(TOKENS) - exact(TOKENS)).abs().max().item()
    assert 1e-6 < difference < 0.1  # the curves differ by at most 0.02


def test_another_activation_is_an_error() -> None:
    with pytest.raises(
        ValueError, match=r"activation: got 'relu'; expected 'gelu', 'gelu_tanh' or 'quick_gelu'"
    ):
        TextTransformer("L1_W32_A4", activation="relu")  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"context_length": 0}, "context_length: got 0; expected a whole number of at least 2"),
        ({"context_length": -1}, "context_length: got -1"),
        ({"vocab_size": 0}, "vocab_size: got 0"),
        ({"vocab_size": "many"}, "vocab_size: got 'many'"),
        ({"dropout": 1.0}, "dropout: got 1.0; expected a number of at least 0 and below 1"),
    ],
)
def test_sizes_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TextTransformer("L1_W32_A4", **options)

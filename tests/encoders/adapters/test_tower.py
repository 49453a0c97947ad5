"""Adapters in every kind of block: they act, alone are trained, and do not depend on padding or recomputation."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hypvl.encoders.adapters.methods import METHODS, adapted, merge_adapters
from hypvl.encoders.image import TimmImageEncoder
from tests.encoders.adapters.hosts import HOSTS, OPTIONS, VIT, WIDTH, make, shaken

MAIN = ("text", "timm", "bert", "gpt2")
IDENTITY = ("lora_adapter", "ia3_adapter")


def with_method(host: str, method: str, **options: Any) -> nn.Module:
    return adapted(make(host), method, options=OPTIONS.get(method, {}) | options)


@pytest.mark.parametrize(
    ("host", "method"),
    [
        (host, method)
        for host in HOSTS
        for method in (METHODS if host in MAIN else ("mam_adapter", "unipelt"))
    ],
)
def test_only_the_adapter_learns_and_all_of_it(host: str, method: str) -> None:
    plain, x = make(host), HOSTS[host].inputs()
    before = {name: tensor.clone() for name, tensor in plain.state_dict().items()}
    with torch.no_grad():
        base = plain(x)
    encoder = adapted(plain, method, options=OPTIONS.get(method))
    assert encoder is plain
    state = encoder.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in before.items())
    assert {name.split(".")[0] for name in state.keys() - before.keys()} == {"adapter"}
    with torch.no_grad():
        assert torch.equal(encoder(x), base) == (method in IDENTITY)
    shaken(encoder)(x).square().sum().backward()
    without = [name for name, p in encoder.named_parameters() if p.requires_grad and not p.grad.any()]
    assert without == []
    assert {
        name for name, p in encoder.named_parameters() if p.grad is not None
    } == state.keys() - before.keys()


@pytest.mark.parametrize("host", ["timm", "bert"])
@pytest.mark.parametrize(
    "method", ["bottleneck_adapter", "lang_adapter", "dummy", "lora_adapter", "mam_adapter"]
)
def test_zero_weights_change_nothing(host: str, method: str) -> None:
    encoder, x = with_method(host, method), HOSTS[host].inputs()
    with torch.no_grad():
        for name, parameter in encoder.adapter.named_parameters():
            if not name.startswith("prefix."):
                parameter.zero_()
        expected = make(host)(x)
        if method == "mam_adapter":  # its prefix is never nothing
            expected = with_prefix_of(encoder, host)(x)
        torch.testing.assert_close(encoder(x), expected, rtol=0, atol=1e-12)


def with_prefix_of(encoder: nn.Module, host: str) -> nn.Module:
    other = with_method(host, "prefix_tuning", inner=800)
    other.adapter.prefix.load_state_dict(encoder.adapter.prefix.state_dict())
    return other


@pytest.mark.parametrize("host", MAIN)
@pytest.mark.parametrize("method", IDENTITY)
def test_merged_weights_compute_the_same(host: str, method: str) -> None:
    encoder, x = shaken(with_method(host, method)), HOSTS[host].inputs()
    with torch.no_grad():
        expected = encoder(x)
        assert (expected - make(host)(x)).abs().max() > 1e-3
        merged = merge_adapters(encoder)
        assert set(merged.state_dict()) == set(make(host).state_dict())
        plain = make(host)
        plain.load_state_dict(merged.state_dict())
        torch.testing.assert_close(merged(x), expected, rtol=0, atol=1e-12)
        torch.testing.assert_close(plain(x), expected, rtol=0, atol=1e-12)


def test_lora_changes_query_and_value_and_nothing_else() -> None:
    encoder = shaken(with_method("text", "lora_adapter", rank=3, alpha=6))
    before = make("text").resblocks[1].attn.in_proj_weight
    part = encoder.adapter.get_submodule("layer1.value")
    merge_adapters(encoder)
    change = encoder.get_submodule("resblocks.1.attn").in_proj_weight - before
    assert change[:WIDTH].any() and not change[WIDTH : 2 * WIDTH].any()
    torch.testing.assert_close(change[2 * WIDTH :], 2 * part.lora_B @ part.lora_A)


def attention_by_hand(
    x: Tensor, weight: Tensor, bias: Tensor, keys: Tensor, values: Tensor, causal: bool
) -> Tensor:
    """Attention of one row (L, W) with 4 heads, head by head, token by token."""
    query, key, value = F.linear(x, weight, bias).chunk(3, -1)
    key, value = torch.cat((keys, key)), torch.cat((values, value))  # (P + L, W)
    prefix, size = len(keys), WIDTH // 4
    out = torch.zeros_like(x)
    for head in range(4):
        part = slice(head * size, (head + 1) * size)
        for i in range(len(x)):
            seen = prefix + i + 1 if causal else len(key)
            weights = (key[:seen, part] @ query[i, part] / size**0.5).softmax(0)
            out[i, part] = weights @ value[:seen, part]
    return out


def test_prefix_of_the_text_tower_by_hand() -> None:
    encoder = with_method("text", "prefix_tuning", length=3)
    attention = encoder.get_submodule("resblocks.1.attn")
    x = torch.randn(5, WIDTH, dtype=torch.float64)
    with torch.no_grad():
        mixed = attention_by_hand(
            x, attention.in_proj_weight, attention.in_proj_bias, *encoder.adapter.prefix(1), causal=True
        )
        torch.testing.assert_close(attention(x, [(1, 5)]), attention.out_proj(mixed))


def test_prefix_of_a_timm_tower_by_hand() -> None:
    encoder = with_method("timm", "prefix_tuning", length=3)
    attention = encoder.get_submodule("trunk.blocks.0.attn")
    x = torch.randn(1, 5, WIDTH, dtype=torch.float64)
    with torch.no_grad():
        keys, values = encoder.adapter.prefix(0)
        mixed = attention_by_hand(x[0], attention.qkv.weight, attention.qkv.bias, keys, values, causal=False)
        torch.testing.assert_close(attention(x)[0], attention.proj(mixed))


def test_a_parallel_adapter_by_hand() -> None:
    encoder = shaken(with_method("timm", "mam_adapter"))
    mlp, part = (
        encoder.get_submodule("trunk.blocks.0.mlp"),
        encoder.adapter.get_submodule("layer0.ffn_output"),
    )
    x = torch.randn(2, 5, WIDTH, dtype=torch.float64)
    with torch.no_grad():
        middle = torch.relu(x @ part.down.weight.T + part.down.bias)
        expected = mlp.fc2(mlp.act(mlp.fc1(x))) + 4 * (middle @ part.up.weight.T + part.up.bias)
        torch.testing.assert_close(mlp(x), expected)


@pytest.mark.parametrize(
    ("host", "method"),
    [("text", method) for method in METHODS] + [(host, "unipelt") for host in ("bert", "distilbert", "gpt2")],
)
def test_padding_changes_nothing(host: str, method: str) -> None:
    encoder, tokens = shaken(with_method(host, method)), HOSTS[host].inputs()
    with torch.no_grad():
        together = encoder(tokens)
        longer = encoder(F.pad(tokens, (0, 4)))
        alone = torch.cat([encoder(row[row != 0][None]) for row in tokens])
    torch.testing.assert_close(together, longer, rtol=0, atol=1e-12)
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize("host", ["text", "bert"])
def test_published_gates_depend_on_padding(host: str) -> None:
    encoder, tokens = shaken(with_method(host, "unipelt", variant="published")), HOSTS[host].inputs()[1:2]
    pieces = [tokens[:, :5], tokens]
    with torch.no_grad():
        # The encoders cut off padding, unless lengths say that a text is longer.
        answers = [encoder(piece, [piece.shape[1]]) for piece in pieces]
    assert (answers[0] - answers[1]).abs().max() > 1e-4


def test_gates_of_the_text_tower_are_means_over_the_tokens_of_a_text() -> None:
    """Also in the last block, which otherwise computes the read-out tokens alone."""
    encoder, tokens = shaken(with_method("text", "unipelt")), HOSTS["text"].inputs()
    gate = encoder.adapter.get_submodule("layer1.ffn_output.gate")
    seen: list[tuple[Tensor, Tensor]] = []
    gate.register_forward_hook(lambda _, args, out: seen.append((args[0], out)))
    with torch.no_grad():
        encoder(tokens)
        for row in range(3):
            encoder(tokens[row : row + 1])
        together = seen[0][1]  # shortest text first
        for row, (entered, gates) in zip((2, 1, 0), reversed(seen[1:]), strict=True):
            opened = torch.sigmoid(entered @ gate.weight[0] + gate.bias)
            assert len(opened) == int((tokens[row] != 0).sum())
            torch.testing.assert_close(gates, opened.mean().view(1))
            torch.testing.assert_close(together[2 - row], gates[0])


@pytest.mark.parametrize("host", ["text", "timm", "bert"])
@pytest.mark.parametrize("method", ["lang_adapter", "mam_adapter", "unipelt"])
def test_recomputed_blocks_give_the_same_gradients(host: str, method: str) -> None:
    """Two batches are encoded before the first gradient, as gradient caching does."""
    encoder, x = shaken(with_method(host, method)), HOSTS[host].inputs()

    def gradients() -> list[Tensor]:
        encoder.zero_grad()
        outputs = [encoder(x), encoder(x[1:])]
        sum((i + 1) * output.square().sum() for i, output in enumerate(outputs)).backward()
        return [p.grad.clone() for p in encoder.parameters() if p.requires_grad]

    expected = gradients()
    if host == "bert":
        encoder.set_grad_checkpointing()
        encoder.train()
        for module in encoder.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        for layer in encoder.trunk.encoder.layer:
            assert layer.gradient_checkpointing
    else:
        encoder.set_grad_checkpointing()
        encoder.train()
    for actual, wanted in zip(gradients(), expected, strict=True):
        torch.testing.assert_close(actual, wanted, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("host", "method"),
    [
        (host, method)
        for host in ("text", "bert")
        for method in ("dummy", "ia3_adapter", "lang_adapter", "unipelt")
    ],
)
def test_a_copy_has_an_adapter_of_its_own(host: str, method: str) -> None:
    encoder, x = shaken(with_method(host, method)), HOSTS[host].inputs()
    with torch.no_grad():
        before = encoder(x)
        twin = copy.deepcopy(encoder)
        torch.testing.assert_close(twin(x), before, rtol=0, atol=0)
        shaken(twin)
        assert not torch.equal(twin(x), before)
        assert torch.equal(encoder(x), before)
        twin.load_state_dict(encoder.state_dict())
        torch.testing.assert_close(twin(x), before, rtol=0, atol=0)
    if method in IDENTITY:
        merge_adapters(twin)
        with torch.no_grad():
            torch.testing.assert_close(twin(x), before, rtol=0, atol=1e-12)
            torch.testing.assert_close(encoder(x), before, rtol=0, atol=0)


def test_generation_with_a_prefix_keeps_positions_and_cache() -> None:
    encoder = with_method("gpt2", "prefix_tuning", length=3)
    tokens = torch.tensor([[5, 9, 12, 7]])
    with torch.no_grad():
        whole = encoder.trunk(input_ids=tokens).last_hidden_state
        first = encoder.trunk(input_ids=tokens[:, :2], use_cache=True)
        rest = encoder.trunk(input_ids=tokens[:, 2:], past_key_values=first.past_key_values, use_cache=True)
    assert rest.past_key_values.get_seq_length() == 4
    torch.testing.assert_close(torch.cat((first.last_hidden_state, rest.last_hidden_state), 1), whole)


def test_a_prefix_with_eager_masks_and_cross_attention_left_alone() -> None:
    """A model that another part of the program runs with plain attention is not touched."""
    encoder, other = with_method("bert", "prefix_tuning"), make("bert")
    assert other.trunk.config._attn_implementation != encoder.trunk.config._attn_implementation
    mask = torch.zeros(3, 1, 8, 8, dtype=torch.float64)
    mask[1, :, :, 5:] = torch.finfo(torch.float64).min
    x = torch.randn(3, 8, WIDTH, dtype=torch.float64)
    layer = encoder.get_submodule("trunk.encoder.layer.0")
    with torch.no_grad():
        torch.testing.assert_close(layer(x, mask), layer(x, mask == 0))


def test_autocast_keeps_the_dtype_of_the_projections() -> None:
    for host in ("text", "timm", "bert"):
        for method in ("dummy", "ia3_adapter", "unipelt"):
            encoder = shaken(with_method(host, method)).float()
            x = HOSTS[host].inputs()
            x = x if HOSTS[host].is_text else x.float()
            with torch.no_grad():
                full = encoder(x)
                with torch.autocast("cpu", dtype=torch.bfloat16):
                    half = encoder(x)
            assert F.cosine_similarity(full, half.float()).min() > 0.98, (host, method)


@pytest.mark.slow
@pytest.mark.parametrize("host", ["text", "timm"])
@pytest.mark.parametrize("method", ["lora_adapter", "unipelt"])
def test_compiled_encoders_compute_the_same(host: str, method: str) -> None:
    encoder, x = shaken(with_method(host, method)), HOSTS[host].inputs()
    expected = encoder(x)
    encoder.compile(backend="aot_eager")
    torch.testing.assert_close(encoder(x), expected, rtol=0, atol=1e-12)


def test_towers_without_blocks_are_refused() -> None:
    resnet = TimmImageEncoder("resnet10t", image_size=32)
    with pytest.raises(
        ValueError, match=r"^encoder: got TimmImageEncoder resnet10t, which has no transformer blocks"
    ):
        adapted(resnet, "lora_adapter")
    with pytest.raises(ValueError, match="several towers"):
        adapted(nn.ModuleList([make("text"), make("bert")]), "lora_adapter")


def test_an_attention_that_takes_no_prefix_is_refused() -> None:
    encoder = TimmImageEncoder("vit_tiny_patch16_224", image_size=32, timm_args=VIT | {"attn_layer": "diff"})
    with pytest.raises(ValueError, match="method: got one with a prefix, which DiffAttention"):
        adapted(encoder, "prefix_tuning")
    from transformers.models.bert.modeling_bert import BertConfig, BertLayer

    with pytest.raises(ValueError, match="encoder: got a bare BertLayer of transformers; expected a model"):
        adapted(
            nn.ModuleList([BertLayer(BertConfig(hidden_size=32, num_attention_heads=4))]), "prefix_tuning"
        )

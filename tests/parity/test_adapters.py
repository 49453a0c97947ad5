"""Delta-tuning on a tiny BERT against the published library: names, shapes, initialisation, outputs, gradients."""

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from hypvl.encoders.adapters.methods import adapted, merge_adapters
from tests.parity.reference import cases, load

ATOL = 1e-9
# Ours (method, argument) of an entry in the library's configs, by (architecture, key).
OPTIONS = {
    ("adapter", "reduction_factor"): "reduction",
    ("adapter", "inv_adapter_reduction_factor"): "invertible_reduction",
    ("adapter", "non_linearity"): "nonlinearity",
    ("adapter", "phm_dim"): "phm_dim",
    ("adapter", "phm_rank"): "phm_rank",
    ("adapter", "scaling"): "scale",
    ("adapter", "dropout"): "dropout",
    ("prefix_tuning", "prefix_length"): "length",
    ("prefix_tuning", "bottleneck_size"): "inner",
    ("lora", "r"): "rank",
    ("lora", "alpha"): "alpha",
    ("lora", "dropout"): "dropout",
}
TAKEN = {
    "bottleneck_adapter": {"reduction", "nonlinearity", "dropout"},
    "lang_adapter": {"reduction", "invertible_reduction", "nonlinearity", "dropout"},
    "prefix_tuning": {"length", "inner"},
    "dummy": {"reduction", "phm_dim", "phm_rank", "nonlinearity", "dropout"},
    "lora_adapter": {"rank", "alpha", "dropout"},
    "ia3_adapter": set(),
    "mam_adapter": {"length", "inner", "reduction", "scale", "nonlinearity", "dropout"},
    "unipelt": {"length", "inner", "reduction", "nonlinearity", "rank", "dropout"},
}


def content() -> dict[str, Any]:
    loaded = load("adapters")
    assert loaded is not None
    return loaded


def options_of(case: Mapping[str, Any]) -> dict[str, Any]:
    """Our options of a method with the hyper-parameters of a case: all of them, so that defaults are not relied on."""
    options: dict[str, Any] = {}
    parts = case["config"].get("configs", [case["config"]])
    for part in parts:
        architecture = part.get("architecture") or "adapter"
        for key, value in part.items():
            name = OPTIONS.get((architecture, key))
            if name in TAKEN[case["method"]]:
                assert options.setdefault(name, value) == value
    return options | ({"variant": "published"} if case["method"] == "unipelt" else {})


def filled(entry: Mapping[str, Any]) -> Tensor:
    """A tensor by the integer formula of the file."""
    c = content()["weight_formula"]["constants"]
    k = torch.arange(torch.Size(entry["shape"]).numel())
    u = (c["c2"] * k * k + c["c1"] * k + c["c0"] * (entry["index"] + 1)) % c["M"]
    values = entry["offset"] + entry["scale"] * (2 * u.double() / (c["M"] - 1) - 1)
    return values.view(entry["shape"])


def plain(model: str) -> BertModel:
    definition = content()["models"][model]
    bert = BertModel(BertConfig(**definition["config"])).double().eval()
    state = {entry["name"]: filled(entry) for entry in definition["parameters"]}
    with torch.no_grad():
        for name, parameter in bert.named_parameters():
            parameter.copy_(state.pop(name))
    assert not state
    return bert


def ours(role: str) -> str:
    """The name of a parameter of a role; (IA)3's scale is called ``lora_B`` there."""
    place, _, last = role.rpartition(".")
    return f"adapter.{place}.{last}"


def by_role(encoder: nn.Module, case: Mapping[str, Any]) -> dict[str, nn.Parameter]:
    """The trainable parameters, by the roles of the case; names must be the same but for (IA)3's."""
    names = {
        ours(t["role"]).replace("lora_B", "scale") if case["method"] == "ia3_adapter" else ours(t["role"]): t[
            "role"
        ]
        for t in case["trainable"]
    }
    own = {name: p for name, p in encoder.named_parameters() if p.requires_grad}
    assert set(own) == set(names)
    return {names[name]: parameter for name, parameter in own.items()}


def built(case: Mapping[str, Any], *, formula: bool) -> tuple[nn.Module, dict[str, nn.Parameter]]:
    encoder = adapted(plain(case["model"]), case["method"], options=options_of(case))
    parameters = by_role(encoder, case)
    if formula:
        with torch.no_grad():
            for entry in case["trainable"]:
                parameters[entry["role"]].copy_(filled(entry))
    return encoder, parameters


def run(encoder: nn.Module) -> tuple[Tensor, list[Tensor]]:
    """Last hidden states (B, L, W), and those that enter the first layer and leave each."""
    inputs = content()["inputs"]
    states: list[Tensor] = []
    layers = encoder.get_submodule("encoder.layer")
    first: nn.Module = layers.get_submodule("0")
    handles = [first.register_forward_pre_hook(lambda _, args: states.append(args[0]))]
    handles += [
        layer.register_forward_hook(lambda _, __, out: states.append(out)) for layer in layers.children()
    ]
    ids, mask = (torch.tensor(inputs[name]) for name in ("input_ids", "attention_mask"))
    last = encoder(input_ids=ids, attention_mask=mask).last_hidden_state
    for handle in handles:
        handle.remove()
    return last, states


def assert_close(actual: Any, expected: Any) -> None:
    torch.testing.assert_close(
        torch.as_tensor(actual, dtype=torch.float64),
        torch.tensor(expected, dtype=torch.float64),
        rtol=0,
        atol=ATOL,
    )


def check_outputs(encoder: nn.Module, expected: Mapping[str, Any]) -> Tensor:
    last, states = run(encoder)
    summary = expected["last_hidden_state"]
    assert list(last.shape) == summary["shape"]
    flat = last.detach().flatten()
    weights = ((37 * torch.arange(len(flat))) % 101).double() / 101
    assert_close(flat[:16], summary["first"])
    assert_close(flat.norm(), summary["l2"])
    assert_close(flat.sum(), summary["sum"])
    assert_close(flat @ weights, summary["weighted_sum"])
    assert_close(last.detach().norm(dim=-1), summary["l2_per_position"])
    assert_close(torch.stack([s.detach().norm() for s in states]), expected["hidden_states_l2"])
    loss = last.square().mean()
    assert_close(loss.detach(), expected["loss"])
    return loss


@pytest.mark.parametrize("entry", cases("adapters", "models"))
def test_plain_model(entry: tuple[str, dict[str, Any]]) -> None:
    name, definition = entry
    bert = plain(name)
    assert sum(p.numel() for p in bert.parameters()) == definition["n_parameters"]
    check_outputs(bert, definition["base"])


@pytest.mark.parametrize("case", cases("adapters", "cases"))
def test_trainable_parameters(case: dict[str, Any]) -> None:
    encoder, parameters = built(case, formula=False)
    assert {role: list(p.shape) for role, p in parameters.items()} == {
        t["role"]: t["shape"] for t in case["trainable"]
    }
    assert sum(p.numel() for p in parameters.values()) == case["n_trainable"]
    assert sum(p.numel() for p in encoder.parameters()) == case["n_total"]
    base = plain(case["model"]).state_dict()
    state = encoder.state_dict()
    assert {name for name in state if not name.startswith("adapter.")} == set(base)
    assert all(torch.equal(state[name], tensor) for name, tensor in base.items())
    frozen = {name for name, p in encoder.named_parameters() if not p.requires_grad}
    assert frozen == {entry["name"] for entry in content()["models"][case["model"]]["parameters"]}


@pytest.mark.parametrize("case", cases("adapters", "cases"))
def test_outputs_gates_and_gradients(case: dict[str, Any]) -> None:
    encoder, parameters = built(case, formula=True)
    expected = case["formula_weights"]
    gates: dict[str, Tensor] = {}
    for role in expected.get("gates") or {}:
        path = role if role.endswith("prefix_gate") else f"{role}.gate"
        module = encoder.get_submodule(f"adapter.{path}")
        module.register_forward_hook(lambda _, __, out, role=role: gates.__setitem__(role, out.detach()))
    check_outputs(encoder, expected).backward()
    for role, values in (expected.get("gates") or {}).items():
        assert_close(gates[role], values)
    for entry in case["trainable"]:
        gradient = parameters[entry["role"]].grad
        assert gradient is not None, entry["role"]
        assert_close(gradient.norm(), entry["grad_norm"])
        assert_close(gradient.flatten()[: len(entry["grad_first"])], entry["grad_first"])
    with torch.no_grad():
        difference = (run(encoder)[0] - run(plain(case["model"]))[0]).abs().max()
    assert_close(difference, expected["max_abs_diff_to_base"])


@torch.no_grad()
def padding_effect(encoder: nn.Module) -> float:
    """The largest change of a token that is not padding when its row is run alone, without padding."""
    inputs = content()["inputs"]
    together, _ = run(encoder)
    effect = 0.0
    for row, ids, mask in zip(together, inputs["input_ids"], inputs["attention_mask"], strict=True):
        alone = encoder(input_ids=torch.tensor([ids])[:, : sum(mask)]).last_hidden_state[0]
        effect = max(effect, float((row[: sum(mask)] - alone).abs().max()))
    return effect


@pytest.mark.parametrize("case", cases("adapters", "cases"))
def test_padding(case: dict[str, Any]) -> None:
    encoder, _ = built(case, formula=True)
    expected = case["formula_weights"].get("padding_changes_output_by")
    if expected is not None:
        assert padding_effect(encoder) == pytest.approx(expected, abs=ATOL)
    if case["method"] != "unipelt":
        return
    masked = adapted(plain(case["model"]), "unipelt", options=options_of(case) | {"variant": "masked"})
    masked.load_state_dict(encoder.state_dict())
    assert padding_effect(masked) < ATOL < padding_effect(encoder)


@pytest.mark.parametrize("case", cases("adapters", "cases"))
def test_merging(case: dict[str, Any]) -> None:
    """Exact; the library loses (IA)3's effect on biases."""
    encoder, _ = built(case, formula=True)
    with torch.no_grad():
        before, _ = run(encoder)
    if case["method"] not in ("lora_adapter", "ia3_adapter"):
        with pytest.raises(ValueError, match=f"got '{case['method']}', which is no linear change"):
            merge_adapters(encoder)
        return
    merge_adapters(encoder)
    assert set(encoder.state_dict()) == set(plain(case["model"]).state_dict())
    with torch.no_grad():
        after, _ = run(encoder)
    torch.testing.assert_close(after, before, rtol=0, atol=1e-13)
    assert not torch.equal(plain(case["model"]).encoder.layer[0].attention.self.value.weight,
                           encoder.get_submodule("encoder.layer.0.attention.self.value").weight)  # fmt: skip


SEEDS = 5


def samples(case: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any], Tensor]]:
    """Every trainable parameter with its initial values over all seeds."""
    drawn: dict[str, list[Tensor]] = {}
    for seed in range(SEEDS):
        torch.manual_seed(seed)
        for role, parameter in built(case, formula=False)[1].items():
            drawn.setdefault(role, []).append(parameter.detach().flatten())
    for entry in case["trainable"]:
        yield entry, torch.cat(drawn[entry["role"]])


@pytest.mark.parametrize("case", cases("adapters", "cases"))
def test_initial_distributions(case: dict[str, Any]) -> None:
    for entry, values in samples(case):
        init = entry["init"]
        if init["kind"] == "constant":
            assert (values == init["value"]).all(), entry["role"]
            continue
        if init["kind"] == "uniform":  # drawn in fp32
            assert init["low"] - 1e-6 <= values.min() <= values.max() <= init["high"] + 1e-6, entry["role"]
        spread, error = values.square().mean().sqrt(), init["std"] / (2 * len(values)) ** 0.5
        assert abs(spread - init["std"]) < 5 * error, entry["role"]
        assert abs(values.mean() - init.get("mean", 0.0)) < 5 * init["std"] / len(values) ** 0.5, entry[
            "role"
        ]
        kurtosis = values.pow(4).mean() / spread**4  # 1.8 of a uniform distribution, 3 of a normal one
        if len(values) > 1000:
            assert (kurtosis < 2.2) == (init["kind"] == "uniform"), entry["role"]


@pytest.mark.parametrize("case", cases("adapters", "cases"))
def test_at_initialisation(case: dict[str, Any]) -> None:
    expected = case["at_init"]
    torch.manual_seed(0)
    encoder, parameters = built(case, formula=False)
    last, _ = run(encoder)
    with torch.no_grad():
        base, _ = run(plain(case["model"]))
    if expected["identity"]:
        assert torch.equal(last, base)
    else:
        low, high = expected["max_abs_diff_to_base_over_10_seeds"]
        assert low / 4 < (last - base).abs().max() < 4 * high
    last.square().mean().backward()
    roles = {t["name"]: t["role"] for t in case["trainable"]}
    zero = {role for role, p in parameters.items() if p.grad is not None and not p.grad.any()}
    assert zero == {roles[name] for name in expected["zero_grad"]}


def test_counts_on_bert_base() -> None:
    counts = (load("adapters") or {}).get("bert_base_counts")
    if counts is None:
        pytest.skip("adapters.json has no bert_base_counts")
    with torch.device("meta"):
        base = BertModel(BertConfig())
        assert sum(p.numel() for p in base.parameters()) == counts["base_total"]
        for method in TAKEN.keys() & counts.keys():
            encoder = adapted(copy.deepcopy(base), method)
            assert sum(p.numel() for p in encoder.parameters() if p.requires_grad) == counts[method], method

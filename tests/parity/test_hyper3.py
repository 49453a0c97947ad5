"""hyper3.json: Hyper3-CLIP's queries, pooling and objective, and HiMo's texts, against the published numbers."""

import math
from collections.abc import Sequence
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from hypvl.data.query_hierarchy import query_hierarchy
from hypvl.encoders.query_pooling import PoolingMode, QueryPooling
from tests.parity.reference import cases

KINDS = {"text_box": "box"}  # published -> ours
OPTIONS = {"use_text_boxes", "max_queries", "max_phrases"}


@pytest.mark.parametrize("case", cases("hyper3", "query_hierarchy"))
def test_queries(case: dict[str, Any]) -> None:
    options = dict(case["options"])
    if unknown := options.keys() - OPTIONS:
        pytest.skip(f"query_hierarchy has no options {sorted(unknown)}")
    boxes = case["text_boxes"] if options.pop("use_text_boxes", True) else []
    expected = [
        (q["text"], KINDS.get(q["kind"], q["kind"]), q["weight"], q["parent"], q["source_part"])
        for q in case["queries"]
    ]
    if all(query[1] != "caption" for query in expected):
        # Parity: a caption that is left out leaves its children the first query as parent, which is its own.
        expected = [(text, kind, weight, -1, box) for text, kind, weight, _, box in expected]
    assert [tuple(query) for query in query_hierarchy(case["caption"], boxes, **options)] == expected


def wave(shape: Sequence[int], start: float, *, step: float = 0.91) -> Tensor:
    return torch.sin(step * torch.arange(math.prod(shape), dtype=torch.float64) + start).view(*shape)


@pytest.mark.parametrize("case", cases("hyper3", "query_pooling"))
def test_query_pooling(case: dict[str, Any]) -> None:
    if case["mode"] not in get_args(PoolingMode):
        pytest.skip(f"QueryPooling has no mode {case['mode']}")
    module = QueryPooling(
        case["visual_dim"], case["text_dim"],
        heads=case["num_heads"], mlp_ratio=case["mlp_ratio"], mode=case["mode"],
    ).double()  # fmt: skip
    parameters, start = dict(module.named_parameters()), case["offset"]
    if case["mode"] == "conditioned":
        assert {name: list(p.shape) for name, p in parameters.items()} == dict(
            zip(case["parameter_order"], case["parameter_shapes"], strict=True)
        )
    with torch.no_grad():
        for j, name in enumerate(case["parameter_order"]):
            if name in parameters:
                values = 0.3 * wave(parameters[name].shape, 1.3 * j + start, step=0.37)
                parameters[name].copy_(values + (name == "mlp_norm.weight"))
    tokens = wave((case["images"], case["tokens"], case["visual_dim"]), 0.2 + start).requires_grad_()
    query = wave((len(case["owner"]), case["text_dim"]), 0.8 + start).requires_grad_()
    pooled = module(tokens[:, 1:], query, torch.tensor(case["owner"]))
    pooled.backward(wave(pooled.shape, 2.1 + start))
    torch.testing.assert_close(pooled, double(case["output"]), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(tokens.grad, double(case["grad_tokens"]), rtol=1e-9, atol=1e-12)
    gradient = torch.zeros_like(query) if query.grad is None else query.grad
    torch.testing.assert_close(gradient, double(case["grad_query"]), rtol=1e-9, atol=1e-12)
    for name, norm in case["grad_norm_parameters"].items():
        found = parameters[name].grad.norm().item() if name in parameters else 0.0  # type: ignore[union-attr]
        assert found == pytest.approx(norm, rel=1e-9, abs=1e-12), name


def double(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)

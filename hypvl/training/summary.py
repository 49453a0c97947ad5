"""What is about to be trained: parameters per part and operations per sample."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from hypvl.models.dual_encoder import DualEncoder


def parameter_counts(model: nn.Module) -> dict[str, tuple[int, int]]:
    """Part of the model -> (parameters, trainable parameters)."""
    return {
        name: (
            sum(p.numel() for p in part.parameters()),
            sum(p.numel() for p in part.parameters() if p.requires_grad),
        )
        for name, part in model.named_children()
    }


def flops_per_sample(model: DualEncoder) -> dict[str, float]:
    """Multiply-adds of one forward pass of each encoder ("visual", "textual") for one sample, attention included.

    Counted by fvcore (one multiply-add = one), plus the two products of each scaled dot-product attention,
    which fvcore does not know. A caption has as many tokens as the model takes.
    """
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    flops = {}
    try:
        if model.visual is not None:
            images = torch.zeros(1, 3, model.image_size, model.image_size, device=device)
            flops["visual"] = _count(model.visual, images)
        if model.textual is not None:
            tokens = torch.ones(1, model.context_length, dtype=torch.int64, device=device)
            flops["textual"] = _count(model.textual, tokens)
        return flops
    finally:
        model.train(was_training)


def summary_table(model: DualEncoder) -> str:
    """Parameters and operations as a plain text table."""
    flops = flops_per_sample(model)
    rows = [f"{'part':<16}{'parameters':>14}{'trainable':>14}{'GMACs/sample':>14}"]
    counts = parameter_counts(model)
    for name, (total, trainable) in counts.items():
        operations = f"{flops[name] / 1e9:.3f}" if name in flops else "-"
        rows.append(f"{name:<16}{total:>14,}{trainable:>14,}{operations:>14}")
    all_total, all_trainable = (sum(c[i] for c in counts.values()) for i in (0, 1))
    rows.append(f"{'all':<16}{all_total:>14,}{all_trainable:>14,}{sum(flops.values()) / 1e9:>14.3f}")
    return "\n".join(rows)


def _count(module: nn.Module, inputs: Tensor) -> float:
    from fvcore.nn import FlopCountAnalysis

    analysis = FlopCountAnalysis(module, inputs)
    analysis.set_op_handle("aten::scaled_dot_product_attention", _attention_macs)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
    return float(analysis.total())


def _attention_macs(inputs: list[Any], outputs: list[Any]) -> float:
    """Products q k^T and (softmax) v: batch * heads * L * S * (E + Ev)."""
    query, key, value = (v.type().sizes() for v in inputs[:3])  # (..., L, E), (..., S, E), (..., S, Ev)
    return float(math.prod(query[:-2]) * query[-2] * key[-2] * (query[-1] + value[-1]))

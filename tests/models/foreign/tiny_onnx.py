"""Tiny networks in ONNX files, in the layout of hyper-models: an image and a text encoder, each one matrix."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIZE, DIM, CURV = 16, 6, 0.5
VOCABULARY, LENGTH = 49408, 12


def image_encoder(
    path: Path,
    *,
    points: bool = True,
    name: str = "image",
    batch: int | str = "batch",
    size: int | str = SIZE,
    curv: float = CURV,
    notes: dict[str, str] | None = None,
    apart: bool = False,
) -> None:
    """Pixels in [0, 1] -> normalised, one matrix -> points of a hyperboloid (time first), or vectors."""
    side = SIZE if isinstance(size, str) else size
    matrix = 0.03 * np.random.default_rng(0).standard_normal((3 * side * side, DIM)).astype(np.float32)
    nodes = [
        helper.make_node("Sub", [name, "half"], ["centred"]),
        helper.make_node("Flatten", ["centred"], ["flat"]),
        helper.make_node("MatMul", ["flat", "matrix"], ["vectors"]),
    ]
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, 3, size, size])]
    constants = {"half": np.float32(0.5), "matrix": matrix}
    _write(path, nodes, inputs, constants, batch, points=points, curv=curv, notes=notes, apart=apart)


def text_encoder(
    path: Path,
    *,
    points: bool = True,
    mask: bool = True,
    length: int | str = LENGTH,
    vocabulary: int = VOCABULARY,
    curv: float = CURV,
) -> None:
    """Ids -> the sum of their vectors (with a mask: of the text's own) -> points, or vectors."""
    table = 0.5 * np.random.default_rng(1).standard_normal((vocabulary, DIM)).astype(np.float32)
    nodes = [helper.make_node("Gather", ["table", "input_ids"], ["all"])]
    ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", length])
    inputs, last = [ids], "all"
    if mask:
        inputs.append(helper.make_tensor_value_info("attention_mask", TensorProto.INT64, ["batch", length]))
        nodes += [
            helper.make_node("Cast", ["attention_mask"], ["weights"], to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", ["weights", "two"], ["column"]),
            helper.make_node("Mul", ["all", "column"], ["own"]),
        ]
        last = "own"
    nodes.append(helper.make_node("ReduceSum", [last, "one"], ["vectors"], keepdims=0))
    constants = {"table": table, "one": np.array([1]), "two": np.array([2])}
    _write(path, nodes, inputs, constants, "batch", points=points, curv=curv)


def _write(
    path: Path,
    nodes: list[Any],
    inputs: list[Any],
    constants: dict[str, Any],
    batch: int | str,
    *,
    points: bool,
    curv: float,
    notes: dict[str, str] | None = None,
    apart: bool = False,
) -> None:
    output = "vectors"
    if points:
        output = "embedding_hyperboloid"
        constants |= {"radius": np.float32(1 / curv), "last": np.array([-1])}
        nodes += [
            helper.make_node("Mul", ["vectors", "vectors"], ["squares"]),
            helper.make_node("ReduceSum", ["squares", "last"], ["square"], keepdims=1),
            helper.make_node("Add", ["square", "radius"], ["time_square"]),
            helper.make_node("Sqrt", ["time_square"], ["time"]),
            helper.make_node("Concat", ["time", "vectors"], [output], axis=1),
        ]
    values = [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
    out = helper.make_tensor_value_info(output, TensorProto.FLOAT, [batch, DIM + points])
    graph = helper.make_graph(nodes, "tiny", inputs, [out], initializer=values)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    helper.set_model_props(model, notes or {})
    place = {"location": f"{path.name}.data", "size_threshold": 1000} if apart else {}
    onnx.save(model, path, save_as_external_data=apart, **place)

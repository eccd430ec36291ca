"""Tiny network files for tests: channel means, networks with wrong outputs, and LPIPS."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.golden.make_lpips_golden import state
from th_jax.evaluation.judges.lpips import FORMAT
from th_jax.storage.tensors import write_tensors


def write_network(
    path: Path, *, kind: str = "pooled", size: int = 16, mixing: np.ndarray | None = None, layout: str = "nchw"
) -> str:
    """A network from images of `size` px; returns the file's SHA-256.

    Args:
        path: of the file.
        kind: "pooled", the channels' means [1, D] after `mixing`; "pooled_map", the same [1, D, 1, 1]; "map", the image
            itself; "flat", all its values after a seeded mixing, which no other size fits; "nan", means divided by zero.
        size: side, pixels.
        mixing: [3, D]; the identity by default.
        layout: of the image.
    """
    mixing = np.eye(3, dtype=np.float32) if mixing is None else mixing.astype(np.float32)
    shape = [1, 3, size, size] if layout == "nchw" else [1, size, size, 3]
    axes = [2, 3] if layout == "nchw" else [1, 2]
    width, tensors = mixing.shape[1], {"mixing": mixing}
    pool = helper.make_node("ReduceMean", ["x"], ["means"], axes=axes, keepdims=0)
    if kind == "map":
        nodes, given = [helper.make_node("Relu", ["x"], ["y"])], shape
    elif kind == "flat":
        rng = np.random.default_rng(0)
        tensors = {"mixing": rng.normal(size=(3 * size * size, 4)).astype(np.float32)}
        nodes = [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("MatMul", ["f", "mixing"], ["y"])]
        given = [1, 4]
    elif kind == "pooled_map":
        tensors["shape"] = np.array([1, width, 1, 1], np.int64)
        nodes = [
            pool,
            helper.make_node("MatMul", ["means", "mixing"], ["mixed"]),
            helper.make_node("Reshape", ["mixed", "shape"], ["y"]),
        ]
        given = [1, width, 1, 1]
    else:
        nodes, given = [pool, helper.make_node("MatMul", ["means", "mixing"], ["y"])], [1, width]
        if kind == "nan":
            tensors["zero"] = np.zeros(1, np.float32)
            nodes = [pool, helper.make_node("Div", ["means", "zero"], ["y"])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, given)]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    constants = [numpy_helper.from_array(tensor, name) for name, tensor in tensors.items()]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_settings(path: Path, **settings: Any) -> None:
    """The JSON file beside a network."""
    path.with_name(f"{path.name}.json").write_text(json.dumps(settings))


def write_lpips(path: Path, *, leave_out: str = "", file_format: str = FORMAT) -> tuple[Path, str]:
    """Seeded weights of LPIPS with few channels; returns path and SHA-256."""
    write_tensors(path, {n: x for n, x in state().items() if n != leave_out}, {"format": file_format})
    return path, hashlib.sha256(path.read_bytes()).hexdigest()

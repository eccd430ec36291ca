"""The generator as an ONNX graph for one avatar: standard operators alone, any batch size, channels before positions.

The graph follows `th_jax.models.architecture.Generator`. Resampling is fused as there (`th_jax.models.convolution`): a
convolution followed by pooling is a 4x4 convolution with stride 2, and one that follows upsampling is four 2x2 convolutions,
one for each phase of the result. AdaIN is an instance normalization whose scales and shifts are constants of the person.
"""

from pathlib import Path
from typing import Any

import numpy as np

from th_jax.images import LUMA
from th_jax.models.convolution import phases, sum_with_shifts
from th_jax.models.layers import INSTANCE_NORM_EPS
from th_jax.models.sizes import MIDDLE_BLOCKS, Plan
from th_jax.types import Params

OPSET, IR_VERSION = 17, 8
"""From 2022; current runtimes read them."""

Name = str
"""Name of a tensor of the graph."""


def write_onnx(
    path: Path, params: Params, adain: np.ndarray, *, layout: Plan, image_size: int, gray: bool, batch: int | None
) -> None:
    """Write the model, with the input "landmarks" and the output "frames", both `[B, H, W, 3]` in [-1, 1].

    Args:
        path: file to write.
        params: the generator's parameters, with kernels divided by their sigmas.
        adain: the person's AdaIN parameters `[A]`.
        layout: channels of the blocks.
        image_size: side of the frames in pixels.
        gray: whether the frames have no color.
        batch: number of frames, or None for any.

    Raises:
        ImportError: if `onnx` is not installed.
        OSError: if the file cannot be written.
    """
    import onnx

    graph = _Graph()
    frames = _Generator(graph, params, adain, layout).frames(
        graph.op("Transpose", "landmarks", perm=[0, 3, 1, 2]), side=image_size
    )
    if gray:
        colored = graph.op("Transpose", frames, perm=[0, 2, 3, 1])
        graph.op("MatMul", colored, graph.constant(np.tile(np.array(LUMA)[:, None], (1, 3))), output="frames")
    else:
        graph.op("Transpose", frames, perm=[0, 2, 3, 1], output="frames")
    shape = ["batch" if batch is None else batch, image_size, image_size, 3]
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in ("landmarks", "frames")]
    made = onnx.helper.make_graph(graph.nodes, "avatar", ends[:1], ends[1:], graph.constants)
    opset = onnx.helper.make_opsetid("", OPSET)
    model = onnx.helper.make_model(made, opset_imports=[opset], ir_version=IR_VERSION, producer_name="th_jax")
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


class _Graph:
    """Nodes and constants, named in their order."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, values: Any, dtype: Any = np.float32) -> Name:
        from onnx import numpy_helper

        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(values, dtype), name))
        return name

    def op(self, kind: str, *inputs: Name, output: Name = "", **attributes: Any) -> Name:
        from onnx import helper

        name = f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output or name], name=name, **attributes))
        return output or name


class _Generator:
    """Builds the graph, block by block."""

    def __init__(self, graph: _Graph, params: Params, adain: np.ndarray, layout: Plan) -> None:
        self.graph, self.params, self.layout = graph, params, layout
        parts = np.split(adain, np.cumsum(np.repeat(layout.adain_widths, 2))[:-1])
        self._norms = iter(zip(parts[::2], parts[1::2], strict=True))

    def frames(self, h: Name, *, side: int) -> Name:
        op, params, layout = self.graph.op, self.params, self.layout
        if layout.outer:
            side //= 2
            outer = self._down(h, params["outer_down"], first=True, normalize=False)
            h = op("Concat", self._halved(h), outer, axis=1)
        for level in range(len(layout.generator_down)):
            h = self._down(h, params[f"down_{level}"], first=level == 0, normalize=level > 0)
            side //= 2
            if side == layout.encoder_attention:
                h = self._attention(h, params["attention_down"], side)
        for block in range(MIDDLE_BLOCKS):
            kernels = params[f"residual_{block}"]
            inner = self._conv(self._adain_relu(h), kernels["conv_0"])
            h = op("Add", h, self._conv(self._adain_relu(inner), kernels["conv_1"]))
        for level in range(len(layout.generator_up)):
            h = self._up(h, params[f"up_{level}"], side)
            side *= 2
            if side == layout.generator_attention:
                h = self._attention(h, params["attention_up"], side)
        rgb = self._conv(self._adain_relu(h), params["to_rgb"])
        if layout.outer:
            h = self._up(h, params["outer_up"], side)
            finer = self._conv(self._adain_relu(h), params["outer_to_rgb"], gain=float(params["gamma"]))
            rgb = op("Add", self._doubled(rgb), finer)
        return op("Tanh", rgb)

    def _down(self, x: Name, params: Params, *, first: bool, normalize: bool) -> Name:
        h = x
        if not first:
            h = self.graph.op("Relu", self._norm(h, params["norm_0"]) if normalize else h)
        h = self._conv(h, params["conv_0"])
        h = self.graph.op("Relu", self._norm(h, params["norm_1"]) if normalize else h)
        skip = self._conv(self._halved(x), params["skip"])
        return self.graph.op("Add", self._conv_then_pool(h, params["conv_1"]), skip)

    def _up(self, x: Name, params: Params, side: int) -> Name:
        h = self._upsample_then_conv(self._adain_relu(x), params["conv_0"], side)
        h = self._conv(self._adain_relu(h), params["conv_1"])
        return self.graph.op("Add", h, self._doubled(self._conv(x, params["skip"])))

    def _attention(self, x: Name, params: Params, side: int) -> Name:
        op, constant = self.graph.op, self.graph.constant

        def flat(picture: Name) -> Name:
            return op("Reshape", picture, constant([0, 0, -1], np.int64))

        def pooled(name: str) -> Name:
            return flat(op("MaxPool", self._conv(x, params[name]), kernel_shape=[2, 2], strides=[2, 2]))

        query = op("Transpose", flat(self._conv(x, params["query"])), perm=[0, 2, 1])
        weights = op("Softmax", op("MatMul", query, pooled("key")), axis=-1)
        attended = op("MatMul", pooled("value"), op("Transpose", weights, perm=[0, 2, 1]))
        channels = params["out"]["kernel"].shape[2]
        picture = op("Reshape", attended, constant([0, channels, side, side], np.int64))
        return op("Add", x, self._conv(picture, params["out"], gain=float(params["gamma"])))

    def _norm(self, x: Name, params: Params) -> Name:
        return self._normalized(x, np.asarray(params["scale"]), np.asarray(params["bias"]))

    def _adain_relu(self, x: Name) -> Name:
        return self.graph.op("Relu", self._normalized(x, *next(self._norms)))

    def _normalized(self, x: Name, scale: np.ndarray, shift: np.ndarray) -> Name:
        constants = self.graph.constant(scale), self.graph.constant(shift)
        return self.graph.op("InstanceNormalization", x, *constants, epsilon=INSTANCE_NORM_EPS)

    def _conv(self, x: Name, params: Params, *, gain: float = 1.0) -> Name:
        kernel = gain * np.asarray(params["kernel"])
        bias = gain * np.asarray(params["bias"]) if "bias" in params else None
        return self._convolved(x, kernel, bias, pads=[kernel.shape[0] // 2] * 4)

    def _conv_then_pool(self, x: Name, params: Params) -> Name:
        fused = np.asarray(sum_with_shifts(params["kernel"])) / 4
        return self._convolved(x, fused, params.get("bias"), pads=[1] * 4, strides=[2, 2])

    def _upsample_then_conv(self, x: Name, params: Params, side: int) -> Name:
        """One convolution for each phase of the result; each reads 2x2 of the positions around its own.

        ONNX Runtime takes five times as long for DepthToSpace as for these concatenations along a new last axis.
        """
        op, constant = self.graph.op, self.graph.constant
        last, parts = constant([4], np.int64), []
        for phase, kernel in enumerate(np.split(np.asarray(phases(params["kernel"])), 4, axis=3)):
            p, q = divmod(phase, 2)
            made = self._convolved(x, kernel, params.get("bias"), pads=[1 - p, 1 - q, p, q])
            parts.append(op("Unsqueeze", made, last))
        shape = constant([0, 0, side, 2 * side], np.int64)
        rows = [op("Reshape", op("Concat", *parts[2 * p : 2 * p + 2], axis=4), shape) for p in (0, 1)]
        lines = op("Concat", *rows, axis=3)  # even rows beside odd ones
        return op("Reshape", lines, constant([0, 0, 2 * side, 2 * side], np.int64))

    def _convolved(self, x: Name, kernel: np.ndarray, bias: Any, **attributes: Any) -> Name:
        operands = [self.graph.constant(kernel.transpose(3, 2, 0, 1))]
        operands += [] if bias is None else [self.graph.constant(bias)]
        return self.graph.op("Conv", x, *operands, kernel_shape=list(kernel.shape[:2]), **attributes)

    def _halved(self, x: Name) -> Name:
        return self.graph.op("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2])

    def _doubled(self, x: Name) -> Name:
        scales = self.graph.constant([1, 1, 2, 2])
        nearest = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        return self.graph.op("Resize", x, "", scales, **nearest)

"""Readers of published weight files: Keras .h5, Caffe .caffemodel, MatConvNet .mat, ONNX and TensorFlow.js graphs.

All return layers under this project's names with kernels as [height, width, in, out] and input channels blue, green, red.
No reader unpickles data, or executes code from a file. The part of Caffe's NetParameter message that contains weights is
declared here, so that Caffe is not needed; protobuf skips its other fields.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from jaxtyping import Float

from th_jax.perceptual.frozen import WeightsError, kernel_shapes
from th_jax.storage.strict_json import parse_json, read_json

_Field = descriptor_pb2.FieldDescriptorProto

_OPTIONAL, _REPEATED = _Field.LABEL_OPTIONAL, _Field.LABEL_REPEATED

# message: (field, number, label, type, message type, packed)
_MESSAGES: dict[str, list[tuple[str, int, Any, Any, str | None, bool]]] = {
    "BlobShape": [("dim", 1, _REPEATED, _Field.TYPE_INT64, None, True)],
    "BlobProto": [
        ("num", 1, _OPTIONAL, _Field.TYPE_INT32, None, False),
        ("channels", 2, _OPTIONAL, _Field.TYPE_INT32, None, False),
        ("height", 3, _OPTIONAL, _Field.TYPE_INT32, None, False),
        ("width", 4, _OPTIONAL, _Field.TYPE_INT32, None, False),
        ("data", 5, _REPEATED, _Field.TYPE_FLOAT, None, True),
        ("shape", 7, _OPTIONAL, _Field.TYPE_MESSAGE, "BlobShape", False),
    ],
    "LayerParameter": [
        ("name", 1, _OPTIONAL, _Field.TYPE_STRING, None, False),
        ("blobs", 7, _REPEATED, _Field.TYPE_MESSAGE, "BlobProto", False),
    ],
    "V1LayerParameter": [
        ("name", 4, _OPTIONAL, _Field.TYPE_STRING, None, False),
        ("blobs", 6, _REPEATED, _Field.TYPE_MESSAGE, "BlobProto", False),
    ],
    "NetParameter": [
        ("layers", 2, _REPEATED, _Field.TYPE_MESSAGE, "V1LayerParameter", False),
        ("layer", 100, _REPEATED, _Field.TYPE_MESSAGE, "LayerParameter", False),
    ],
}

_PACKAGE = "th_jax_caffe"

_MOST_GRAPH = 2**28
"""Maximum size of a TensorFlow.js graph model's JSON file, in bytes."""


def net_parameter() -> Any:
    """Create an empty NetParameter message."""
    file = descriptor_pb2.FileDescriptorProto(name="th_jax_caffe.proto", package=_PACKAGE, syntax="proto2")
    for message, fields in _MESSAGES.items():
        declared = file.message_type.add(name=message)
        for name, number, label, kind, message_type, packed in fields:
            field = declared.field.add(name=name, number=number, label=label, type=kind)
            if message_type is not None:
                field.type_name = f".{_PACKAGE}.{message_type}"
            field.options.packed = packed
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.NetParameter"))()


def read_blobs(content: bytes) -> dict[str, list[Float[np.ndarray, "..."]]]:
    """Read the arrays of each layer by name, in the file's axis order (kernels are OIHW).

    Raises:
        google.protobuf.message.DecodeError: if the content is not a protobuf message.
        ValueError: if a blob's size does not fit its shape.
    """
    net = net_parameter()
    net.ParseFromString(content)
    return {layer.name: [_array(blob) for blob in layer.blobs] for layer in (*net.layer, *net.layers) if layer.blobs}


def _array(blob: Any) -> Float[np.ndarray, "..."]:
    if blob.HasField("shape"):
        shape = tuple(blob.shape.dim)
    else:  # the older form: always four axes, leading ones of size 1
        shape = (blob.num, blob.channels, blob.height, blob.width)
        shape = shape[-1:] if shape[:3] == (1, 1, 1) else shape
    return np.asarray(blob.data, np.float32).reshape(shape)


Layers = dict[str, dict[str, Float[np.ndarray, "..."]]]


def read_source(path: Path, *, network: str) -> Layers:
    """Read the layers of `network` from a published file, by its suffix.

    Raises:
        WeightsError: if the file is missing, of an unknown kind, damaged, or does not contain these layers.
    """
    if not path.is_file():
        raise WeightsError(f"the file {path} does not exist")
    reader = _READERS.get(path.suffix)
    if reader is None:
        advice = (
            "; PyTorch files are not read: torchvision's VGG is another training run" if path.suffix == ".pth" else ""
        )
        raise WeightsError(
            f"{path.name}: weights are read from {', '.join(_READERS)}, not from {path.suffix!r}{advice}"
        )
    try:
        found = reader(path)
    except WeightsError:
        raise
    except Exception as error:  # five external parsers, each with its own errors for damaged files
        raise WeightsError(f"{path.name} could not be read as {path.suffix}: {error}") from error
    layers: Layers = {}
    for name, shape in kernel_shapes(network).items():
        if name not in found:
            raise WeightsError(
                f"{path.name} does not contain {network}: layer {name} is missing (found {_some(found)})"
            )
        layers[name] = found[name]
        if found[name]["kernel"].shape != shape:
            raise WeightsError(
                f"{path.name} does not contain {network}: layer {name} is {found[name]['kernel'].shape} instead of {shape}"
            )
    return layers


def source_bytes(path: Path) -> bytes:
    """Read the file, and the files beside it that a TensorFlow.js graph names.

    Raises:
        WeightsError: if a file is missing, or a graph names one outside of its folder.
    """
    if not path.is_file():
        raise WeightsError(f"the file {path} does not exist")
    content = path.read_bytes()
    if path.suffix != ".json":
        return content
    try:
        names = [
            name for group in parse_json(content, max_bytes=_MOST_GRAPH)["weightsManifest"] for name in group["paths"]
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{path.name} is not a TensorFlow.js graph model") from error
    return content + b"".join(_beside(path, name).read_bytes() for name in names)


def read_keras(path: Path) -> Layers:
    """Read Keras "notop" weights in TensorFlow's order: one group per layer with a kernel and a bias."""
    import h5py

    layers: Layers = {}
    with h5py.File(path, "r") as file:
        root = file.get("model_weights", file)
        for name, layer in root.items():
            arrays: list[np.ndarray] = []
            layer.visititems(lambda _, item, arrays=arrays: _collect(item, arrays))
            kernels = [array for array in arrays if array.ndim == 4]
            biases = [array for array in arrays if array.ndim == 1]
            if len(kernels) == 1 and len(biases) == 1:
                layers[name] = {"kernel": kernels[0], "bias": biases[0]}
    return layers


def read_caffe(path: Path) -> Layers:
    """Read Caffe's binary NetParameter, old and new form; kernels are OIHW."""

    return {
        _keras_name(name): {"kernel": blobs[0].transpose(2, 3, 1, 0), "bias": blobs[1].reshape(-1)}
        for name, blobs in read_blobs(path.read_bytes()).items()
        if len(blobs) == 2 and blobs[0].ndim == 4
    }


def read_matconvnet(path: Path) -> Layers:
    """Read MatConvNet's network struct; the first layer is converted to blue, green, red if its mean is red, green, blue."""
    from scipy.io import loadmat

    content = loadmat(path, squeeze_me=True, struct_as_record=False)
    net = content.get("net")
    entries = np.atleast_1d(content["layers"] if net is None else net.layers)
    layers: Layers = {}
    for entry in entries:
        if getattr(entry, "type", "") != "conv":
            continue
        kernel, bias = entry.weights if hasattr(entry, "weights") else (entry.filters, entry.biases)
        kernel = np.asarray(kernel, np.float32)
        layers[_keras_name(str(entry.name))] = {"kernel": kernel, "bias": np.asarray(bias, np.float32).reshape(-1)}
    mean = _matconvnet_mean(content)
    first = layers.get("block1_conv1")
    if first is not None and mean is None:
        raise WeightsError(f"{path.name} contains no mean, so the order of its color channels is unknown")
    if first is not None and mean is not None and mean[0] > mean[-1]:  # faces and photos are redder than they are blue
        first["kernel"] = first["kernel"][:, :, ::-1]
    return layers


def read_onnx(path: Path) -> Layers:
    """Read convolutions of an ONNX graph, named after the Keras layers in their initializers' names; kernels are OIHW."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(path, load_external_data=False)
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    layers: Layers = {}
    for node in model.graph.node:
        if node.op_type == "Conv" and len(node.input) == 3 and {*node.input[1:]} <= tensors.keys():
            kernel, bias = tensors[node.input[1]], tensors[node.input[2]]
            for part in node.input[1].split("/"):
                if part.startswith("block"):
                    layers["_".join(part.split("_")[:2])] = {"kernel": kernel.transpose(2, 3, 1, 0), "bias": bias}
    return layers


def read_tensorflow_js(path: Path) -> Layers:
    """Read a TensorFlow.js graph model of MobileNet, and fold its partly folded batch norms entirely."""
    model = read_json(path, max_bytes=_MOST_GRAPH)
    tensors: dict[str, np.ndarray] = {}
    for group in model["weightsManifest"]:
        content = b"".join(_beside(path, name).read_bytes() for name in group["paths"])
        offset = 0
        for entry in group["weights"]:
            if entry["dtype"] not in ("float32", "int32") or "quantization" in entry:
                raise WeightsError(f"{path.name}: tensor {entry['name']} is {entry['dtype']} or quantized, not float32")
            count = int(np.prod(entry["shape"]))
            tensors[entry["name"]] = np.frombuffer(content, entry["dtype"], count, offset).reshape(entry["shape"])
            offset += 4 * count
    layers: Layers = {}
    for name in kernel_shapes("face_mobilenet"):
        bias = tensors[f"{name}_bn/batchnorm_1/sub"]
        if name.startswith("conv_dw"):
            scaled = tensors[f"{name}/depthwise_kernel"][..., 0] * tensors[f"{name}_bn/batchnorm_1/mul"]
            layers[name] = {"kernel": scaled[:, :, None, :], "bias": bias}
        else:
            layers[name] = {"kernel": tensors[f"{name}/convolution/merged_input"], "bias": bias}
    return layers


_READERS: Mapping[str, Callable[[Path], Layers]] = {
    ".h5": read_keras,
    ".caffemodel": read_caffe,
    ".mat": read_matconvnet,
    ".onnx": read_onnx,
    ".json": read_tensorflow_js,
}


def _collect(item: object, arrays: list[np.ndarray]) -> None:
    import h5py

    if isinstance(item, h5py.Dataset):
        arrays.append(np.asarray(item, np.float32))


def _keras_name(caffe_name: str) -> str:
    """Convert conv3_2 to block3_conv2; other names do not change."""
    stem, _, number = caffe_name.removeprefix("conv").partition("_")
    return f"block{stem}_conv{number}" if caffe_name.startswith("conv") and stem.isdigit() else caffe_name


def _matconvnet_mean(content: dict[str, object]) -> Float[np.ndarray, "..."] | None:
    for owner in (content.get("net"), content.get("meta"), getattr(content.get("net"), "meta", None)):
        normalization = getattr(owner, "normalization", None)
        mean = getattr(normalization, "averageImage", None)
        if mean is not None:
            return np.asarray(mean, np.float64).reshape(-1, 3).mean(0)
    normalization = content.get("normalization")
    mean = getattr(normalization, "averageImage", None)
    return None if mean is None else np.asarray(mean, np.float64).reshape(-1, 3).mean(0)


def _beside(path: Path, name: str) -> Path:
    if Path(name).name != name:
        raise WeightsError(f"{path.name} names a weight file outside its folder: {name}")
    if not path.with_name(name).is_file():
        raise WeightsError(f"{path.name} needs the file {name} beside it")
    return path.with_name(name)


def _some(names: Mapping[str, object]) -> str:
    return ", ".join(sorted(names)[:3]) or "no layers at all"

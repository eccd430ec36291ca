"""Readers of published weight files: Keras .h5, Caffe .caffemodel, MatConvNet .mat, ONNX and TensorFlow.js graphs.

Each gives layers under this project's names with kernels as [height, width, in, out], input channels blue, green, red.
No reader unpickles anything, and none executes what a file contains.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float

from th_jax.perceptual.frozen import WeightsError, kernel_shapes
from th_jax.text import read_text

Layers = dict[str, dict[str, Float[np.ndarray, "..."]]]


def read_source(path: Path, *, network: str) -> Layers:
    """The layers that `network` needs, from a published file, by the file's ending.

    Raises:
        WeightsError: if the file is missing, of an unknown kind, damaged, or does not hold these layers.
    """
    if not path.is_file():
        raise WeightsError(f"there is no file {path}")
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
    except Exception as error:  # five foreign parsers, each with its own kinds of errors for damaged files
        raise WeightsError(f"{path.name} could not be read as {path.suffix}: {error}") from error
    layers: Layers = {}
    for name, shape in kernel_shapes(network).items():
        if name not in found:
            raise WeightsError(f"{path.name} does not hold {network}: layer {name} is missing (found {_some(found)})")
        layers[name] = found[name]
        if found[name]["kernel"].shape != shape:
            raise WeightsError(
                f"{path.name} does not hold {network}: layer {name} is {found[name]['kernel'].shape} instead of {shape}"
            )
    return layers


def source_bytes(path: Path) -> bytes:
    """All that the source consists of: the file, and the files that a TensorFlow.js graph names beside it.

    Raises:
        WeightsError: if a file is missing, or a graph names one outside of its folder.
    """
    if not path.is_file():
        raise WeightsError(f"there is no file {path}")
    content = path.read_bytes()
    if path.suffix != ".json":
        return content
    try:
        names = [name for group in json.loads(content)["weightsManifest"] for name in group["paths"]]
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{path.name} is no TensorFlow.js graph model") from error
    return content + b"".join(_beside(path, name).read_bytes() for name in names)


def read_keras(path: Path) -> Layers:
    """Keras "notop" weights in TensorFlow's order: a group a layer with a kernel and a bias."""
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
    """Caffe's binary NetParameter, old and new form; kernels are OIHW."""
    from data_prep.caffe_model import read_blobs

    return {
        _keras_name(name): {"kernel": blobs[0].transpose(2, 3, 1, 0), "bias": blobs[1].reshape(-1)}
        for name, blobs in read_blobs(path.read_bytes()).items()
        if len(blobs) == 2 and blobs[0].ndim == 4
    }


def read_matconvnet(path: Path) -> Layers:
    """MatConvNet's network struct; its first layer is turned to blue, green, red if its mean says red, green, blue."""
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
        raise WeightsError(f"{path.name} does not say the mean it subtracts, so the order of its colours is not known")
    if first is not None and mean is not None and mean[0] > mean[-1]:  # faces and photos are redder than they are blue
        first["kernel"] = first["kernel"][:, :, ::-1]
    return layers


def read_onnx(path: Path) -> Layers:
    """Convolutions of an ONNX graph by the Keras layer in their initialisers' names; kernels are OIHW."""
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
    """A TensorFlow.js graph model of MobileNet with its batch norms partly folded: here they are folded wholly."""
    model = json.loads(read_text(path))
    tensors: dict[str, np.ndarray] = {}
    for group in model["weightsManifest"]:
        content = b"".join(_beside(path, name).read_bytes() for name in group["paths"])
        offset = 0
        for entry in group["weights"]:
            if entry["dtype"] not in ("float32", "int32") or "quantization" in entry:
                raise WeightsError(f"{path.name}: tensor {entry['name']} is {entry['dtype']} or quantised, not float32")
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
    """conv3_2 → block3_conv2; other names stay."""
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
        raise WeightsError(f"{path.name} names a weight file outside of its folder: {name}")
    if not path.with_name(name).is_file():
        raise WeightsError(f"{path.name} needs the file {name} beside it")
    return path.with_name(name)


def _some(names: Mapping[str, object]) -> str:
    return ", ".join(sorted(names)[:3]) or "no layers at all"

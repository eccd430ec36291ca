"""Converting published weight files: five formats made here in small, their channel orders, and what is refused."""

import json
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import onnx
import pytest
import scipy.io
from onnx import helper, numpy_helper

from data_prep.convert import command as convert_weights
from data_prep.convert import weight_sources
from data_prep.convert.weight_sources import net_parameter, read_blobs
from tests import commands
from th_jax.perceptual import face_features
from th_jax.perceptual.frozen import WeightsError, kernel_shapes, load_weights

MEAN_RGB = np.array([129.186, 104.762, 93.594], np.float32)


@pytest.fixture
def layers(small_vgg16) -> dict[str, dict[str, np.ndarray]]:
    """The layers that the files of these tests hold."""
    return small_vgg16


def caffe_name(name: str) -> str:
    return name.replace("block", "conv").replace("_conv", "_")


def write_keras(path: Path, layers) -> None:
    with h5py.File(path, "w") as file:
        for name, layer in layers.items():
            group = file.create_group(name)
            group[f"{name}_W_1:0"], group[f"{name}_b_1:0"] = layer["kernel"], layer["bias"]
        file.create_group("block1_pool")


def write_caffe(path: Path, layers, *, old: bool = False) -> None:
    net = net_parameter()
    for name, layer in layers.items():
        entry = (net.layers if old else net.layer).add(name=caffe_name(name))
        kernel, bias = layer["kernel"].transpose(3, 2, 0, 1), layer["bias"]
        for array in (kernel, bias):
            blob = entry.blobs.add(data=array.ravel().tolist())
            if old:
                shape = (1,) * (4 - array.ndim) + array.shape
                blob.num, blob.channels, blob.height, blob.width = shape
            else:
                blob.shape.dim.extend(array.shape)
    path.write_bytes(net.SerializeToString())


def write_matconvnet(path: Path, layers, *, mean: np.ndarray | None) -> None:
    entries = []
    for name, layer in layers.items():
        kernel = layer["kernel"]
        if name == "block1_conv1" and mean is not None and mean[0] > mean[-1]:
            kernel = kernel[:, :, ::-1]  # a network that reads red first
        weights = np.empty(2, object)
        weights[:] = kernel, layer["bias"]
        entries.append({"name": caffe_name(name), "type": "conv", "weights": weights})
        entries.append({"name": "relu", "type": "relu"})
    content = {"layers": np.array(entries, object)}
    if mean is not None:
        content["meta"] = {"normalization": {"averageImage": mean.reshape(1, 1, 3)}}
    scipy.io.savemat(path, content)


def write_onnx(path: Path, layers) -> None:
    nodes, tensors = [], []
    for name, layer in layers.items():
        kernel = f"functional_1/{name}_1/convolution/ReadVariableOp:0"
        bias = f"functional_1/{name}_1/Squeeze:0"
        tensors.append(numpy_helper.from_array(np.ascontiguousarray(layer["kernel"].transpose(3, 2, 0, 1)), kernel))
        tensors.append(numpy_helper.from_array(layer["bias"], bias))
        nodes.append(helper.make_node("Conv", ["x", kernel, bias], [f"{name}_out"], name=name))
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", [], [], tensors)), path)


WRITERS = {
    "keras.h5": write_keras,
    "new.caffemodel": write_caffe,
    "old.caffemodel": lambda path, layers: write_caffe(path, layers, old=True),
    "rgb.mat": lambda path, layers: write_matconvnet(path, layers, mean=MEAN_RGB),
    "bgr.mat": lambda path, layers: write_matconvnet(path, layers, mean=MEAN_RGB[::-1]),
    "graph.onnx": write_onnx,
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_layers(name: str, layers, tmp_path: Path) -> None:
    WRITERS[name](tmp_path / name, layers)
    out = tmp_path / "out.safetensors"
    origin = convert_weights.convert("vgg16", tmp_path / name, out, unverified=True)
    assert origin.source == name
    assert origin.licence.startswith("unverified source")
    for layer, loaded in load_weights(out, network="vgg16").items():
        np.testing.assert_array_equal(loaded["kernel"], layers[layer]["kernel"])
        np.testing.assert_array_equal(loaded["bias"], layers[layer]["bias"])


def test_tensorflow_js_folds_the_norms(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    entries, chunks, expected = [], [], {}

    def add(name: str, array: np.ndarray) -> None:
        entries.append({"name": name, "shape": list(array.shape), "dtype": "float32"})
        chunks.append(np.ascontiguousarray(array, np.float32).tobytes())

    for name, shape in face_features.layer_shapes().items():
        bias = rng.normal(size=shape[-1:]).astype(np.float32)
        if name.startswith("conv_dw"):
            kernel = rng.normal(size=(3, 3, shape[-1], 1)).astype(np.float32)
            gain = rng.normal(size=shape[-1:]).astype(np.float32)
            add(f"{name}/depthwise_kernel", kernel)
            add(f"{name}_bn/batchnorm_1/mul", gain)
            expected[name] = kernel.transpose(0, 1, 3, 2) * gain
        else:
            expected[name] = rng.normal(size=shape).astype(np.float32)
            add(f"{name}/convolution/merged_input", expected[name])
        add(f"{name}_bn/batchnorm_1/sub", bias)
    (tmp_path / "w.bin").write_bytes(b"".join(chunks))
    model = {"weightsManifest": [{"paths": ["w.bin"], "weights": entries}]}
    (tmp_path / "model.json").write_text(json.dumps(model))
    out = tmp_path / "face.safetensors"
    convert_weights.convert("face_mobilenet", tmp_path / "model.json", out, unverified=True)
    loaded = load_weights(out, network="face_mobilenet")
    for name, kernel in expected.items():
        np.testing.assert_allclose(loaded[name]["kernel"], kernel, rtol=1e-6)
    model["weightsManifest"][0]["paths"] = ["../w.bin"]
    (tmp_path / "model.json").write_text(json.dumps(model))
    with pytest.raises(WeightsError, match=r"outside its folder: \.\./w\.bin"):
        convert_weights.convert("face_mobilenet", tmp_path / "model.json", out, unverified=True)


def test_an_unknown_digest_is_refused(layers, tmp_path: Path) -> None:
    write_keras(tmp_path / "vgg.h5", layers)
    with pytest.raises(WeightsError, match=r"torchvision's; .* add --unverified"):
        convert_weights.convert("vgg16", tmp_path / "vgg.h5", tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


def test_a_known_file_is_refused_for_another_network(layers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_keras(tmp_path / "vgg.h5", layers)
    digest = __import__("hashlib").sha256((tmp_path / "vgg.h5").read_bytes()).hexdigest()
    known = convert_weights.Published(("vgg16",), f"sha256:{digest}", "a license")
    monkeypatch.setattr(convert_weights, "PUBLISHED", (known,))
    with pytest.raises(WeightsError, match=r"vgg\.h5 contains vgg16, not vgg19"):
        convert_weights.convert("vgg19", tmp_path / "vgg.h5", tmp_path / "out.safetensors", unverified=True)
    origin = convert_weights.convert("vgg16", tmp_path / "vgg.h5", tmp_path / "out.safetensors")
    assert origin.licence == "a license"


def test_pytorch_files_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "vgg19.pth").write_bytes(b"\x80\x02")
    with pytest.raises(WeightsError, match="PyTorch files are not read: torchvision's VGG is another training run"):
        convert_weights.convert("vgg19", tmp_path / "vgg19.pth", tmp_path / "o", unverified=True)


def test_missing_layers_and_wrong_shapes_are_named(layers, tmp_path: Path) -> None:
    kernel = layers["block4_conv1"].pop("kernel")
    broken = {name: layer for name, layer in layers.items() if name != "block4_conv1"}
    write_keras(tmp_path / "a.h5", broken)
    with pytest.raises(
        WeightsError, match=r"does not contain vgg16: layer block4_conv1 is missing \(found block1_conv1"
    ):
        weight_sources.read_source(tmp_path / "a.h5", network="vgg16")
    write_keras(tmp_path / "b.h5", broken | {"block4_conv1": {"kernel": kernel[:1], "bias": np.zeros(5, np.float32)}})
    with pytest.raises(WeightsError, match=r"block4_conv1 is \(1, 3, 4, 5\) instead of \(3, 3, 4, 5\)"):
        weight_sources.read_source(tmp_path / "b.h5", network="vgg16")


def test_a_mean_less_matconvnet_file_is_refused(layers, tmp_path: Path) -> None:
    write_matconvnet(tmp_path / "x.mat", layers, mean=None)
    with pytest.raises(WeightsError, match="contains no mean"):
        weight_sources.read_source(tmp_path / "x.mat", network="vggface")


@pytest.mark.parametrize("suffix", [".h5", ".caffemodel", ".mat", ".onnx", ".json"])
def test_damaged_files_are_one_sentence(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"damaged{suffix}"
    for content in (b"", b"\x00" * 10, b"not what it says", bytes(range(256)) * 4):
        path.write_bytes(content)
        with pytest.raises(WeightsError, match="damaged"):
            weight_sources.read_source(path, network="vgg16")


def test_command_line(layers, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_keras(tmp_path / "vgg.h5", layers)
    out = tmp_path / "half.safetensors"
    arguments = ["vgg16", str(tmp_path / "vgg.h5"), "--out", str(out)]
    assert commands.convert_weights(arguments) == 1
    assert capsys.readouterr().err.startswith("th-jax prepare convert-weights: vgg.h5 (sha256:")
    assert convert_weights.main([*arguments, "--half", "--unverified"]) == 0
    loaded = load_weights(out, network="vgg16")
    np.testing.assert_allclose(loaded["block1_conv1"]["kernel"], layers["block1_conv1"]["kernel"], rtol=1e-3)
    assert commands.convert_weights(["vgg16", str(tmp_path / "none.h5")]) == 1
    assert "does not exist" in capsys.readouterr().err


def test_blobs_of_both_forms() -> None:
    layers = {"block1_conv1": {"kernel": np.ones((3, 3, 3, 2), np.float32), "bias": np.zeros(2, np.float32)}}
    path = SimpleNamespace()
    for old in (False, True):
        path.write_bytes = lambda content: setattr(path, "content", content)
        write_caffe(path, layers, old=old)
        assert [blob.shape for blob in read_blobs(path.content)["conv1_1"]] == [(2, 3, 3, 3), (2,)]


def test_all_networks_have_a_table() -> None:
    assert len(kernel_shapes("vgg19")) == 13
    assert len(kernel_shapes("vgg16")) == len(kernel_shapes("vggface")) == 11

"""Networks given by path: input as described by their JSON, one image at a time, and one-sentence errors."""

import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from network_files import write_network, write_settings

from th_jax.evaluation import metrics
from th_jax.evaluation.judges import network_file, sets
from th_jax.evaluation.judges.network_file import load_network
from th_jax.evaluation.judges.network_input import NetworkFileError, NetworkInput
from th_jax.evaluation.judges.sets import inception_network, set_distances, set_network, vgg16_network


def make_images(*, count: int = 3, size: int = 16) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


@pytest.mark.parametrize("kind", ["pooled", "pooled_map"])
def test_images_are_fed_as_the_json_describes(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "means.onnx"
    digest = write_network(path, kind=kind)
    write_settings(path, size=16, mean=[10, 20, 30], deviation=2.0)
    network = load_network("means", path, sha256=digest)
    frames = make_images()
    expected = (frames.mean((1, 2)) - (10, 20, 30)) / 2
    np.testing.assert_allclose(network.features(frames), expected, rtol=1e-5)
    assert (network.width, network.digest) == (3, digest)
    assert network.about["input"] == {
        "size": 16, "mean": [10, 20, 30], "deviation": [2, 2, 2], "channels": "rgb", "layout": "nchw", "output": "",
    }  # fmt: skip
    write_settings(path, size=16, mean=[10, 20, 30], deviation=2.0, channels="bgr", output="y")
    np.testing.assert_allclose(load_network("means", path).features(frames), expected[:, ::-1], rtol=1e-5)


def test_layout_and_size(tmp_path: Path) -> None:
    path = tmp_path / "means.onnx"
    write_network(path, layout="nhwc", size=8)
    write_settings(path, size=8, mean=0, deviation=1, layout="nhwc")
    frames = np.repeat(make_images(size=8), 2, axis=1).repeat(
        2, axis=2
    )  # halved by bilinear weights, they are what they were
    np.testing.assert_allclose(load_network("means", path).features(frames), frames.mean((1, 2)), rtol=1e-5)


def test_batch_size_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "flat.onnx"
    write_network(path, kind="flat")
    network = load_network("flat", path, default=NetworkInput(16))
    frames = make_images(count=5)
    together = network.features(frames)
    np.testing.assert_array_equal(network.features(frames[::-1]), together[::-1])
    np.testing.assert_array_equal(network.features(frames[2:3]), together[2:3])


def test_files_that_are_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wants = NetworkInput(16)
    with pytest.raises(NetworkFileError, match=r"cannot read the network .*none.onnx"):
        load_network("x", tmp_path / "none.onnx", default=wants)
    with pytest.raises(NetworkFileError, match=r"FILE.onnx or FILE.tflite, got .*model.pth"):
        load_network("x", tmp_path / "model.pth", default=wants)
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(NetworkFileError, match=r"folder.onnx is not a regular file"):
        load_network("x", tmp_path / "folder.onnx", default=wants)
    bad = tmp_path / "bad.onnx"
    for content in (b"", b"no network at all" * 50):
        bad.write_bytes(content)
        with pytest.raises(NetworkFileError, match=r"bad.onnx is not an ONNX file"):
            load_network("x", bad, default=wants)
    good = tmp_path / "good.onnx"
    digest = write_network(good)
    bad.write_bytes(good.read_bytes()[:-40])
    with pytest.raises(NetworkFileError, match=r"bad.onnx is not an ONNX file"):
        load_network("x", bad, default=wants)
    with pytest.raises(NetworkFileError, match=f"SHA-256 {digest}, but expected {'ab' * 32}"):
        load_network("x", good, default=wants, sha256="ab" * 32)
    monkeypatch.setattr(network_file, "MAX_FILE_BYTES", 100)
    with pytest.raises(NetworkFileError, match=r"over the limit of 100"):
        load_network("x", good, default=wants)


def test_networks_that_answer_amiss(tmp_path: Path) -> None:
    path = tmp_path / "n.onnx"
    write_network(path, kind="flat")
    with pytest.raises(NetworkFileError, match=r"network x does not accept an image \[1, 3, 20, 20\]"):
        load_network("x", path, default=NetworkInput(20))
    write_network(path, kind="map")
    with pytest.raises(NetworkFileError, match=r"returns \[1, 3, 16, 16\] .* \[1, D\]"):
        load_network("x", path, default=NetworkInput(16))
    write_network(path, kind="nan")
    with pytest.raises(NetworkFileError, match="features that are not finite"):
        load_network("x", path, default=NetworkInput(16))
    write_network(path)
    with pytest.raises(NetworkFileError, match=r"has no output 'z'; it has y"):
        load_network("x", path, default=NetworkInput(16, output="z"))


def test_settings_beside_a_network(tmp_path: Path) -> None:
    path = tmp_path / "n.onnx"
    write_network(path)
    with pytest.raises(NetworkFileError, match=r"n.onnx.json is missing"):
        set_network("x", path)
    for said, sentence in (
        ({"mean": 0}, "size must be an image side of 1 to 2048 pixels, got None"),
        ({"size": 1e9}, "size must be an image side"),
        ({"size": 16, "sise": 3}, "unknown settings 'sise'; expected size, mean"),
        ({"size": 16, "mean": [1, 2]}, "mean must be one number or three, for red, green and blue"),
        ({"size": 16, "mean": "high"}, "mean must be one number or three"),
        ({"size": 16, "deviation": [1, 0, 1]}, "deviation .* must not be 0"),
        ({"size": 16, "channels": "grey"}, "channels must be rgb or bgr, got 'grey'"),
        ({"size": 16, "layout": ["nchw"]}, "layout must be nchw or nhwc"),
        ({"size": 16, "output": 3}, "output must be a name, got 3"),
    ):
        write_settings(path, **said)
        with pytest.raises(NetworkFileError, match=sentence):
            set_network("x", path)
    beside = tmp_path / "n.onnx.json"
    for text in ("{", "[" * 100_000, "NaN", "[1]", " " * 70_000):
        beside.write_text(text)
        with pytest.raises(
            NetworkFileError, match=r"not valid JSON|must contain a JSON object|has more than 65536 bytes"
        ):
            set_network("x", path)


def test_tflite_needs_its_runtime_and_uses_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "n.tflite"
    path.write_bytes(b"tflite")
    monkeypatch.setattr(network_file, "_LITERT", "no_such_runtime")
    with pytest.raises(ImportError, match=r"n.tflite .* requires LiteRT: pip install ai-edge-litert"):
        load_network("x", path, default=NetworkInput(16))

    class Interpreter:
        """Means of a batch of two, as mobile networks have it."""

        def __init__(self, model_content: bytes) -> None:
            if model_content != b"tflite":
                raise ValueError("Model provided has model identifier 'garb'")

        def allocate_tensors(self) -> None: ...

        def get_input_details(self) -> list[dict]:
            return [{"index": 0, "shape": np.array([2, 16, 16, 3])}]

        def get_output_details(self) -> list[dict]:
            return [{"index": 9}]

        def set_tensor(self, index: int, values: np.ndarray) -> None:
            assert (index, values.shape, values.dtype) == (0, (2, 16, 16, 3), np.float32)
            self.values = values

        def invoke(self) -> None: ...

        def get_tensor(self, index: int) -> np.ndarray:
            return self.values.mean((1, 2))

    monkeypatch.setattr(network_file.importlib, "import_module", lambda name: SimpleNamespace(Interpreter=Interpreter))
    network = load_network("x", path, default=NetworkInput(16))
    assert network.wants.layout == "nhwc"
    np.testing.assert_allclose(network.features(make_images()), make_images().mean((1, 2)) / 127.5 - 1, rtol=1e-4)
    path.write_bytes(b"garbage")
    with pytest.raises(NetworkFileError, match=r"n.tflite is not a TFLite file .*\(Model provided"):
        load_network("x", path, default=NetworkInput(16))


def test_distances_of_sets_name_features_and_counts(tmp_path: Path) -> None:
    path = tmp_path / "means.onnx"
    write_network(path)
    write_settings(path, size=16, mean=0, deviation=255)
    network = set_network("means", path)
    made, real = network.features(make_images(count=9)), network.features(255 - make_images(count=7))
    distances = set_distances(network, made, real)
    assert list(distances) == ["Fréchet(means)", "KID(means)"]
    assert distances["Fréchet(means)"] == (metrics.frechet_distance(made, real), 9, 7, 3, True)
    assert distances["KID(means)"] == (metrics.polynomial_mmd(made, real), 9, 7, 3, False)
    assert set_distances(network, made[:1], real) == {}


def test_only_the_vouched_inception_is_called_fid(tmp_path: Path) -> None:
    path = tmp_path / "inception.onnx"
    digest = write_network(path, mixing=np.random.default_rng(0).normal(size=(3, 2048)))
    network = inception_network(path, sha256=digest.upper())
    assert (network.frechet, network.kid, network.width) == ("FID", "KID", 2048)
    assert network.about["input"]["size"] == 299
    with pytest.raises(NetworkFileError, match="different file"):
        inception_network(path, sha256="0" * 64)
    narrow = write_network(path)
    with pytest.raises(NetworkFileError, match=r"returns 3 features, .* 2048"):
        inception_network(path, sha256=narrow)


def test_vgg16_features_are_means_of_its_last_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pyramid is tested elsewhere; compiling it would take most of this file's time."""
    network = vgg16_network()
    assert (network.name, network.width, len(network.about["sha256"])) == ("vgg16", 512, 64)

    def two_layers(weights: Any, images: jax.Array, *, network: str) -> tuple[jax.Array, jax.Array]:
        assert network == "vgg16"
        return images, images[:, ::2, ::2] * weights["block5_conv1"]["bias"][None, None, None, :]

    layer = {"kernel": jnp.zeros((3, 3, 1, 3)), "bias": jnp.array([100.0, 200.0, 300.0])}
    monkeypatch.setattr(sets, "feature_pyramid", two_layers)
    monkeypatch.setattr(sets, "load_perceptual", lambda names: {"vgg16": {"block5_conv1": layer}})
    frames = make_images(count=30, size=6)
    expected = (frames[:, ::2, ::2] / 127.5 - 1).mean((1, 2)) * (1, 2, 3)
    np.testing.assert_allclose(vgg16_network().features(frames), expected, rtol=1e-4, atol=1e-6)


def test_the_digest_covers_the_bytes_read(tmp_path: Path) -> None:
    path = tmp_path / "n.onnx"
    write_network(path)
    assert load_network("x", path, default=NetworkInput(16)).digest == hashlib.sha256(path.read_bytes()).hexdigest()

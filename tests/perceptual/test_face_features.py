"""The face MobileNet against plain sums in NumPy, and the shapes of its features."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.golden.seeded import seeded_array, seeded_image
from th_jax.perceptual.face_features import FEATURES, face_features, face_pyramid, layer_shapes

MEAN_BGR = np.array([103.939, 116.779, 123.68])
DEPTHWISE_STRIDES = {2: 2, 4: 2, 6: 2, 12: 2}


@pytest.fixture(scope="module")
def weights():
    layers = {}
    for name, shape in layer_shapes().items():
        fan_in = np.prod(shape[:3])
        layers[name] = {
            "kernel": seeded_array(f"{name}/kernel", shape, seed=3, scale=1.5 * fan_in**-0.5),
            "bias": seeded_array(f"{name}/bias", shape[-1:], seed=3, scale=0.2, offset=0.3),
        }
    layers["conv1"]["kernel"] /= 60.0
    return jax.tree.map(jnp.asarray, layers)


@pytest.fixture(scope="module")
def pyramid_of_faces(weights):
    """Faces of 64 px, and the five levels of their pyramid: it works at the faces' own size, without any resizing."""
    faces = seeded_image("faces", (1, 64, 64, 3), seed=5)
    return faces, jax.jit(face_pyramid)(weights, jnp.asarray(faces))


def convolve(x: np.ndarray, kernel: np.ndarray, stride: int) -> np.ndarray:
    """TensorFlow's "SAME" by definition: a sum over taps of the padded image, clipped to [0, 6] later."""
    size, height = kernel.shape[0], x.shape[1]
    out = -(-height // stride)
    total = max((out - 1) * stride + size - height, 0)
    before = total // 2
    padded = np.pad(x, ((0, 0), (before, total - before), (before, total - before), (0, 0)))
    depthwise = kernel.shape[2] == 1 and x.shape[-1] > 1
    y = 0.0
    for row in range(size):
        for column in range(size):
            tap = padded[:, row : row + stride * out : stride, column : column + stride * out : stride]
            tap = tap[:, :out, :out]
            y = y + (tap * kernel[row, column, 0] if depthwise else tap @ kernel[row, column])
    return y


def reference(weights, faces: np.ndarray) -> np.ndarray:
    x = (faces[..., ::-1].astype(np.float64) + 1) * 127.5 - MEAN_BGR
    layers = {name: {k: np.asarray(v, np.float64) for k, v in layer.items()} for name, layer in weights.items()}
    for name in layer_shapes():  # in the order of the graph
        layer = layers[name]
        number = int(name.rsplit("_", 1)[-1]) if "_" in name else 0
        stride = 2 if name == "conv1" else DEPTHWISE_STRIDES.get(number, 1) if "_dw_" in name else 1
        x = np.clip(convolve(x, layer["kernel"], stride) + layer["bias"], 0, 6)
    return x


def test_the_graph_is_mobilenet(weights, pyramid_of_faces) -> None:
    faces, pyramid = pyramid_of_faces
    expected = reference(weights, faces)
    assert np.count_nonzero(expected.mean((1, 2))) > FEATURES / 4  # the seeded weights keep the network alive
    np.testing.assert_allclose(pyramid[-1], expected, atol=2e-4)


def test_the_pyramid_has_five_resolutions(pyramid_of_faces) -> None:
    _, pyramid = pyramid_of_faces
    assert [feature.shape[1:] for feature in pyramid] == [
        (32, 32, 64), (16, 16, 128), (8, 8, 256), (4, 4, 512), (2, 2, 1024)
    ]  # fmt: skip


def test_features_are_differentiable_and_of_any_size(weights) -> None:
    faces = jnp.asarray(seeded_image("faces", (1, 48, 48, 3), seed=6))

    @jax.jit
    def features_and_gradient(x):
        features, toward_faces = jax.vjp(lambda x: face_features(weights, x), x)
        return features, *toward_faces(jnp.ones_like(features))

    features, gradient = features_and_gradient(faces)
    assert features.shape == (1, FEATURES)
    assert np.isfinite(features).all()
    assert float(jnp.abs(gradient).max()) > 0


def test_weights_of_another_network_are_rejected(weights) -> None:
    with pytest.raises(ValueError, match="face MobileNet: conv1 is missing"):
        face_features({}, jnp.zeros((1, 32, 32, 3)))

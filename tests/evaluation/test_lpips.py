"""LPIPS: equal to PyTorch for the same random weights, bounded, independent of the batch, and only with its own weights."""

import hashlib
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from network_files import write_lpips

from tests.golden.make_lpips_golden import CHANNELS, FILE, images, pyramids
from th_jax.evaluation.judges.lpips import load_lpips, lpips_distance
from th_jax.evaluation.metrics import lpips
from th_jax.perceptual import vgg


@pytest.fixture
def few_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vgg, "CHANNELS", CHANNELS)


def test_pyramids_equal_to_pytorch() -> None:
    a, b, weights = pyramids()
    with np.load(FILE) as golden:
        np.testing.assert_allclose(lpips(a, b, weights), golden["pyramid"], rtol=1e-12)
        on_device = lpips(*([jnp.asarray(x, jnp.float32) for x in side] for side in (a, b)), weights)
        np.testing.assert_allclose(on_device, golden["pyramid"], rtol=1e-5)


def test_the_network_equals_pytorch(tmp_path: Path, few_channels: None) -> None:
    path, digest = write_lpips(tmp_path / "lpips.safetensors")
    weights = load_lpips(path, sha256=digest)
    with np.load(FILE) as golden:
        np.testing.assert_allclose(lpips_distance(weights, *images()), golden["network"], rtol=1e-4)
    a, b = images()
    np.testing.assert_allclose(lpips_distance(weights, a[1:2], b[1:2]), lpips_distance(weights, a, b)[1:2], rtol=1e-5)
    assert (lpips_distance(weights, a, a) < 1e-12).all()


def test_identity_symmetry_scale_and_batch() -> None:
    a, b, weights = pyramids()
    np.testing.assert_array_equal(lpips(a, a, weights), np.zeros(3))
    np.testing.assert_allclose(lpips(a, b, weights), lpips(b, a, weights), rtol=1e-12)
    louder = [7.0 * layer for layer in b]
    np.testing.assert_allclose(lpips(a, louder, weights), lpips(a, b, weights), rtol=1e-9)
    order = [2, 0, 1]
    np.testing.assert_array_equal(
        lpips([x[order] for x in a], [x[order] for x in b], weights), lpips(a, b, weights)[order]
    )
    opposite = lpips([np.ones((1, 2, 2, 4))], [-np.ones((1, 2, 2, 4))], [np.full(4, 0.5)])
    np.testing.assert_allclose(opposite, 0.5 * 4)  # unit vectors that point away from each other


def test_weights_that_do_not_fit() -> None:
    a, b, weights = pyramids()
    with pytest.raises(ValueError, match=r"same layers, .* got 2, 2 and 1"):
        lpips(a, b, weights[:1])
    with pytest.raises(ValueError, match=r"5 channels .* got \[4\]"):
        lpips(a, b, [weights[0][1:], weights[1]])


def test_files_that_are_no_lpips_weights(tmp_path: Path, few_channels: None) -> None:
    path, digest = write_lpips(tmp_path / "lpips.safetensors")
    with pytest.raises(ValueError, match=r"cannot read .*nothing.safetensors"):
        load_lpips(tmp_path / "nothing.safetensors", sha256=digest)
    with pytest.raises(ValueError, match=f"SHA-256 {digest}, but expected {'0' * 64}"):
        load_lpips(path, sha256="0" * 64)
    path, digest = write_lpips(tmp_path / "other.safetensors", file_format="pt")
    with pytest.raises(ValueError, match=r"has the format 'pt'.*docs/evaluation.md"):
        load_lpips(path, sha256=digest)
    path, digest = write_lpips(tmp_path / "part.safetensors", leave_out="net.slice5.28.bias")
    with pytest.raises(ValueError, match=r"net.slice5.28.bias .* \[12\]"):
        load_lpips(path, sha256=digest)


def test_the_bundled_vgg16_is_no_trunk_of_lpips() -> None:
    from th_jax.perceptual.frozen import BUNDLED

    path = BUNDLED["vgg16"]
    with pytest.raises(ValueError, match=r"has the format 'th_jax.perceptual/1'.*docs/evaluation.md"):
        load_lpips(path, sha256=hashlib.sha256(path.read_bytes()).hexdigest())


def test_frames_below_one_position(tmp_path: Path, few_channels: None) -> None:
    path, digest = write_lpips(tmp_path / "lpips.safetensors")
    tiny = np.zeros((1, 12, 20, 3), np.uint8)
    with pytest.raises(ValueError, match="at least 16 px per side"):
        lpips_distance(load_lpips(path, sha256=digest), tiny, tiny)

"""Image metrics: equal to scikit-image and PyTorch, consistent with their definitions, and independent of the batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.golden.make_metrics_golden import FILE, RANGES, image_pairs
from th_jax.evaluation import metrics
from th_jax.evaluation.metrics import box_l1, l1, ms_ssim, perceptual_distance, psnr, ssim, temporal_flicker

seeds = st.integers(0, 2**32 - 1)
PAIRWISE = {"l1": l1, "psnr": psnr, "ssim": ssim}


def images(seed: int, *, count: int = 3, size: int = 16, dtype: type = np.float64) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    a = rng.random((count, size, size + 3, 3))
    return a.astype(dtype), np.clip(a + rng.normal(scale=0.2, size=a.shape), 0, 1).astype(dtype)


def corners(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    return np.array([[[left, top], [right, bottom]]], np.float32)


@pytest.mark.parametrize("name", RANGES)
def test_equal_to_scikit_image(name: str) -> None:
    a, b = image_pairs(name, (5, 28, 36, 3), scale=RANGES[name])
    with np.load(FILE) as golden:
        np.testing.assert_allclose(ssim(a, b, data_range=RANGES[name]), golden[f"ssim/{name}"], rtol=0, atol=1e-9)
        np.testing.assert_allclose(psnr(a, b, data_range=RANGES[name]), golden[f"psnr/{name}"], rtol=1e-12)


def test_multi_scale_equal_to_pytorch() -> None:
    a, b = image_pairs("ms_ssim", (3, 176, 188, 3), scale=1.0)
    with np.load(FILE) as golden:
        np.testing.assert_allclose(ms_ssim(a, b), golden["ms_ssim"], rtol=0, atol=1e-9)
    np.testing.assert_array_equal(ms_ssim(a[:1], a[:1]), [1.0])


@settings(max_examples=20, deadline=None)
@given(seeds)
def test_identity_symmetry_and_bounds(seed: int) -> None:
    a, b = images(seed)
    for measure in PAIRWISE.values():
        np.testing.assert_allclose(measure(a, b), measure(b, a), rtol=1e-12)
    assert np.all(l1(a, a) == 0)
    assert np.all(psnr(a, a) == np.inf)
    np.testing.assert_allclose(ssim(a, a), 1.0, rtol=1e-12)
    assert np.all((l1(a, b) > 0) & (l1(a, b) < 1))
    assert np.all((ssim(a, b) < 1) & (ssim(a, b) >= -1))
    assert np.all(ssim(a, 1 - a) < ssim(a, b)), "a negative is less alike than a noisy copy"


@settings(max_examples=20, deadline=None)
@given(seeds, st.permutations(range(4)))
def test_every_image_is_measured_by_itself(seed: int, order: list[int]) -> None:
    a, b = images(seed, count=4)
    landmarks = np.random.default_rng(seed).uniform(0.1, 0.9, (4, 5, 2))
    for name, measure in PAIRWISE.items():
        together = measure(a, b)
        assert together.shape == (4,)
        np.testing.assert_array_equal(measure(a[order], b[order]), together[order], err_msg=name)
        alone = np.concatenate([measure(a[i : i + 1], b[i : i + 1]) for i in range(4)])
        np.testing.assert_array_equal(alone, together, err_msg=name)
    together = box_l1(a, b, landmarks)
    np.testing.assert_array_equal(box_l1(a[order], b[order], landmarks[order]), together[order])


def test_the_batch_changes_no_scale_and_no_layer() -> None:
    a, b = images(8, count=2, size=176)
    np.testing.assert_array_equal(ms_ssim(a[::-1], b[::-1]), ms_ssim(a, b)[::-1])
    np.testing.assert_array_equal(ms_ssim(a[1:], b[1:]), ms_ssim(a, b)[1:])
    alone = perceptual_distance([a[1:], a[1:, ::2]], [b[1:], b[1:, ::2]])
    np.testing.assert_array_equal(alone, perceptual_distance([a, a[:, ::2]], [b, b[:, ::2]])[1:])


def test_on_the_device_and_inside_of_jit() -> None:
    a, b = images(1, dtype=np.float32)
    landmarks = np.random.default_rng(1).uniform(0.1, 0.9, (3, 5, 2)).astype(np.float32)
    landmarks[0, 0], landmarks[1] = np.nan, np.nan
    for name, measure in PAIRWISE.items():
        compiled = jax.jit(measure)(jnp.asarray(a), jnp.asarray(b))
        assert isinstance(compiled, jax.Array), name
        np.testing.assert_allclose(compiled, measure(a, b), rtol=2e-5, err_msg=name)
        alone = measure(jnp.asarray(a[1:2]), jnp.asarray(b[1:2]))
        np.testing.assert_allclose(alone, compiled[1:2], rtol=1e-5, err_msg=name)
    half = l1(jnp.asarray(a, jnp.bfloat16), jnp.asarray(b, jnp.bfloat16))
    assert half.dtype == jnp.float32, "sums of thousands of pixels need more than bfloat16"
    compiled = jax.jit(box_l1)(jnp.asarray(a), jnp.asarray(b), jnp.asarray(landmarks))
    np.testing.assert_allclose(compiled, box_l1(a, b, landmarks), rtol=1e-5)
    assert np.isnan(np.asarray(compiled)).tolist() == [False, True, False]


def test_float32_is_measured_in_float64_on_the_host() -> None:
    a, b = images(2, dtype=np.float32)
    np.testing.assert_array_equal(ssim(a, b), ssim(a.astype(np.float64), b.astype(np.float64)))


def test_l1_and_psnr_of_known_differences() -> None:
    a = np.full((2, 12, 12, 3), 0.5)
    b = a + np.array([0.1, -0.2])[:, None, None, None]
    np.testing.assert_allclose(l1(a, b), [0.1, 0.2])
    np.testing.assert_allclose(psnr(a, b), [20.0, 20 * np.log10(5)])
    np.testing.assert_allclose(psnr(255 * a, 255 * b, data_range=255.0), [20.0, 20 * np.log10(5)])


def test_ssim_of_plain_images_is_the_luminance_term() -> None:
    a, b = np.full((1, 11, 11, 1), 0.2), np.full((1, 11, 11, 1), 0.6)
    np.testing.assert_allclose(ssim(a, b), (2 * 0.2 * 0.6 + 1e-4) / (0.2**2 + 0.6**2 + 1e-4))


def test_the_box_holds_the_pixels_whose_centres_lie_in_it() -> None:
    a, b = np.zeros((1, 10, 10, 3)), np.zeros((1, 10, 10, 3))
    b[0, 2:5, 4:8] = 1.0  # y from 0.2 to 0.5, x from 0.4 to 0.8
    np.testing.assert_allclose(box_l1(a, b, corners(0.4, 0.2, 0.8, 0.5), margin=0.0), [1.0])
    np.testing.assert_allclose(box_l1(a, b, corners(0.0, 0.0, 1.0, 1.0), margin=0.0), l1(a, b))
    np.testing.assert_allclose(box_l1(a, b, corners(0.4, 0.2, 0.8, 0.6), margin=0.0), [0.75])
    # A margin of a quarter of 0.4 x 0.4 adds one pixel on every side: 36 pixels around the 12.
    np.testing.assert_allclose(box_l1(a, b, corners(0.4, 0.2, 0.8, 0.6), margin=0.25), [12 / 36])
    np.testing.assert_allclose(box_l1(a, b, corners(-0.5, -0.5, 1.5, 1.5), margin=0.0), l1(a, b))


def test_a_box_without_pixels_or_points_is_nan() -> None:
    a, b = images(3, count=1)
    landmarks = corners(0.4, 0.2, 0.8, 0.5)
    partly = np.concatenate([landmarks, np.full((1, 3, 2), np.nan, np.float32)], axis=1)
    np.testing.assert_array_equal(box_l1(a, b, partly), box_l1(a, b, landmarks))
    assert np.isnan(box_l1(a, b, np.full_like(landmarks, np.nan))).all()
    assert np.isnan(box_l1(a, b, corners(1.2, 0.2, 1.4, 0.5), margin=0.0)).all()


def test_perceptual_distance_is_the_mean_over_layers() -> None:
    rng = np.random.default_rng(4)
    a = [rng.random((2, 8, 8, 4)), rng.random((2, 4, 4, 6))]
    b = [a[0] + 0.5, a[1] - 1.5]
    np.testing.assert_allclose(perceptual_distance(a, b), [1.0, 1.0])
    np.testing.assert_array_equal(perceptual_distance(a, a), [0.0, 0.0])


def test_flicker_of_constructed_sequences() -> None:
    rng = np.random.default_rng(5)
    real = rng.random((6, 12, 12, 3))
    sign = np.array([1, -1] * 3)[:, None, None, None]
    np.testing.assert_array_equal(temporal_flicker(real, reference=real), np.zeros(5))
    np.testing.assert_allclose(temporal_flicker(real + 0.3, reference=real), np.zeros(5), atol=1e-15)
    np.testing.assert_allclose(temporal_flicker(real + 0.1 * sign, reference=real), np.full(5, 0.2))
    np.testing.assert_allclose(temporal_flicker(real), np.abs(np.diff(real, axis=0)).mean((1, 2, 3)))
    frozen = np.repeat(real[:1], 6, axis=0)
    np.testing.assert_allclose(temporal_flicker(frozen, reference=real), temporal_flicker(real))


def test_incomparable_inputs_are_rejected() -> None:
    a, b = images(6)
    with pytest.raises(ValueError, match=r"same shape, got \[3, 16, 19, 3\] and \[2, 16, "):
        l1.__wrapped__(a, b[:2])
    with pytest.raises(ValueError, match=r"ssim .* 11 px per side, got 16 x 8 px"):
        ssim(a[:, :, :8], b[:, :, :8])
    with pytest.raises(ValueError, match=r"ms_ssim .* 176 px per side, got 175 x 300 px"):
        ms_ssim(np.zeros((1, 175, 300, 3)), np.zeros((1, 175, 300, 3)))
    for measure in (psnr, ssim, ms_ssim):
        with pytest.raises(ValueError, match=r"data_range .* got 0\.0"):
            measure(a, b, data_range=0.0)
    with pytest.raises(ValueError, match="margin"):
        box_l1(a, b, np.zeros((3, 5, 2)), margin=-0.1)
    with pytest.raises(ValueError, match="two successive frames, got 1"):
        temporal_flicker(a[:1])
    with pytest.raises(ValueError, match=r"same layers, .* got 1 and 2"):
        perceptual_distance([a], [a, b])
    with pytest.raises(ValueError, match=r"same layers, .* got 0 and 0"):
        perceptual_distance([], [])


def test_shapes_are_checked_without_type_checking() -> None:
    a, _ = images(7)
    with pytest.raises(TypeError, match=r"floating point, got uint8; divide"):
        l1.__wrapped__(np.zeros((1, 4, 4, 3), np.uint8), np.zeros((1, 4, 4, 3), np.uint8))
    with pytest.raises(ValueError, match=r"\[B, H, W, C\], got \[16, 19, 3\]"):
        ssim.__wrapped__(a[0], a[0])
    with pytest.raises(ValueError, match=r"landmarks \[3, P, 2\], got \[2, 5, 2\]"):
        box_l1.__wrapped__(a, a, np.zeros((2, 5, 2)))


def test_everything_is_named_once() -> None:
    assert sorted(metrics.__all__) == sorted(set(metrics.__all__))
    assert all(hasattr(metrics, name) for name in metrics.__all__)

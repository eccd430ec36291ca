"""Landmark images: where strokes lie, what missing points do, and that gradients are right and local."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from th_jax.landmarks import scheme
from th_jax.landmarks.draw import draw_landmarks


def face(seed: int = 0, points: int = 68) -> np.ndarray:
    """Landmarks spread over the middle of the picture."""
    return np.random.default_rng(seed).uniform(0.2, 0.8, (points, 2)).astype(np.float32)


def only(indices: dict[int, tuple[float, float]], points: int = 68) -> np.ndarray:
    """A face of which all but a few points are unknown."""
    landmarks = np.full((points, 2), np.nan, np.float32)
    for index, place in indices.items():
        landmarks[index] = place
    return landmarks


def test_against_a_plain_rendering() -> None:
    """Distance of every pixel centre to every stroke, laid over each other one by one, in float64."""
    size, landmarks = 48, face(points=70).astype(np.float64)
    strokes = scheme.segments(70)
    y, x = np.mgrid[0:size, 0:size] + 0.5
    expected = np.zeros((size, size, 3))
    for start, end, radius, color in zip(*strokes, strict=True):
        a, b = landmarks[start] * size, landmarks[end] * size
        along = b - a
        share = np.clip(((x - a[0]) * along[0] + (y - a[1]) * along[1]) / max(along @ along, 1e-12), 0, 1)
        distance = np.hypot(x - a[0] - share * along[0], y - a[1] - share * along[1])
        coverage = np.clip(radius * max(1.0, size / 128) + 0.5 - distance, 0, 1)[..., None]
        expected = expected * (1 - coverage) + coverage * color
    drawn = draw_landmarks(jnp.asarray(landmarks, jnp.float32), size=size)
    np.testing.assert_allclose(np.asarray(drawn), expected, atol=2e-4)


def test_a_horizontal_stroke_is_two_pixels_wide_at_256() -> None:
    drawn = np.asarray(draw_landmarks(jnp.asarray(only({0: (0.25, 0.5), 1: (0.75, 0.5)})), size=256))
    np.testing.assert_allclose(drawn[:, 128].sum(0), 2.0, atol=1e-3)
    np.testing.assert_allclose(drawn[127:129, 100], 1.0, atol=1e-3)
    assert drawn[120].max() == 0


@pytest.mark.parametrize("size", [16, 64, 100])
def test_lines_are_at_least_one_pixel_wide(size: int) -> None:
    drawn = draw_landmarks(jnp.asarray(only({0: (0.25, 0.5), 1: (0.75, 0.5)})), size=size)
    assert float(drawn[:, size // 2].sum()) == pytest.approx(3.0, abs=1e-3)


def test_colours_tell_parts_apart() -> None:
    for contour in scheme.CONTOURS:
        a, b = contour.points[:2]
        drawn = np.asarray(draw_landmarks(jnp.asarray(only({a: (0.2, 0.5), b: (0.8, 0.5)})), size=64))
        np.testing.assert_allclose(drawn[31, 32] / drawn[31, 32].max(), contour.color, atol=1e-3, err_msg=contour.name)


def test_closed_contours_close_and_open_ones_do_not() -> None:
    eye = only({36: (0.2, 0.5), 41: (0.8, 0.5)})
    jaw = only({0: (0.2, 0.5), 16: (0.8, 0.5)})
    assert float(draw_landmarks(jnp.asarray(eye), size=64).max()) > 0
    assert float(draw_landmarks(jnp.asarray(jaw), size=64).max()) == 0


def test_missing_points_are_not_drawn_and_poison_nothing() -> None:
    landmarks = face()
    landmarks[30] = np.nan
    landmarks[40, 0] = np.inf
    drawn = draw_landmarks(jnp.asarray(landmarks), size=32)
    gradient = jax.grad(lambda p: draw_landmarks(p, size=32).sum())(jnp.asarray(landmarks))
    assert np.isfinite(np.asarray(drawn)).all()
    assert np.isfinite(np.asarray(gradient)).all()
    assert not np.any(np.asarray(gradient)[[30, 40]])
    assert float(draw_landmarks(jnp.full((70, 2), jnp.nan), size=32).max()) == 0


def test_pupils_are_discs_and_their_absence_changes_nothing_else() -> None:
    landmarks = face(points=70)
    without = landmarks.copy()
    without[68:] = np.nan
    np.testing.assert_array_equal(
        draw_landmarks(jnp.asarray(without), size=64), draw_landmarks(jnp.asarray(landmarks[:68]), size=64)
    )
    disc = np.asarray(draw_landmarks(jnp.asarray(only({68: (0.5, 0.5)}, points=70)), size=256))[..., 0]
    assert disc.sum() == pytest.approx(np.pi * (2 + 0.5) ** 2 * 0.66, rel=0.1)  # radius 2 px with a soft edge
    np.testing.assert_allclose(disc, disc[::-1], atol=1e-5)
    np.testing.assert_allclose(disc, disc.T, atol=1e-5)


def test_points_outside_the_picture_are_fine() -> None:
    landmarks = face() * 6 - 3
    drawn = draw_landmarks(jnp.asarray(landmarks), size=32)
    assert np.isfinite(np.asarray(drawn)).all()
    assert float(drawn.max()) <= 1
    far = draw_landmarks(jnp.full((68, 2), 1e6), size=32)
    assert float(far.max()) == 0


def test_batches_are_single_pictures_side_by_side() -> None:
    landmarks = jnp.asarray(np.stack([face(i) for i in range(6)]).reshape(2, 3, 68, 2))
    together = draw_landmarks(landmarks, size=32)
    assert together.shape == (2, 3, 32, 32, 3)
    np.testing.assert_allclose(together[1, 2], draw_landmarks(landmarks[1, 2], size=32), atol=1e-6)


def test_gradient_against_finite_differences() -> None:
    landmarks = jnp.asarray(face(3))
    weights = jnp.asarray(np.random.default_rng(1).normal(size=(32, 32, 3)), jnp.float32)
    objective = jax.jit(lambda p: (draw_landmarks(p, size=32) * weights).sum())
    gradient = np.asarray(jax.grad(objective)(landmarks))
    agreeing = 0
    for index in range(0, 68, 5):
        step = np.zeros((68, 2), np.float32)
        step[index, 0] = 2e-3
        numeric = float(objective(landmarks + step) - objective(landmarks - step)) / 4e-3
        agreeing += abs(numeric - gradient[index, 0]) < 0.15 * abs(numeric) + 1.0
    assert agreeing >= 12  # of 14: coverage has kinks, which a step may cross


def test_a_landmark_moves_only_pixels_near_its_strokes() -> None:
    size, landmarks = 64, face(5)
    moved = landmarks.copy()
    moved[30] += 0.02
    change = np.abs(
        np.asarray(draw_landmarks(jnp.asarray(moved), size=size) - draw_landmarks(jnp.asarray(landmarks), size=size))
    ).max(-1)
    y, x = np.mgrid[0:size, 0:size] + 0.5
    places = np.stack([landmarks[29], landmarks[30], moved[30]]) * size  # point 30 ends the nose's bridge
    low, high = places.min(0) - 2, places.max(0) + 2
    near = (x >= low[0]) & (x <= high[0]) & (y >= low[1]) & (y <= high[1])
    assert change.max() > 0.1
    assert change[~near].max() == 0


def test_bad_input_is_refused_with_its_reason() -> None:
    with pytest.raises(ValueError, match="68 iBUG points, or 70 with the two pupils, but got 5"):
        draw_landmarks(jnp.zeros((5, 2)), size=32)
    with pytest.raises(TypeError, match="floating point in \\[0, 1\\], got int32"):
        draw_landmarks.__wrapped__(jnp.zeros((68, 2), jnp.int32), size=32)
    with pytest.raises(ValueError, match="size must be at least 1 pixel, but is 0"):
        draw_landmarks.__wrapped__(jnp.zeros((68, 2)), size=0)
    with pytest.raises(ValueError, match=r"shape \[..., P, 2\], but have \(68, 3\)"):
        draw_landmarks.__wrapped__(jnp.zeros((68, 3)), size=32)


def test_lines_of_another_width() -> None:
    """A straight stroke covers as much area as it is wide times long."""
    points = jnp.asarray(only({0: (0.25, 0.5), 1: (0.75, 0.5)}))
    for width, pixels in ((2.0, 1.0), (3.0, 1.5), (8.0, 4.0), (0.5, 1.0)):
        drawn = np.asarray(draw_landmarks(points, size=128, line_width=width)).max(-1)
        np.testing.assert_allclose(drawn[:, 40:90].sum(0), pixels, atol=0.51)
    with pytest.raises(ValueError, match="line_width"):
        draw_landmarks(points, size=128, line_width=0.0)


def pupil(x: float, y: float, *, size: int, pupils: str) -> np.ndarray:
    """One channel of an image of `size` pixels with a pupil at (x, y) pixels alone."""
    points = jnp.asarray(only({68: (x / size, y / size)}, points=70))
    return np.asarray(draw_landmarks(points, size=size, pupils=pupils), np.float64)[..., 0]  # type: ignore[arg-type]


@pytest.mark.parametrize(("size", "line_width", "radius"), [(64, 2.0, 1.0), (128, 3.0, 1.5), (256, 2.0, 2.0)])
def test_disks_cover_their_area_wherever_they_lie(size: int, line_width: float, radius: float) -> None:
    for x, y in np.random.default_rng(0).uniform(20, 21, (8, 2)):
        points = jnp.asarray(only({68: (x / size, y / size)}, points=70))
        drawn = np.asarray(draw_landmarks(points, size=size, line_width=line_width, pupils="area"), np.float64)
        assert drawn[..., 0].sum() == pytest.approx(np.pi * radius**2, abs=2e-4)
        assert drawn.max() <= 1


@pytest.mark.parametrize(("size", "tolerance"), [(64, 0.03), (256, 0.01)])
def test_a_disk_moves_by_tenths_of_a_pixel(size: int, tolerance: float) -> None:
    """The centroid of its coverage; what remains comes from the square shape of pixels, and shrinks with the disk's size."""
    centers = np.arange(size) + 0.5

    def centroid(x: float, pupils: str) -> float:
        drawn = pupil(x, 20.3, size=size, pupils=pupils)
        return float((drawn.sum(0) * centers).sum() / drawn.sum())

    for x in np.linspace(20, 21, 11):
        step = centroid(x + 0.1, "area") - centroid(x, "area")
        assert step == pytest.approx(0.1, abs=tolerance)


def test_a_disk_against_fine_sampling() -> None:
    size, fine = 16, 64
    drawn = pupil(7.37, 8.21, size=size, pupils="area")
    y, x = (np.mgrid[: size * fine, : size * fine] + 0.5) / fine
    inside = (x - 7.37) ** 2 + (y - 8.21) ** 2 < 1
    np.testing.assert_allclose(drawn, inside.reshape(size, fine, size, fine).mean((1, 3)), atol=3e-3)


def test_soft_pupils_are_the_default_and_differ_in_area() -> None:
    points = jnp.asarray(face(points=70))
    np.testing.assert_array_equal(draw_landmarks(points, size=64), draw_landmarks(points, size=64, pupils="soft"))
    areas = {
        kind: [pupil(20 + shift, 20, size=64, pupils=kind).sum() for shift in (0, 0.5)] for kind in ("soft", "area")
    }
    assert abs(areas["soft"][0] - areas["soft"][1]) > 0.1 > abs(areas["area"][0] - areas["area"][1])


def test_disks_have_finite_local_gradients_and_unknown_ones_none() -> None:
    points = face(points=70)
    points[69] = np.nan
    weights = jnp.asarray(np.random.default_rng(1).normal(size=(32, 32, 3)), jnp.float32)
    objective = jax.jit(lambda p: (draw_landmarks(p, size=32, pupils="area") * weights).sum())
    gradient = np.asarray(jax.grad(objective)(jnp.asarray(points)))
    assert np.isfinite(gradient).all()
    assert not gradient[69].any()
    step = np.zeros((70, 2), np.float32)
    step[68, 0] = 1e-3
    numeric = float(objective(points + step) - objective(points - step)) / 2e-3
    assert gradient[68, 0] == pytest.approx(numeric, rel=0.05, abs=1.0)
    outside = jnp.asarray(only({68: (1.5, 0.5)}, points=70))
    assert float(draw_landmarks(outside, size=32, pupils="area").max()) == 0

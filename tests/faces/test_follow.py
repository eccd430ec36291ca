"""Squares that follow a head: still for a still one, in range for any motion, without lag, independent of the frame rate."""

from collections.abc import Callable

import numpy as np
import pytest

from benchmarks.following import training_placement
from th_jax.data.records import VideoRecords, bundled_heads
from th_jax.faces import (
    TRAINING_PLACEMENT,
    Placement,
    SquareFollower,
    face_size,
    follow,
    following_squares,
    head_center,
    in_squares,
    placement_of,
    usable_faces,
)
from th_jax.faces.follow import FACE_SHARE, HEAD_X, HEAD_Y, YAW

FPS = 25
PIXEL = 1 / 128
"""Of a frame of 128 px."""


@pytest.fixture(scope="module")
def face() -> np.ndarray:
    """A rendered head's landmarks, in pixels: a head of 240 px whose face is as large as the median of training."""
    landmarks = VideoRecords(bundled_heads(), "heldout").read(8).landmarks[0, :68].astype(np.float64)
    return (landmarks - head_center(landmarks)) * 240 * FACE_SHARE.median / face_size(landmarks)


def track(
    face: np.ndarray, x: Callable[[np.ndarray], object], size: Callable[[np.ndarray], object], *, fps: int = FPS
) -> tuple[np.ndarray, np.ndarray]:
    """Four seconds of a head whose center and size are functions of time."""
    times = np.arange(4 * fps) / fps
    scale = np.broadcast_to(size(times), times.shape)[:, None, None]
    place = np.stack([np.broadcast_to(x(times), times.shape), np.full_like(times, 180.0)], 1)
    return (face * scale + place[:, None]).astype(np.float32), times


def sway(times: np.ndarray) -> np.ndarray:
    return 480 + 138 * np.sin(2 * np.pi * times * FPS / 60)


def lean(times: np.ndarray) -> np.ndarray:
    return 1 - (1 - 0.20 / 0.57) * (1 - np.cos(2 * np.pi * times / 4)) / 2


def walk(times: np.ndarray) -> np.ndarray:
    return 480 + 600 * np.clip(times - 1, 0, 1)


MOTIONS = {
    "sways": (sway, lambda _: 1.0), "walks": (walk, lambda _: 1.0), "leans back": (lambda _: 480.0, lean),
    "all": (lambda t: sway(t) + walk(t), lean), "jumps": (lambda t: 480 + 900 * (t > 2), lambda t: 1 - 0.8 * (t > 2)),
}  # fmt: skip


CLOSE = Placement(0.56, 0.52, 0.70)
"""A head that fills more of its shots than most in training."""

SHARES = {TRAINING_PLACEMENT: (FACE_SHARE.low, FACE_SHARE.high), CLOSE: (0.473, FACE_SHARE.most)}
"""How small and how large a face may become at a placement."""


def assert_in_range(landmarks: np.ndarray, rest: Placement) -> None:
    center, share = head_center(landmarks), face_size(landmarks)
    for values, at, spread in ((center[:, 0], rest.x, HEAD_X), (center[:, 1], rest.y, HEAD_Y)):
        assert max(spread.least, at + spread.low - spread.median) - 1e-6 < values.min()
        assert values.max() < min(spread.most, at + spread.high - spread.median) + 1e-6
    low, high = SHARES[rest]
    assert low - 1e-6 < share.min() <= share.max() < high + 1e-6
    assert landmarks.min() > 0
    assert landmarks.max() < 1 or rest is CLOSE


def test_the_constants_are_those_of_the_bundled_training_records() -> None:
    measured = training_placement()
    for name, spread in (("share", FACE_SHARE), ("x", HEAD_X), ("y", HEAD_Y)):
        np.testing.assert_allclose(spread, measured[name], atol=6e-4)
    np.testing.assert_allclose(YAW, measured["turn"], atol=0.06)


def test_the_center_of_a_head_stays_when_it_turns() -> None:
    """People not used for tuning; the centroid of their landmarks moves six times as far."""
    records = VideoRecords(bundled_heads(), "heldout")
    moved = {"center": [], "centroid": []}
    for number in range(len(records)):
        landmarks = records.read(number).landmarks[:, :68].astype(np.float64)
        for name, points in (("center", head_center(landmarks)), ("centroid", landmarks.mean(1))):
            moved[name].append((points - np.median(points, 0)) / np.median(face_size(landmarks)))
    center, centroid = (np.concatenate(moved[name]).std(0) for name in ("center", "centroid"))
    assert center.max() < 0.05
    assert centroid[0] > 0.2


def placed(landmarks: np.ndarray, rest: Placement) -> np.ndarray:
    """Landmarks in pixels, as in a shot whose square has the head at this placement."""
    side = face_size(landmarks) / rest.share
    return (landmarks - head_center(landmarks)) / side + (rest.x, rest.y)


def test_the_placement_of_shots_is_their_median_within_training(face: np.ndarray) -> None:
    shots = np.stack(
        [placed(face, CLOSE._replace(share=share, x=x)) for share, x in ((0.5, 0.5), (0.56, 0.52), (0.57, 0.6))]
    )
    np.testing.assert_allclose(placement_of(shots), CLOSE)
    blind = np.concatenate([shots, np.full((4, 68, 2), np.nan)])
    np.testing.assert_allclose(placement_of(blind), CLOSE)
    with_pupils = np.concatenate([shots, np.full((3, 2, 2), np.nan)], axis=1)
    np.testing.assert_allclose(placement_of(with_pupils), CLOSE)
    assert placement_of(None) == placement_of(blind[3:]) == TRAINING_PLACEMENT
    for far, end in ((Placement(0.9, 0.9, 0.95), "most"), (Placement(0.1, 0.2, 0.3), "least")):
        clamped = placement_of(placed(face, far)[None])
        for value, spread in zip(clamped, (FACE_SHARE, HEAD_X, HEAD_Y), strict=True):
            assert spread.least < value < spread.most
            assert value == pytest.approx(getattr(spread, end), abs=0.021)


@pytest.mark.parametrize("rest", SHARES)
def test_a_still_head_has_an_exactly_still_square(face: np.ndarray, rest: Placement) -> None:
    landmarks, times = track(face, lambda _: 480.0, lambda _: 1.0)
    squares = following_squares(landmarks, times, rest=rest)
    assert np.ptp(squares, axis=0).max() == 0
    follower = SquareFollower(rest=rest)
    np.testing.assert_allclose([follower(landmarks[0], time=time) for time in times], squares, rtol=1e-9)
    inside = in_squares(landmarks, squares)
    np.testing.assert_allclose(placement_of(inside), rest, atol=1e-5)


@pytest.mark.parametrize("rest", SHARES)
@pytest.mark.parametrize("sigma", [0.3, 0.6])
def test_noise_of_the_tracker_does_not_move_the_square(face: np.ndarray, sigma: float, rest: Placement) -> None:
    landmarks, times = track(face, lambda _: 480.0, lambda _: 1.0)
    noise = sigma * PIXEL * 240 * np.random.default_rng(0).standard_normal(landmarks.shape)
    noisy = (landmarks + noise).astype(np.float32)
    squares = following_squares(noisy, times, rest=rest)
    fixed = np.broadcast_to(squares.mean(0), squares.shape)
    added = in_squares(noisy, squares) - in_squares(noisy, fixed)
    assert np.abs(added).max() < 0.15 * PIXEL
    follower = SquareFollower(rest=rest)
    live = np.stack([follower(points, time=time) for points, time in zip(noisy, times, strict=True)])[2 * FPS :]
    added = in_squares(noisy[2 * FPS :], live) - in_squares(noisy[2 * FPS :], np.broadcast_to(live.mean(0), live.shape))
    assert np.abs(added).max() < 0.15 * PIXEL


@pytest.mark.parametrize("rest", SHARES)
@pytest.mark.parametrize("motion", MOTIONS)
def test_a_moving_head_stays_in_range(face: np.ndarray, motion: str, rest: Placement) -> None:
    landmarks, times = track(face, *MOTIONS[motion])
    assert_in_range(in_squares(landmarks, following_squares(landmarks, times, rest=rest)), rest)
    follower = SquareFollower(rest=rest)
    live = np.stack([follower(points, time=time) for points, time in zip(landmarks, times, strict=True)])
    assert_in_range(in_squares(landmarks, live), rest)


@pytest.mark.parametrize("frequency", [0.25, 3.0])
def test_small_motion_is_kept(face: np.ndarray, frequency: float) -> None:
    """A hundredth of the side, slowly within the dead zone or quickly: the motion is kept entirely."""
    landmarks, times = track(face, lambda t: 480 + 2.4 * np.sin(2 * np.pi * frequency * t), lambda _: 1.0)
    follower = SquareFollower()
    live = np.stack([follower(points, time=time) for points, time in zip(landmarks, times, strict=True)])
    for squares in (following_squares(landmarks, times), live):
        moved = np.ptp(head_center(in_squares(landmarks, squares))[:, 0])
        assert moved == pytest.approx(4.8 / squares[0, 2], rel=0.05)


def test_the_square_is_not_late(face: np.ndarray) -> None:
    """The path is the same backward in time."""
    landmarks, times = track(face, walk, lean)
    there = following_squares(landmarks, times)
    back = following_squares(landmarks[::-1], times[-1] - times[::-1])[::-1]
    np.testing.assert_allclose(there, back, atol=1e-6)
    follower = SquareFollower()
    live = np.stack([follower(points, time=time) for points, time in zip(landmarks, times, strict=True)])
    standing = slice(FPS, 2 * FPS)  # while it walks, the one that knows no future is behind
    assert (live[standing, 0] < there[standing, 0] + 1).all()


def test_the_frame_rate_does_not_matter(face: np.ndarray) -> None:
    slow, fast = (following_squares(*track(face, sway, lean, fps=fps)) for fps in (FPS, 4 * FPS))
    assert np.abs(slow - fast[::4]).max() < 0.03 * slow[:, 2].min()


def test_gaps_lie_between_their_neighbors(face: np.ndarray) -> None:
    landmarks, times = track(face, sway, lambda _: 1.0)
    landmarks[10:14, 5] = np.nan
    squares = following_squares(landmarks, times)
    np.testing.assert_allclose(squares[9:15, 0], np.linspace(squares[9, 0], squares[14, 0], 6), atol=1e-6)


def test_one_frame_and_no_frames(face: np.ndarray) -> None:
    squares = following_squares(face[None], np.array([3.0]))
    np.testing.assert_allclose(squares[0, 2], 240, rtol=1e-5)
    nowhere = np.stack([np.full((68, 2), np.nan), np.full((68, 2), 7.0)])
    assert not usable_faces(nowhere).any()
    with pytest.raises(ValueError, match="segment without landmarks"):
        following_squares(nowhere, np.arange(2.0))


def test_long_segments_are_taken_in_blocks(face: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    landmarks, times = track(face, sway, lean)
    whole = following_squares(landmarks, times)
    monkeypatch.setattr(follow, "_BLOCK", 7)
    np.testing.assert_array_equal(following_squares(landmarks, times), whole)

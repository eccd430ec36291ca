"""Smoothing of the model's coefficients beside smoothing of points: a still face is steadier, and a step arrives as soon."""

import numpy as np
import pytest

from data_prep.heads.identity import draw_identity
from data_prep.heads.motion import head_state
from data_prep.heads.person import prepare
from data_prep.heads.render import pose, true_landmarks
from th_jax.landmarks.methods import Follower, ModelRetargeter, Target, live_retargeter, make_retargeter
from th_jax.landmarks.smooth import LandmarkFilter, OneEuro

FPS = 25.0


@pytest.fixture(scope="module")
def faces(rendered_faces: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """A driver's 24 frames, and a target's."""
    return rendered_faces


def followed(follower: Follower, clip: np.ndarray) -> np.ndarray:
    return np.stack([follower(frame, time=number / FPS) for number, frame in enumerate(clip)])


def smoothed_points(adapt: ModelRetargeter, clip: np.ndarray) -> np.ndarray:
    smooth = LandmarkFilter(OneEuro())
    return np.stack([smooth(adapt(frame[None])[0], time=number / FPS) for number, frame in enumerate(clip)])


def jitter(clip: np.ndarray) -> float:
    return float(np.linalg.norm(np.diff(clip[15:, :68], axis=0), axis=-1).mean())


def test_a_still_face_is_steadier_than_with_smoothed_points(faces: tuple[np.ndarray, np.ndarray]) -> None:
    driver, target = faces
    rng = np.random.default_rng(0)
    still = np.repeat(driver[:1], 40, 0) + 0.002 * rng.normal(size=(40, *driver.shape[1:])).astype(np.float32)
    adapt = make_retargeter(Target("model", target), driver)
    assert isinstance(adapt, ModelRetargeter)
    raw, ours, theirs = adapt(still), followed(Follower(adapt, OneEuro()), still), smoothed_points(adapt, still)
    assert jitter(ours) < 0.8 * jitter(theirs) < 0.8 * jitter(raw)


@pytest.fixture(scope="module")
def blink() -> np.ndarray:
    """The driver with open and with shut lids."""
    person = prepare(draw_identity(100_001))
    states = [head_state(), head_state(expression={"eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0})]
    return np.stack([true_landmarks(person, pose(person, state))[:, :2] for state in states]).astype(np.float32)


@pytest.mark.parametrize("lids", [True, False])
def test_a_step_arrives_as_soon_as_with_smoothed_points(
    faces: tuple[np.ndarray, np.ndarray], blink: np.ndarray, lids: bool
) -> None:
    """The lids shut, or pose and expression jump."""
    driver, target = faces
    before, after = blink if lids else (driver[0], driver[12])
    which = [37, 38, 43, 44] if lids else list(range(68))
    clip = np.stack([before] * 20 + [after] * 10)
    adapt = make_retargeter(Target("model", target), driver)
    assert isinstance(adapt, ModelRetargeter)
    end = adapt(clip[-1:])[0, which]

    def left(came: np.ndarray) -> np.ndarray:
        """Distance that is left in the frames after the step, relative to the step."""
        apart = np.linalg.norm(came[:, which] - end, axis=-1).mean(-1)
        return apart[20:24] / apart[19]

    ours, theirs = left(followed(Follower(adapt, OneEuro()), clip)), left(smoothed_points(adapt, clip))
    assert (ours < theirs + 0.05).all(), (ours, theirs)
    assert ours[2] < 0.25


def test_the_first_frame_and_the_one_after_a_reset_pass_unchanged(faces: tuple[np.ndarray, np.ndarray]) -> None:
    driver, target = faces
    adapt = make_retargeter(Target("model", target), driver)
    follower = Follower(adapt, OneEuro())
    for number in (0, 12):
        follower.reset()
        came = follower(driver[number], time=0.0)
        np.testing.assert_allclose(came, adapt(driver[number : number + 1])[0], atol=1e-5)


def test_unknown_frames_and_pupils_stay_unknown(faces: tuple[np.ndarray, np.ndarray]) -> None:
    driver, target = faces
    clip = driver[:6].copy()
    clip[2], clip[3, 68:] = np.nan, np.nan
    for adapt in (make_retargeter(Target("model", target), driver), live_retargeter(Target("model", target), driver)):
        came = followed(Follower(adapt, OneEuro()), clip)
        assert np.isnan(came[2]).all()
        assert np.isnan(came[3, 68:]).all()
        assert np.isfinite(came[[0, 1, 4, 5]]).all()
        assert np.isfinite(came[3, :68]).all()


def test_other_methods_smooth_points_and_none_is_the_filter_alone(faces: tuple[np.ndarray, np.ndarray]) -> None:
    driver, target = faces
    plain = LandmarkFilter(OneEuro())
    expected = np.stack([plain(frame, time=number / FPS) for number, frame in enumerate(driver)])
    np.testing.assert_array_equal(followed(Follower(None, OneEuro()), driver), expected)
    similar = make_retargeter(Target("similarity", target), driver)
    plain.reset()
    expected = np.stack([plain(similar(frame[None])[0], time=n / FPS) for n, frame in enumerate(driver)])
    np.testing.assert_array_equal(followed(Follower(similar, OneEuro()), driver), expected)
    np.testing.assert_array_equal(followed(Follower(None, None), driver), driver)

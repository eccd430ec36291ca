"""Retargeting on faces that were made: the driver's motion, the target's shape, and what must close closes."""

import numpy as np
import pytest

from th_jax.landmarks.retarget import face_shape, retarget

MOUTH, NOSE, JAW = slice(48, 60), slice(27, 36), slice(0, 17)


def neutral(*, wide: float = 1.0, eyes: float = 0.02, lips: float = 0.02) -> np.ndarray:
    """A face of 70 points in [0, 1] with a chosen width, opening of the eyes and of the mouth."""
    face = np.zeros((70, 2))
    turn = np.linspace(np.pi, 0, 17)
    face[:17] = np.stack([0.5 + 0.25 * wide * np.cos(turn), 0.5 + 0.3 * np.sin(turn)], -1)
    for start, x in ((17, 0.38), (22, 0.62)):
        face[start : start + 5] = np.stack([x + wide * np.linspace(-0.06, 0.06, 5), np.full(5, 0.38)], -1)
    face[27:31] = np.stack([np.full(4, 0.5), np.linspace(0.42, 0.54, 4)], -1)
    face[31:36] = np.stack([np.linspace(0.46, 0.54, 5), np.full(5, 0.57)], -1)
    for start, x in ((36, 0.39), (42, 0.61)):
        across = np.array([-0.04, -0.015, 0.015, 0.04, 0.015, -0.015])
        face[start : start + 6] = np.stack([x + across, 0.44 + eyes / 2 * np.array([0, -1, -1, 0, 1, 1])], -1)
        face[68 + (start > 36)] = (x + 0.01, 0.44)
    turn = np.linspace(np.pi, -np.pi, 13)[:12]
    face[48:60] = np.stack([0.5 + 0.09 * wide * np.cos(turn), 0.68 - (0.03 + lips / 2) * np.sin(turn)], -1)
    turn = np.linspace(np.pi, -np.pi, 9)[:8]
    face[60:68] = np.stack([0.5 + 0.07 * wide * np.cos(turn), 0.68 - lips / 2 * np.sin(turn)], -1)
    return face


def posed(
    face: np.ndarray, *, turn: float = 0.0, scale: float = 1.0, shift: tuple[float, float] = (0.0, 0.0)
) -> np.ndarray:
    around = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    return (face - 0.5) @ around * scale + 0.5 + np.array(shift)


def clip(**shape: float) -> np.ndarray:
    """Nine frames: the head sways and its size changes, evenly about the mean."""
    places = np.linspace(-1, 1, 9)
    return np.stack(
        [posed(neutral(**shape), turn=0.2 * p, scale=1 + 0.1 * p, shift=(0.05 * p, 0.03 * p)) for p in places]
    )


def gap(face: np.ndarray, high: int, low: int) -> float:
    return float(np.linalg.norm(face[..., high, :] - face[..., low, :]))


def test_a_face_on_itself_stays_as_it_is() -> None:
    driver = clip()
    driver[3, MOUTH] += (0.01, 0.02)
    shape = face_shape(driver)
    np.testing.assert_allclose(retarget(driver, driver=shape, target=shape), driver, atol=1e-9)


def test_points_that_make_no_face_have_no_shape() -> None:
    driver = clip()
    spot = np.full_like(driver[:1], 0.3)
    np.testing.assert_array_equal(
        face_shape(np.concatenate([driver, spot])).points, face_shape(driver).points, err_msg="the spot counts"
    )
    with pytest.raises(ValueError, match="at least one frame whose 68 landmarks are not all at one place"):
        face_shape(spot)
    strangers = np.zeros((2, 68, 2))  # no turn brings one nearer to the other
    strangers[0, :2, 0] = strangers[1, 2:4, 0] = (1, -1)
    with pytest.raises(ValueError, match="have no mean shape: they are not of one face"):
        face_shape(strangers)


def test_a_shape_is_the_same_in_every_pose() -> None:
    one, other = face_shape(clip()), face_shape(np.stack([posed(neutral(), turn=0.7, scale=0.5, shift=(0.2, 0.1))]))
    np.testing.assert_allclose(one.points, other.points, atol=1e-6)
    assert other.size == pytest.approx(0.5 * one.size, rel=1e-3)


def test_the_shape_is_the_targets_and_the_pose_the_drivers() -> None:
    """A wide face drives a narrow one: what comes is the narrow face in the poses of the wide one."""
    wide, narrow = clip(wide=1.3), clip(wide=0.9)
    came = retarget(wide, driver=face_shape(wide), target=face_shape(narrow))
    for frame, want in zip(came, narrow, strict=True):
        size = np.linalg.norm(want - want.mean(0), axis=-1).mean()
        assert np.linalg.norm(frame - want, axis=-1).max() < 0.06 * size
    before = np.linalg.norm(wide - narrow, axis=-1)
    assert before.max() > 0.05  # there was something to do


def test_the_same_face_smaller_and_elsewhere_moves_as_much_less() -> None:
    driver = clip()
    smaller = 0.5 * driver + 0.2
    came = retarget(driver, driver=face_shape(driver), target=face_shape(smaller))
    np.testing.assert_allclose(came, smaller, atol=1e-6)


def test_an_expression_moves_over_in_full() -> None:
    driver, target = clip(wide=1.3), clip(wide=0.9)
    shapes = {"driver": face_shape(driver), "target": face_shape(target)}
    smiling = driver.copy()
    smiling[4, [48, 54], 1] -= 0.03  # the corners of the mouth go up
    change = retarget(smiling, **shapes)[4] - retarget(driver, **shapes)[4]
    growth = shapes["target"].size / shapes["driver"].size
    np.testing.assert_allclose(change[[48, 54], 1], -0.03 * growth, atol=0.004)
    assert np.abs(change[NOSE]).max() < 0.004
    assert np.abs(change[JAW]).max() < 0.004


@pytest.mark.parametrize(("driver_eyes", "target_eyes"), [(0.02, 0.035), (0.035, 0.02)])
def test_shut_eyes_shut_and_open_eyes_open_as_the_targets(driver_eyes: float, target_eyes: float) -> None:
    driver, target = clip(eyes=driver_eyes), clip(eyes=target_eyes)
    shapes = {"driver": face_shape(driver), "target": face_shape(target)}
    frames = np.stack([neutral(eyes=driver_eyes), neutral(eyes=0.0)])
    opened, shut = retarget(frames, **shapes)
    for high, low in ((37, 41), (38, 40), (43, 47), (44, 46)):
        assert gap(opened, high, low) == pytest.approx(target_eyes, rel=0.05)
        assert gap(shut, high, low) < 1e-3


def test_each_eye_opens_as_the_targets_own() -> None:
    driver, target = clip(eyes=0.02), clip(eyes=0.02)
    target[:, 42:48] = clip(eyes=0.04)[:, 42:48]
    came = retarget(neutral(eyes=0.02)[None], driver=face_shape(driver), target=face_shape(target))[0]
    for high, low, opening in ((37, 41, 0.02), (38, 40, 0.02), (43, 47, 0.04), (44, 46, 0.04)):
        assert gap(came, high, low) == pytest.approx(opening, rel=0.05)


@pytest.mark.parametrize(("driver_lips", "target_lips"), [(0.01, 0.05), (0.05, 0.0)])
def test_a_closed_mouth_closes_whatever_the_means_are(driver_lips: float, target_lips: float) -> None:
    driver, target = clip(lips=driver_lips), clip(lips=target_lips)
    shapes = {"driver": face_shape(driver), "target": face_shape(target)}
    closed, opened = retarget(np.stack([neutral(lips=0.0), neutral(lips=0.06)]), **shapes)
    assert gap(closed, 62, 66) < 1e-3
    assert gap(opened, 62, 66) == pytest.approx(0.06, rel=0.1)
    assert (closed[[61, 62, 63], 1] <= closed[[67, 66, 65], 1] + 1e-3).all()


def test_pupils_keep_their_place_in_the_eye() -> None:
    driver, target = clip(wide=1.3), clip(wide=0.9)
    shapes = {"driver": face_shape(driver), "target": face_shape(target)}
    driver[:, 68:] += (0.02, 0.0)
    came = retarget(driver, **shapes)
    for pupil, (left, right) in ((68, (36, 39)), (69, (42, 45))):
        shares = [
            np.linalg.norm(f[:, pupil] - f[:, left], axis=-1) / np.linalg.norm(f[:, right] - f[:, left], axis=-1)
            for f in (driver, came)
        ]
        np.testing.assert_allclose(shares[1], shares[0], rtol=1e-6)


def test_unknown_points() -> None:
    driver = clip().astype(np.float32)
    driver[2, 30] = np.nan
    driver[5, 68:] = np.nan
    shape = face_shape(driver)
    came = retarget(driver, driver=shape, target=face_shape(clip(wide=0.9)))
    assert came.dtype == np.float32
    assert np.isnan(came[2]).all()
    assert np.isfinite(came[5, :68]).all()
    assert np.isnan(came[5, 68:]).all()
    assert np.isfinite(came[[0, 1, 3, 4, 6, 7, 8]]).all()
    with pytest.raises(ValueError, match="at least one frame in which all 68 landmarks are known"):
        face_shape(driver[2:3])
    with pytest.raises(ValueError, match="landmarks must be 68 iBUG points, or 70"):
        face_shape(np.zeros((2, 5, 2)))

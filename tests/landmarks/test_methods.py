"""All methods of retargeting: a face on itself, what closes, gains, baselines in closed form, and errors."""

import numpy as np
import pytest

from data_prep.heads.identity import draw_identity
from data_prep.heads.motion import choose_spread, head_state, talk
from data_prep.heads.person import prepare
from data_prep.heads.render import pose, true_landmarks
from th_jax.landmarks.methods import METHODS, Method, Target, make_retargeter
from th_jax.landmarks.model3d import fit_frames, load_model
from th_jax.landmarks.scheme import mirror_landmarks
from th_jax.landmarks.transfer import Gains, fit_face, parse_gains, transfer

ADA, BEN = 100_001, 100_007


def points_of(seed: int, states: list) -> np.ndarray:
    person = prepare(draw_identity(seed))
    return np.stack([true_landmarks(person, pose(person, state))[:, :2] for state in states]).astype(np.float32)


@pytest.fixture(scope="module")
def faces() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ada's 24 frames, Ben's eight shots, and Ben with the motion of Ada."""
    motion = talk(ADA, seconds=12.0, fps=2.0)
    states = [motion.state(moment) for moment in range(24)]
    other = talk(BEN, seconds=20.0, fps=30.0)
    shots = points_of(BEN, [other.state(int(moment)) for moment in choose_spread(other, count=8)])
    return points_of(ADA, states), shots, points_of(BEN, states)


@pytest.mark.parametrize("method", METHODS)
def test_a_face_on_itself_stays_as_it_is(method: Method, faces: tuple[np.ndarray, ...]) -> None:
    driver = faces[0]
    for points in (driver, driver[:, :68]):
        same = make_retargeter(Target(method, points), points)(points)
        assert same.dtype == points.dtype
        np.testing.assert_allclose(same, points, atol=1e-6)


def test_the_model_is_far_nearer_to_the_truth_than_the_others(faces: tuple[np.ndarray, ...]) -> None:
    driver, shots, truth = faces
    errors = {}
    for method in METHODS:
        came = make_retargeter(Target(method, shots), driver)(driver)
        errors[method] = np.linalg.norm(came[:, :68] - truth[:, :68], axis=-1).mean()
    assert errors["model"] < 0.5 * min(error for method, error in errors.items() if method != "model")


@pytest.mark.parametrize("method", [method for method in METHODS if method != "none"])
def test_frames_without_a_face_stay_unknown(method: Method, faces: tuple[np.ndarray, ...]) -> None:
    driver, shots, _ = faces
    lost = driver.copy()
    lost[3], lost[5, 40], lost[7, 68] = np.nan, np.nan, np.nan
    came = make_retargeter(Target(method, shots), lost)(lost)
    assert np.isnan(came[3]).all()
    assert np.isnan(came[5, 40]).all()
    assert np.isnan(came[7, 68]).all()
    assert np.isfinite(came[7, :68]).all()


def gaps(points: np.ndarray, pairs: tuple[tuple[int, int], ...]) -> np.ndarray:
    return np.stack([np.linalg.norm(points[..., a, :] - points[..., b, :], axis=-1) for a, b in pairs], -1)


@pytest.mark.parametrize("method", METHODS)
def test_the_driver_s_pupils_are_known_whatever_those_of_the_shots(
    method: Method, faces: tuple[np.ndarray, ...]
) -> None:
    """Detectors find no pupil in many an eye: in some shots, or in all of them."""
    driver, shots, _ = faces
    wanted = make_retargeter(Target(method, shots), driver)(driver)
    for missing in (np.s_[::2, 68], np.s_[:, 68:]):
        seen = shots.copy()
        seen[missing] = np.nan
        came = make_retargeter(Target(method, seen), driver)(driver)
        assert np.isfinite(came).all()
        np.testing.assert_allclose(came, wanted, atol=0.005)


def test_lids_and_lips_close_exactly_when_the_drivers_do(faces: tuple[np.ndarray, ...]) -> None:
    driver, shots, _ = faces
    lids, lips = ((37, 41), (38, 40), (43, 47), (44, 46)), ((61, 67), (62, 66), (63, 65))
    shut = driver[:4].copy()
    for high, low in lids + lips:
        shut[:, [high, low]] = shut[:, [high, low]].mean(1, keepdims=True)
    adapt = make_retargeter(Target("model", shots), driver)
    assert gaps(adapt(shut), lids + lips).max() < 1e-6
    assert gaps(adapt(driver[:4]), lids).max() > 0.01


def test_shut_lids_overlap_as_the_targets_own(faces: tuple[np.ndarray, ...]) -> None:
    """The outlines of the renderer's shut lids overlap, by how much depends on the person; the truth is rendered."""
    lids = ((37, 41), (38, 40), (43, 47), (44, 46))
    shut = [head_state(expression={"eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0}, yaw=yaw) for yaw in (-0.3, 0.0, 0.3)]
    motion = talk(ADA, seconds=12.0, fps=2.0)
    clip = points_of(ADA, [motion.state(moment) for moment in range(24)])
    driver = points_of(ADA, shut)
    for seed in (BEN, BEN + 1, BEN + 2):
        other = talk(seed, seconds=20.0, fps=30.0)
        shots = points_of(seed, [other.state(int(moment)) for moment in choose_spread(other, count=8)])
        truth = points_of(seed, shut)
        came = make_retargeter(Target("model", shots), clip)(driver)
        width = gaps(truth, ((36, 39), (42, 45))).mean(-1)
        error = np.abs(gaps(came, lids).mean(-1) - gaps(truth, lids).mean(-1)) / width
        assert error.mean() < 0.03


def test_half_shut_lids_are_not_the_neutral_face() -> None:
    """They may cost less energy than a wide smile; each blink would shut the lids beyond their place."""
    lively = {"jawOpen": 0.8, "mouthSmileLeft": 1.0, "mouthSmileRight": 1.0, "browInnerUp": 0.8}
    states = [head_state(expression=lively, yaw=yaw) for yaw in (-0.3, -0.1, 0.1, 0.2, 0.3)]
    states.append(head_state(expression={"eyeBlinkLeft": 0.4, "eyeBlinkRight": 0.4}))
    shots = points_of(BEN, states)
    person = fit_face(shots)
    frames = np.asarray(fit_frames(shots, person.person).expression)
    assert (frames**2).sum(-1).argmin() == 5, "the calmest"
    upper, lower = (37, 38, 43, 44), (41, 40, 47, 46)
    expression = np.asarray(load_model().expression)[:, :, 1]  # upward
    opening = (expression[:, upper] - expression[:, lower]).mean(-1)
    assert np.asarray(person.neutral.expression) @ opening > (frames @ opening)[:5].min() > (frames @ opening)[5] + 0.01


def test_lids_that_close_never_open_the_targets(faces: tuple[np.ndarray, ...]) -> None:
    driver, shots, _ = faces
    lids = ((37, 41), (38, 40), (43, 47), (44, 46))
    frames = np.repeat(driver[:1], 21, 0)
    for share, frame in zip(np.linspace(1, 0, 21), frames, strict=True):
        for high, low in lids:
            middle = frame[[high, low]].mean(0)
            frame[[high, low]] = middle + share * (frame[[high, low]] - middle)
    came = gaps(make_retargeter(Target("model", shots), driver)(frames), lids)
    assert (np.diff(came, axis=0) < 1e-4).all()
    assert came[-1].max() < 1e-6


def test_pupils_stay_between_the_lids(faces: tuple[np.ndarray, ...]) -> None:
    driver, shots, _ = faces
    came = make_retargeter(Target("model", shots), driver)(driver)
    for pupil, (left, right), lids in ((68, (36, 39), (37, 41)), (69, (42, 45), (43, 47))):
        for points in (driver, came):
            inside = (points[:, pupil, 0] > points[:, left, 0]) & (points[:, pupil, 0] < points[:, right, 0])
            assert inside.all()
        open_eyes = gaps(driver, (lids,))[:, 0] > 0.012
        upper, lower = came[open_eyes, lids[0], 1], came[open_eyes, lids[1], 1]
        height = came[open_eyes, pupil, 1]
        assert (height > upper - 0.004).all()
        assert (height < lower + 0.004).all()


def test_gains_scale_what_they_name(faces: tuple[np.ndarray, ...]) -> None:
    driver, shots, _ = faces
    own, other = fit_face(driver), fit_face(shots)
    frames = fit_frames(driver, own.person)
    plain = transfer(driver, frames, driver=own, target=other)
    still = transfer(driver, frames, driver=own, target=other, gains=Gains(pose=0))
    angles = np.asarray(fit_frames(still, other.person).angles)
    assert np.degrees(np.ptp(np.asarray(frames.angles)[:, 0])) > 20
    assert np.degrees(np.ptp(angles[:, 0])) < 3
    closed = transfer(driver, frames, driver=own, target=other, gains=Gains(pose=0, mouth=0))
    lips = gaps(closed, ((62, 66),))[:, 0]
    assert np.ptp(lips) < 0.25 * np.ptp(gaps(still, ((62, 66),))[:, 0])
    more = transfer(driver, frames, driver=own, target=other, gains=Gains(brows=2))
    changed = np.linalg.norm(more - plain, axis=-1).max(0)
    assert changed[17:27].max() > 1e-3
    assert np.delete(changed, range(17, 27)).max() < 1e-6


def test_lids_and_gaze_are_independent(faces: tuple[np.ndarray, ...]) -> None:
    driver, shots, _ = faces
    own, other = fit_face(driver), fit_face(shots)
    frames = fit_frames(driver, own.person)
    plain = transfer(driver, frames, driver=own, target=other)
    fixed = transfer(driver, frames, driver=own, target=other, gains=Gains(gaze=0))
    np.testing.assert_allclose(fixed[:, :68], plain[:, :68], atol=1e-6)
    assert np.abs(fixed[:, 68:] - plain[:, 68:]).max() > 5e-3


def test_baselines_in_closed_form(faces: tuple[np.ndarray, ...]) -> None:
    """A smaller copy elsewhere is matched exactly by all methods that know scale and place."""
    driver = faces[0].astype(np.float64)
    copy = 0.7 * driver + 0.12
    for method in ("similarity", "relative", "parts", "shape"):
        came = make_retargeter(Target(method, copy), driver)(driver)
        np.testing.assert_allclose(came, copy, atol=1e-9, err_msg=method)
    came = make_retargeter(Target("model", copy), driver)(driver)
    np.testing.assert_allclose(came, copy, atol=2e-3)


def test_wider_eyes_are_the_parts_own(faces: tuple[np.ndarray, ...]) -> None:
    driver = faces[0].astype(np.float64)
    still = driver[:1].copy()
    left = [*range(36, 42), 68]
    still[:, left] = still[:, left[:6]].mean(1, keepdims=True) + 1.3 * (
        still[:, left] - still[:, left[:6]].mean(1, keepdims=True)
    )
    came = make_retargeter(Target("parts", still), driver[:1])(driver)
    middle = driver[:, left[:6]].mean(1, keepdims=True)
    np.testing.assert_allclose(
        came[:, left] - came[:, left[:6]].mean(1, keepdims=True), 1.3 * (driver[:, left] - middle), atol=1e-9
    )
    rest = [*range(36), *range(42, 68)]
    np.testing.assert_allclose(came[0, rest], driver[0, rest], atol=1e-3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nose=1", "REGION=FACTOR with pose, brows, eyes, gaze, mouth, but 'nose=1'"),
        ("mouth", "but 'mouth' was given"),
        ("mouth=wide", "mouth is 'wide'"),
        ("mouth=2.5", "from 0 to 2, but mouth is 2.5"),
        ("mouth=nan", "from 0 to 2, but mouth is nan"),
        ("mouth=1,mouth=0", "mouth is given twice"),
    ],
)
def test_gains_are_parsed_strictly(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_gains(text)
    assert parse_gains("mouth=1.2, pose=0") == Gains(mouth=1.2, pose=0)


def test_what_cannot_be_retargeted_is_an_error(faces: tuple[np.ndarray, ...]) -> None:
    driver, shots, _ = faces
    with pytest.raises(
        ValueError, match="must be one of none, similarity, relative, parts, shape, model, but is 'best'"
    ):
        make_retargeter(Target("best", shots), driver)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match='gains need the retargeting "model", but it is "shape"'):
        make_retargeter(Target("shape", shots, Gains(mouth=0.5)), driver)
    lost = np.full_like(shots, np.nan)
    for method in ("similarity", "relative", "parts", "model"):
        with pytest.raises(ValueError, match="one frame of the target in which all 68"):
            make_retargeter(Target(method, lost), driver)
        with pytest.raises(ValueError, match="one frame of the driver in which all 68"):
            make_retargeter(Target(method, shots), lost)


def model_moved(driver: np.ndarray, shots: np.ndarray, clip: np.ndarray) -> np.ndarray:
    return make_retargeter(Target("model", shots), clip)(driver)


def test_a_shifted_scaled_and_turned_driver_moves_the_target_alike(faces: tuple[np.ndarray, ...]) -> None:
    """The driver's usual place and size do not matter, and a turn of their image turns the target's by as much."""
    driver, shots, _ = faces
    plain = model_moved(driver, shots, driver)
    moved = 0.6 * driver + np.array([0.3, 0.1], np.float32)
    np.testing.assert_allclose(model_moved(moved, shots, moved), plain, atol=3e-3)
    turn = 0.2
    around = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]], np.float32)
    turned = (driver - 0.5) @ around + 0.5
    came = model_moved(turned, shots, turned)

    def shape(points: np.ndarray) -> np.ndarray:
        return points[:, :68] - points[:, :68].mean(1, keepdims=True)

    np.testing.assert_allclose(shape(came), shape(plain) @ around, atol=4e-3)


def test_mirrored_faces_move_mirrored(faces: tuple[np.ndarray, ...]) -> None:
    driver, shots, _ = faces
    plain = model_moved(driver, shots, driver)
    flipped = model_moved(mirror_landmarks(driver), mirror_landmarks(shots), mirror_landmarks(driver))
    np.testing.assert_allclose(mirror_landmarks(flipped), plain, atol=3e-3)


def test_one_frame_drives_and_one_shot_is_driven(faces: tuple[np.ndarray, ...]) -> None:
    driver, shots, truth = faces
    for clip, known in ((driver[:1], shots), (driver, shots[:1]), (driver[:1], shots[:1])):
        came = model_moved(driver[:1], known, clip)
        unit = np.linalg.norm(truth[0, 36] - truth[0, 45])
        assert np.isfinite(came).all()
        assert np.linalg.norm(came[0, :68] - truth[0, :68], axis=-1).mean() < 0.25 * unit


@pytest.mark.parametrize("yaw", [-60.0, 60.0])
def test_a_profile_is_that_of_the_target(yaw: float, faces: tuple[np.ndarray, ...]) -> None:
    driver, shots, _ = faces
    state = head_state(yaw=float(np.radians(yaw)))
    side, truth = points_of(ADA, [state]), points_of(BEN, [state])

    def error(points: np.ndarray) -> float:
        shape = [one[:, :68] - one[:, :68].mean(1, keepdims=True) for one in (points, truth)]
        return float(np.linalg.norm(shape[0] - shape[1], axis=-1).mean())

    ours = error(model_moved(side, shots, driver))
    for method in ("none", "similarity", "relative", "parts", "shape"):
        assert ours < 0.8 * error(make_retargeter(Target(method, shots), driver)(side)), method

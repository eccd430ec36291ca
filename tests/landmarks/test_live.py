"""Live retargeting: frame by frame as the whole clip, and a neutral expression that is found even after a smile."""

import numpy as np
import pytest

from data_prep.heads.identity import draw_identity
from data_prep.heads.motion import HeadState, head_state, talk
from data_prep.heads.person import prepare
from data_prep.heads.render import pose, true_landmarks
from th_jax.landmarks.live import LiveRetargeter
from th_jax.landmarks.methods import Target, make_retargeter
from th_jax.landmarks.transfer import fit_face

ADA, BEN = 100_001, 100_007
SMILE = {"mouthSmileLeft": 0.9, "mouthSmileRight": 0.9, "jawOpen": 0.3, "browInnerUp": 0.8}


def points_of(seed: int, states: list[HeadState]) -> np.ndarray:
    person = prepare(draw_identity(seed))
    return np.stack([true_landmarks(person, pose(person, state))[:, :2] for state in states]).astype(np.float32)


@pytest.fixture(scope="module")
def clip() -> tuple[np.ndarray, np.ndarray]:
    """Sixty frames of Ada, and eight of Ben at rest."""
    motion = talk(ADA, seconds=6.0, fps=10.0)
    rest = [head_state(yaw=yaw) for yaw in np.linspace(-0.3, 0.3, 8)]
    return points_of(ADA, [motion.state(moment) for moment in range(60)]), points_of(BEN, rest)


def test_live_frames_are_those_of_the_clip(clip: tuple[np.ndarray, np.ndarray]) -> None:
    driver, target = clip
    whole = make_retargeter(Target("model", target), driver)(driver)
    live = LiveRetargeter(target, driver)
    came = np.stack([live(driver[number : number + 1])[0] for number in range(60)])
    unit = np.linalg.norm(target[:, 36] - target[:, 45], axis=-1).mean()
    assert np.linalg.norm(came - whole, axis=-1).mean() < 0.03 * unit


def test_a_smile_at_the_start_is_not_taken_for_neutral(clip: tuple[np.ndarray, np.ndarray]) -> None:
    _, target = clip
    smiling = [head_state(expression=SMILE, yaw=yaw) for yaw in np.linspace(-0.2, 0.2, 10)]
    calm = [head_state(yaw=yaw) for yaw in np.linspace(-0.2, 0.2, 40)]
    driver = points_of(ADA, smiling + calm)
    fixed = make_retargeter(Target("model", target), driver[:10])(driver[-8:])
    live = LiveRetargeter(target, driver[:10])
    came = live(driver)[-8:]
    truth = points_of(BEN, calm[-8:])
    mouth = slice(48, 68)

    def error(points: np.ndarray) -> float:
        shape = points[:, mouth] - points[:, 27:31].mean(1, keepdims=True)
        wanted = truth[:, mouth] - truth[:, 27:31].mean(1, keepdims=True)
        return float(np.linalg.norm(shape - wanted, axis=-1).mean())

    assert error(came) < 0.5 * error(fixed)


def test_lost_frames_stay_unknown_and_change_nothing(clip: tuple[np.ndarray, np.ndarray]) -> None:
    driver, target = clip
    lost = np.full_like(driver[:1], np.nan)
    live = LiveRetargeter(target, driver[:10])
    before = live.state
    assert np.isnan(live(lost)).all()
    assert live.state is before
    assert np.isfinite(live(driver[10:11, :68])).all()


def test_a_face_that_was_never_seen_is_an_error(clip: tuple[np.ndarray, np.ndarray]) -> None:
    with pytest.raises(ValueError, match="at least one frame has half"):
        LiveRetargeter(clip[1], np.full_like(clip[0], np.nan))
    assert fit_face(clip[1]).person.identity.shape == (30,)

"""Controls of stills: what they move, and errors for what they cannot."""

import numpy as np
import pytest

from data_prep.heads.identity import draw_identity
from data_prep.heads.motion import head_state
from data_prep.heads.person import prepare
from data_prep.heads.render import pose, true_landmarks
from th_jax.driving.edit import CONTROLS, parse_edit
from th_jax.driving.motion import motion_landmarks
from th_jax.landmarks.transfer import Face, fit_face


@pytest.fixture(scope="module")
def ada() -> Face:
    person = prepare(draw_identity(100_001))
    states = [head_state(yaw=yaw) for yaw in np.linspace(-0.3, 0.3, 8)]
    return fit_face(np.stack([true_landmarks(person, pose(person, state))[:, :2] for state in states]))


def edited(face: Face, text: str) -> np.ndarray:
    return motion_landmarks(parse_edit(text), face)[0]


def test_there_are_about_twenty_controls_and_each_moves_something(ada: Face) -> None:
    assert len(CONTROLS) >= 20
    rest = edited(ada, "yaw=0")
    for name in CONTROLS:
        value = 20 if name in ("yaw", "pitch", "roll") else 10 if name.startswith("look") else 0.8
        assert np.abs(edited(ada, f"{name}={value}") - rest).max() > 2e-3, name


def test_controls_move_what_they_name(ada: Face) -> None:
    rest = edited(ada, "yaw=0")
    smile = edited(ada, "smile=0.6")
    assert (smile[[48, 54], 1] < rest[[48, 54], 1]).all()
    assert np.linalg.norm(smile[[48, 54]][1] - smile[[48, 54]][0]) > np.linalg.norm(rest[54] - rest[48])
    right = edited(ada, "yaw=25")
    assert right[30, 0] - right[[36, 45], 0].mean() > rest[30, 0] - rest[[36, 45], 0].mean() + 0.02
    looking = edited(ada, "look-right=20")
    assert (looking[68:, 0] > rest[68:, 0] + 5e-3).all()
    wink = edited(ada, "wink=1")
    gap = [np.linalg.norm(points[44] - points[46]) for points in (rest, wink)]
    assert gap[1] < 0.75 * gap[0]
    np.testing.assert_allclose(wink[37:42], rest[37:42], atol=1e-3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "NAME=VALUE with smile"),
        ("smile", "but 'smile' was given"),
        ("grin=1", "but 'grin=1' was given"),
        ("smile=1.2", "smile must be from 0 to 1, but is 1.2"),
        ("smile=-1", "smile must be from 0 to 1"),
        ("smile=nan", "smile must be from 0 to 1, but is nan"),
        ("yaw=61", "yaw must be from -60 to 60"),
        ("look-up=30", "look-up must be from -16.6 to 16.6"),
        ("smile=big", "smile must be a number, but is 'big'"),
        ("smile=0.1,smile=0.2", "gives smile twice"),
    ],
)
def test_edits_are_parsed_strictly(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_edit(text)

"""Motion files: what is written is read, coefficients of known expressions are found, and invalid files are errors."""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from data_prep.heads.identity import draw_identity
from data_prep.heads.motion import HeadState, talk
from data_prep.heads.person import prepare
from data_prep.heads.render import pose, true_landmarks
from th_jax.driving.motion import (
    Motion,
    motion_driving,
    motion_landmarks,
    motion_of,
    read_motion,
    write_motion,
)
from th_jax.landmarks.arkit import NAMES, gaze_of, look_coefficients
from th_jax.landmarks.transfer import fit_face

ADA = 100_001


@pytest.fixture(scope="module")
def clip() -> tuple[np.ndarray, list[HeadState]]:
    motion = talk(ADA, seconds=12.0, fps=2.0)
    states = [motion.state(moment) for moment in range(24)]
    person = prepare(draw_identity(ADA))
    return np.stack([true_landmarks(person, pose(person, state))[:, :2] for state in states]), states


def small(*, lost: bool = False) -> Motion:
    rng = np.random.default_rng(0)
    motion = Motion(np.arange(3) / 25, rng.uniform(0.5, 1.5, (3, 6)), rng.uniform(0, 1, (3, 52)))
    if lost:
        motion.pose[1], motion.coefficients[1] = np.nan, np.nan
    return motion


@pytest.mark.parametrize("name", ["a.csv", "a.json"])
def test_what_is_written_is_read(name: str, tmp_path: Path) -> None:
    for lost in (False, True):
        motion = small(lost=lost)
        write_motion(tmp_path / name, motion)
        for found, wanted in zip(read_motion(tmp_path / name), motion, strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["a.csv", "a.json"])
def test_of_frames_of_one_moment_one_is_written(name: str, tmp_path: Path) -> None:
    motion = small()
    times = motion.times.copy()
    times[2] = times[1] + 1e-5
    write_motion(tmp_path / name, motion._replace(times=times))
    np.testing.assert_allclose(read_motion(tmp_path / name).times, np.delete(times, 2), atol=1e-4)


def test_the_names_are_the_renderers() -> None:
    from data_prep.heads.mesh import load_mesh

    assert load_mesh().unit_names == NAMES


def test_gaze_is_eight_coefficients_and_back() -> None:
    gaze = np.random.default_rng(1).uniform(-0.25, 0.25, (20, 2)).astype(np.float32)
    np.testing.assert_allclose(gaze_of(look_coefficients(jnp.asarray(gaze))), gaze, atol=1e-6)


def test_coefficients_of_a_rendered_head_are_found(clip: tuple[np.ndarray, list[HeadState]]) -> None:
    points, states = clip
    found = motion_of(points, np.arange(24) / 2)
    wanted = np.stack([state.units for state in states])
    follows = np.array([not name.startswith("eyeLook") for name in NAMES])
    assert np.abs(found.coefficients - wanted)[:, follows].mean() < 0.05
    for name in ("jawOpen", "eyeBlinkLeft"):
        pair = found.coefficients[:, NAMES.index(name)], wanted[:, NAMES.index(name)]
        assert np.corrcoef(*pair)[0, 1] > 0.9, name
    assert np.abs(found.pose[:, 0] - np.degrees([state.yaw for state in states])).mean() < 1.5


def test_a_motion_moves_its_own_face_back_to_where_it_was(clip: tuple[np.ndarray, list[HeadState]]) -> None:
    points, _ = clip
    face = fit_face(points)
    lost = points.copy()
    lost[4] = np.nan
    motion = motion_of(lost, np.arange(24) / 2, face=face)
    back = motion_landmarks(motion, face)
    assert np.isnan(back[4]).all()
    rest = np.arange(24) != 4
    unit = np.linalg.norm(points[:, 36] - points[:, 45], axis=-1).mean()
    assert np.linalg.norm(back[rest] - points[rest], axis=-1).mean() < 0.025 * unit


def test_a_motion_of_another_tool_drives_with_coefficients_alone(
    clip: tuple[np.ndarray, list[HeadState]], tmp_path: Path
) -> None:
    path = tmp_path / "speech.csv"
    path.write_text("time,jawOpen\n0,0\n0.04,0.5\n0.08,1\n")
    driving = motion_driving(read_motion(path), clip[0][:, :68])
    assert driving.landmarks.shape == (3, 68, 2)
    assert driving.fps == 25
    opening = np.linalg.norm(driving.landmarks[:, 62] - driving.landmarks[:, 66], axis=-1)
    assert opening[0] < opening[1] < opening[2]
    np.testing.assert_allclose(driving.landmarks[2, 27:31], driving.landmarks[0, 27:31], atol=5e-3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("time,jawOpen\n", "there are no frames"),
        ("jawOpen\n1\n", "needs the column time"),
        ("time,yaw\n0,1\n", "at least one of ARKit's 52 names"),
        ("time,jawopen\n0,1\n", "unknown column 'jawopen'"),
        ("time,jawOpen,jawOpen\n0,1,1\n", "'jawOpen' is there twice"),
        ("time,jawOpen\n0,1,1\n", "row 1 has 3 cells"),
        ("time,jawOpen\n0,1.5\n", "row 1: jawOpen must be from 0 to 1, but is 1.5"),
        ("time,jawOpen\n0,nan\n", "jawOpen must be from 0 to 1, but is nan"),
        ("time,jawOpen\n0,wide\n", "row 1: jawOpen must be a number, but is 'wide'"),
        ("time,jawOpen,yaw\n0,1,\n", "row 1: yaw must be a number, but is None"),
        ("time,jawOpen,yaw\n0,1,95\n", "yaw must be from -90 to 90, but is 95"),
        ("time,jawOpen\n0,1\n0,1\n", "row 2: times must be 0 or more and increase"),
        ("time,jawOpen\ninf,1\n", "row 1: time must be finite"),
        ("time,jawOpen\n0,1\n1e9,1\n", r"row 2: times must be at most 28800 s, and .* but 1e\+09 was found"),
        ("time,jawOpen\n0,1\n1e-310,1\n", r"row 2: .* and 5e-05 s or more after the one before, but 1e-310 was found"),
        ('time,jawOpen\n0,"1\n', "is not a readable motion file"),
    ],
)
def test_invalid_csv_is_an_error(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_motion(tmp_path / "a.csv")


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("[]", 'must be {"frames"'),
        ("null", 'must be {"frames"'),
        ("{", "a.json is not valid JSON: Expecting property name"),
        ('{"frames": [1]}', "frame 1 must be an object"),
        ('{"frames": [{"time": 0, "jawOpen": 0}, {"time": 1}]}', "frame 2 must be an object with the same names"),
        ('{"frames": [{"time": 0, "jawOpen": NaN}]}', "a.json is not valid JSON: NaN is not"),
        ('{"frames": [{"time": 0, "time": 1, "jawOpen": 0}]}', "'time' occurs twice"),
        ('{"frames": [{"time": 0, "jawOpen": true}]}', "jawOpen must be a number, but is True"),
        ('{"frames": [{"time": 0, "jawOpen": 1' + "0" * 400 + "}]}", "jawOpen must be a number"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_invalid_json_is_an_error(document: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(document)
    with pytest.raises(ValueError, match=message):
        read_motion(tmp_path / "a.json")


def test_other_files_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no motion file"):
        read_motion(tmp_path / "no.csv")
    with pytest.raises(ValueError, match=r"ends in \.csv or \.json"):
        write_motion(tmp_path / "a.txt", small())
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="is not a readable motion file"):
        read_motion(tmp_path / "a.csv")
    (tmp_path / "b.json").write_text(json.dumps({"frames": [{"time": 0, "jawOpen": None}]}))
    with pytest.raises(ValueError, match="at least one frame with a face"):
        motion_driving(read_motion(tmp_path / "b.json"), np.zeros((1, 68, 2)))

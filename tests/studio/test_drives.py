"""Drives: settings equal the command line that is shown for them; bundled drivers; uploads that are no drivers; edits."""

import shlex
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from th_jax.avatars.file import LoadedAvatar
from th_jax.cli import animate as command
from th_jax.driving.animate import Animation
from th_jax.driving.driver import read_landmarks
from th_jax.driving.edit import CONTROLS, control_range, parse_edit
from th_jax.driving.motion import POSE, read_motion
from th_jax.driving.placement import OutOfRange
from th_jax.landmarks.arkit import NAMES
from th_jax.landmarks.transfer import Gains
from th_jax.studio.drives import (
    DRIVERS,
    DriveSettings,
    animate_arguments,
    animate_command,
    edit_command,
    edit_text,
    example_driver,
    keyframe_motion,
    usable_driver,
)

SETTINGS = {
    "defaults": DriveSettings(),
    "all": DriveSettings(
        layout="driver,landmarks,avatar", retargeting="model", gains=Gains(mouth=1.25, pose=0.5), smoothing=3.5,
        seconds=2.123456789, gaze="off", sound=False, suffix=".gif",
    ),
    "a still": DriveSettings(at=1.5, suffix=".png", smoothing=0.0),
}  # fmt: skip


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("driver", ["my speech.mp4", "motion.csv"])
def test_the_command_line_does_what_the_page_does(name: str, driver: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, given = SETTINGS[name], {}

    def animate(loaded: Any, driver: str, out: Path, **arguments: Any) -> Any:
        given.update(arguments, driver=driver, out=out)
        raise ValueError("enough")

    monkeypatch.setattr(command, "animate", animate)
    monkeypatch.setattr(command, "tried_signer", lambda key, certificate: None)
    blank = object.__new__(LoadedAvatar)
    object.__setattr__(blank, "description", {})
    monkeypatch.setattr(command, "load_avatar", lambda path, meta: blank)
    out = Path("results") / f"x{settings.suffix}"
    text = animate_command(Path("a.safetensors"), Path(driver), out, settings, consents=Path("consents"))
    words = shlex.split(text)
    assert words[:2] == ["th-jax", "animate"]
    with pytest.raises(ValueError, match="enough"):
        command.run(command.parser().parse_args(words[2:]))
    expected = animate_arguments(settings, Path(driver)) | {
        "driver": driver, "out": out, "consents": Path("consents"), "unmarked_for_research": False,
    }  # fmt: skip
    assert {name: given[name] for name in expected} == expected


@pytest.mark.parametrize("name", SETTINGS)
def test_saved_settings_are_read_again(name: str) -> None:
    assert DriveSettings.from_json(SETTINGS[name].to_json()) == SETTINGS[name]


@pytest.mark.parametrize(
    "text",
    ["", "[]", "3", '{"layout": "driver"}', '{"gains": {"nose": 1}}', '{"gains": {"pose": 9}}', '{"suffix": ".exe"}',
     '{"other": 1}', '{"seconds": "many"}', '{"retargeting": "magic"}', '{"gaze": 1}', "[" * 100_000],
)  # fmt: skip
def test_other_text_is_no_settings(text: str) -> None:
    with pytest.raises(ValueError, match="these are not settings of a drive"):
        DriveSettings.from_json(text)


def test_the_bundled_motion_moves_pose_mouth_and_lids(tmp_path: Path) -> None:
    name = next(name for name, file in DRIVERS.items() if file.endswith(".csv"))
    path = example_driver(name, tmp_path)
    motion = read_motion(path)
    assert len(motion.times) == 100
    assert np.ptp(motion.pose[:, 0]) > 20
    assert (np.ptp(motion.coefficients, axis=0) > 0.2).sum() >= 5
    written = path.stat().st_mtime_ns
    assert example_driver(name, tmp_path).stat().st_mtime_ns == written, "made once"


def test_an_unknown_bundled_driver_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the bundled drivers are"):
        example_driver("../../etc/passwd", tmp_path)


def test_a_photo_becomes_landmarks_and_other_drivers_are_copied(tmp_path: Path) -> None:
    points = np.random.default_rng(0).uniform(0.2, 0.8, (1, 68, 2)).astype(np.float32)
    photo, film = tmp_path / "in.JPG", tmp_path / "in.mp4"
    photo.write_bytes(b"photo")
    film.write_bytes(b"film")
    made = usable_driver(photo, tmp_path, "a", run=lambda function, path: points)
    with_face = read_landmarks(made, follow="segment")
    np.testing.assert_array_equal(with_face.landmarks, points)
    assert usable_driver(film, tmp_path, "b").read_bytes() == b"film"


def test_what_is_no_driver_is_an_error(tmp_path: Path) -> None:
    def faceless(function: Any, path: str) -> Any:
        raise ValueError(f"no face was found in {path}")

    photo = tmp_path / "in.png"
    photo.write_bytes(b"photo")
    with pytest.raises(ValueError, match=r"^no face was found in this photo$"):
        usable_driver(photo, tmp_path, "a", run=faceless)
    with pytest.raises(ValueError, match=r"'x\.exe' is no driver"):
        usable_driver(tmp_path / "x.exe", tmp_path, "a")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.png"]


def test_sliders_are_the_option_edit() -> None:
    values = dict.fromkeys(CONTROLS, 0.0)
    assert edit_text(values) == "yaw=0"
    for name in CONTROLS:
        for end in control_range(name):
            parse_edit(edit_text(values | {name: end}))
        with pytest.raises(ValueError, match=f"{name} must be from"):
            parse_edit(edit_text(values | {name: control_range(name)[1] * 1.01}))
    text = edit_text(values | {"smile": 0.3, "yaw": -10.0})
    assert text == "smile=0.3,yaw=-10"
    words = shlex.split(edit_command(Path("a b.safetensors"), text, Path("o.png"), consents=Path("c")))
    parsed = command.parser().parse_args(words[2:])
    assert (parsed.edit, parsed.avatar, parsed.out) == (text, Path("a b.safetensors"), Path("o.png"))


def test_a_clip_moves_from_one_position_to_the_next() -> None:
    rest = dict.fromkeys(CONTROLS, 0.0)
    motion = keyframe_motion([rest, rest | {"yaw": 20.0, "smile": 0.5}, rest | {"yaw": -10.0}], seconds=0.4)
    yaw, smile = motion.pose[:, POSE.index("yaw")], motion.coefficients[:, NAMES.index("mouthSmileLeft")]
    np.testing.assert_allclose(motion.times, np.arange(21) / 25)
    np.testing.assert_allclose(yaw[[0, 5, 10, 15, 20]], [0, 10, 20, 5, -10], atol=1e-6)
    np.testing.assert_allclose(smile[[0, 5, 10, 15, 20]], [0, 0.25, 0.5, 0.25, 0], atol=1e-6)
    assert abs(yaw[1] - yaw[0]) < abs(yaw[6] - yaw[5]), "slower at the positions"
    np.testing.assert_array_equal(motion.pose[:, POSE.index("size")], 1)


@pytest.mark.parametrize(
    ("keys", "seconds", "message"),
    [
        ([{}], 1.0, "2 to 50 positions: move the sliders and add each one; there are 1"),
        ([{}] * 51, 1.0, "there are 51"),
        ([{}, {}], 0.0, r"must be 0\.1 to 10 s, got 0"),
        ([{}, {}], float("nan"), "must be"),
        ([{}, {"yaw": 99.0}], 1.0, "yaw must be from -60 to 60"),
    ],
)
def test_other_positions_are_no_clip(keys: list[dict[str, float]], seconds: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        keyframe_motion(keys, seconds=seconds)


def test_a_summary_names_frames_rate_and_sound() -> None:
    from th_jax.driving.same_person import Choice
    from th_jax.studio.drives import summary

    done = Animation(
        Path("o.mp4"), 100, Fraction(25), 2, 1, 0, False, OutOfRange(0, 0, 0, 0), Choice("none")
    )  # fmt: skip
    assert summary(done) == "100 frames at 25 frames/s, without sound; 2 frames without a face repeat the last pose"

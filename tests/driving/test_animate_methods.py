"""The commands with every method of retargeting, with gains, motion files and edits; and `th-jax track`."""

from pathlib import Path

import jax
import numpy as np
import pytest
from commands import animate
from driver_clips import swaying, write_clip

from data_prep.heads.identity import draw_identity
from data_prep.heads.motion import talk
from data_prep.heads.person import prepare
from data_prep.heads.render import pose, true_landmarks
from th_jax.avatars.file import load_avatar, save_avatar
from th_jax.cli.main import main
from th_jax.driving.driver import read_landmarks
from th_jax.driving.motion import motion_of, read_motion, write_motion
from th_jax.driving.poses import driving_poses, target_of
from th_jax.landmarks.methods import METHODS, Method
from th_jax.landmarks.transfer import Gains
from th_jax.media import read_image
from th_jax.models.networks import Networks
from th_jax.provenance import Kind, Provenance, read_sidecar
from th_jax.training.finetune import avatar_from_embedding

NETWORKS = Networks(image_size=16, base_width=4)


def points_of(seed: int, count: int) -> np.ndarray:
    person, motion = prepare(draw_identity(seed)), talk(seed, seconds=count / 2, fps=2.0)
    states = [motion.state(moment) for moment in range(count)]
    return np.stack([true_landmarks(person, pose(person, state))[:, :2] for state in states]).astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An avatar of one person, one without landmarks, and landmarks and motion of another person."""
    folder = tmp_path_factory.mktemp("methods")
    embedding = jax.random.normal(jax.random.key(1), (NETWORKS.plan.embedding,))
    avatar = avatar_from_embedding(NETWORKS, NETWORKS.init(jax.random.key(0)), embedding)
    record = Provenance(kind=Kind.GENERATED, inputs=("a" * 64,))
    shots = points_of(100_007, 4)
    save_avatar(folder / "ben.safetensors", avatar, networks=NETWORKS, provenance=record, landmarks=shots)
    save_avatar(folder / "bare.safetensors", avatar, networks=NETWORKS, provenance=record)
    driver = points_of(100_001, 6)
    np.savez(folder / "ada.npz", landmarks=driver, fps=10)
    write_motion(folder / "ada.csv", motion_of(driver, np.arange(6) / 10))
    return folder


def test_poses_are_those_of_the_method(folder: Path) -> None:
    loaded, driving = load_avatar(folder / "ben.safetensors"), read_landmarks(folder / "ada.npz")
    shown = np.arange(6)
    poses = {
        method: np.stack(list(driving_poses(driving, shown, fps=driving.fps, target=target_of(loaded, method))))
        for method in METHODS
    }
    np.testing.assert_array_equal(poses["none"], driving.landmarks)
    for method in METHODS[1:]:
        assert np.abs(poses[method] - poses["none"]).max() > 5e-3, method
    smiling = driving_poses(driving, shown, fps=driving.fps, target=target_of(loaded, "model"), neutral=0.4)
    assert np.abs(np.stack(list(smiling)) - poses["model"]).max() > 1e-3
    still = target_of(loaded, "model", gains=Gains(pose=0))
    assert (
        np.ptp(np.stack(list(driving_poses(driving, shown, fps=driving.fps, target=still)))[:, 30], axis=0).max() < 0.02
    )


@pytest.mark.parametrize("method", ["relative", "model"])
def test_the_command_takes_every_method(method: Method, folder: Path, tmp_path: Path) -> None:
    options = ["--avatar", str(folder / "ben.safetensors"), "--driver", str(folder / "ada.npz"), "--out"]
    more = ["--gains", "pose=0.5,mouth=1.5"] if method == "model" else []
    assert animate([*options, str(tmp_path / "a.png"), "--retargeting", method, *more]) == 0
    assert read_image(tmp_path / "a.png").shape == (16, 16, 3)


def test_a_motion_file_and_an_edit_drive_the_avatar(folder: Path, tmp_path: Path) -> None:
    avatar = ["--avatar", str(folder / "ben.safetensors")]
    assert animate([*avatar, "--driver", str(folder / "ada.csv"), "--out", str(tmp_path / "a.gif")]) == 0
    for name, edit in (("rest", "yaw=0"), ("turned", "yaw=30,smile=0.8")):
        assert animate([*avatar, "--edit", edit, "--out", str(tmp_path / f"{name}.png")]) == 0
    assert (read_image(tmp_path / "rest.png") != read_image(tmp_path / "turned.png")).any()
    assert read_sidecar(tmp_path / "turned.png")[0].kind == Kind.GENERATED


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (
            ["--driver", "ada.npz", "--retargeting", "shape", "--gains", "mouth=0.5"],
            1,
            'gains need the retargeting "model"',
        ),
        (["--driver", "ada.npz", "--gains", "ears=1"], 1, "REGION=FACTOR"),
        (["--driver", "ada.npz", "--retargeting", "best"], 2, "invalid choice"),
        (["--driver", "ada.csv", "--retargeting", "model"], 1, "moves the avatar's own face"),
        (["--driver", "ada.csv", "--fps", "30"], 1, "moves the avatar's own face"),
        (["--driver", "ada.npz", "--neutral", "0", "--retargeting", "none"], 1, "neutral is a time in seconds"),
        (["--driver", "ada.npz", "--retargeting", "model", "--neutral", "9"], 1, "no face at the neutral time of 9 s"),
        (["--driver", "camera:0", "--neutral", "1"], 1, "omit --neutral"),
        (["--driver", "no.csv"], 1, "there is no motion file at"),
        (["--driver", "ada.npz", "--edit", "smile=1"], 2, "give either --driver or --edit"),
        ([], 2, "give either --driver or --edit"),
        (["--edit", "grin=1"], 1, "NAME=VALUE"),
        (["--avatar", "bare.safetensors", "--edit", "smile=1"], 1, "which a motion file needs"),
        (
            ["--avatar", "bare.safetensors", "--driver", "ada.npz", "--retargeting", "model"],
            1,
            'retargeting "model" requires',
        ),
    ],
)
def test_wrong_options_are_errors(
    options: list[str],
    code: int,
    message: str,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(folder)
    out = tmp_path / "a.png"
    assert main(["animate", "--avatar", "ben.safetensors", "--out", str(out), *options]) == code
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_an_edit_makes_a_still_and_no_film(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    avatar = str(folder / "ben.safetensors")
    assert main(["animate", "--avatar", avatar, "--edit", "smile=1", "--out", str(tmp_path / "a.mp4")]) == 2
    assert "--out must end in .png, .jpg" in capsys.readouterr().err


def test_track_writes_the_motion_of_a_video(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_clip(tmp_path / "driver.mp4", swaying(6))
    assert main(["track", str(tmp_path / "driver.mp4"), "--out", str(tmp_path / "motion.csv")]) == 0
    assert "6 frames, 6 with a face" in capsys.readouterr().out
    motion = read_motion(tmp_path / "motion.csv")
    assert len(motion.times) == 6
    assert np.abs(motion.pose[:, 0]).max() < 30
    for wrong, message in (("motion.txt", "ends in .csv or .json"), ("no/motion.csv", "does not exist")):
        assert main(["track", str(tmp_path / "driver.mp4"), "--out", str(tmp_path / wrong)]) == 1
        assert message in capsys.readouterr().err
    assert main(["track", str(tmp_path / "no.mp4"), "--out", str(tmp_path / "b.csv")]) == 1
    assert "no.mp4 does not exist" in capsys.readouterr().err
    assert not (tmp_path / "b.csv").exists()

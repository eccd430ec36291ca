"""Live driving by a camera: waiting for a face, following, marks and labels, and the need for a window."""

import dataclasses
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from commands import animate as main
from driver_clips import blank, swaying

import th_jax
from th_jax.avatars.file import LoadedAvatar, load_avatar, save_avatar
from th_jax.data.records import VideoRecords, bundled_heads
from th_jax.driving import camera
from th_jax.faces import face_size
from th_jax.provenance.watermark.detect import detect_video
from th_jax.provenance.watermark.messages import message_of
from th_jax.training.finetune import avatar_from_embedding

SIZE = 64


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An avatar of the bundled weights."""
    meta = th_jax.load_pretrained("heads64", only_generate=True)
    avatar = avatar_from_embedding(meta.networks, meta.weights, jnp.asarray(meta.table_rows[0]))
    path = tmp_path_factory.mktemp("camera") / "ada.safetensors"
    save_avatar(path, avatar, networks=meta.networks, provenance=meta.provenance)
    return path


@pytest.fixture(scope="module")
def loaded(path: Path) -> LoadedAvatar:
    return load_avatar(path)


@pytest.fixture(scope="module")
def shown(loaded: LoadedAvatar) -> np.ndarray:
    """Two frames without a face, some with one, and two without."""
    frames = [*blank(2), *swaying(camera.FIRST_FRAMES + 11, amplitude=1.0), *blank(2)]
    layout = ("driver", "landmarks", "avatar")
    return np.stack(list(camera.live_frames(loaded, frames, layout=layout)))


def test_live_frames_wait_for_a_face_and_repeat_without_one(shown: np.ndarray) -> None:
    assert len(shown) == 12 + 2  # from the last of the first frames on
    assert shown.shape[1:] == (SIZE + 12, 3 * SIZE, 3)
    np.testing.assert_array_equal(shown[-1, :, SIZE:], shown[-3, :, SIZE:])
    np.testing.assert_array_equal(shown[-2, :, SIZE:], shown[-3, :, SIZE:])
    assert (shown[0] != shown[1]).any()


def test_live_frames_carry_the_avatars_mark(loaded: LoadedAvatar, shown: np.ndarray) -> None:
    (mark,) = detect_video(shown).marks
    assert mark.message == message_of(loaded.digest, bits=16)
    assert abs(mark.left - 2 * SIZE) < 2
    assert not detect_video(shown[:, :, : 2 * SIZE]).marks, "a driver is no generated picture"


def test_live_frames_are_labeled_below_the_avatar(shown: np.ndarray) -> None:
    bar = shown[:, SIZE:]
    assert (bar == bar[0]).all()
    assert (bar[0, :, : 2 * SIZE] == 0).all(), "the label is the avatar's alone"
    written = np.flatnonzero(bar[0, :, 2 * SIZE :].max((0, 2)) > 100)
    assert np.ptp(written) > 0.6 * SIZE, "as wide as there is room"
    assert written.min() >= 1
    assert written.max() < SIZE - 1
    alone = camera._label(256, panels=1, avatar=0)
    assert alone.max() == 255
    assert camera.LABEL == "AI-generated"


@pytest.mark.parametrize("follow", ["face", "segment"])
def test_the_square_follows_a_camera_s_face(loaded: LoadedAvatar, follow: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A head that moves by its own width: the generator's input stays in place, unlike with a fixed square."""
    wide = np.full((256, 900, 3), 90, np.uint8)
    frames = []
    for index in range(40):
        frame, left = wide.copy(), max(0, index - 12) * 7
        frame[:, left : left + 256] = swaying(1)[0]
        frames.append(frame)
    poses, nothing = [], np.zeros((1, SIZE, SIZE, 3), np.uint8)
    monkeypatch.setattr(camera, "render", lambda *arguments, **_: (poses.append(arguments[2][0]), nothing)[1])
    ticks = iter(np.arange(100) / 25)
    list(camera.live_frames(loaded, frames, layout=("avatar",), follow=follow, clock=lambda: next(ticks)))
    assert len(poses) == 40 - camera.FIRST_FRAMES + 1
    moved = np.ptp(np.stack(poses)[:, :68].mean(1)[:, 0])
    assert moved < 0.08 if follow == "face" else moved > 0.15


def test_a_camera_s_face_is_as_large_as_in_the_avatar_s_shots(
    loaded: LoadedAvatar, monkeypatch: pytest.MonkeyPatch
) -> None:
    shots = VideoRecords(bundled_heads(), "heldout").read(8).landmarks[:3, :68]
    shots = (shots - 0.5) * 0.56 / np.median(face_size(shots)) + 0.5
    poses, nothing = [], np.zeros((1, SIZE, SIZE, 3), np.uint8)
    monkeypatch.setattr(camera, "render", lambda *arguments, **_: (poses.append(arguments[2][0]), nothing)[1])
    frames = swaying(camera.FIRST_FRAMES + 2, amplitude=0.0)
    list(camera.live_frames(dataclasses.replace(loaded, landmarks=shots), frames, layout=("avatar",)))
    assert face_size(np.stack(poses)) == pytest.approx(0.56, rel=0.02)


def test_a_camera_without_a_window_is_an_error(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--avatar", str(path), "--driver", "camera:0"]) == 1
    assert "a camera needs a preview window, but" in capsys.readouterr().err


def test_a_window_needs_a_toolkit_and_a_display(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(camera.cv2, "getBuildInformation", lambda: "  GUI:                NONE\n")
    assert "opencv-python-headless" in (camera.missing_window() or "")
    monkeypatch.setattr(camera.cv2, "getBuildInformation", lambda: "  GUI:                QT5\n")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert "no display" in (camera.missing_window() or "")
    monkeypatch.setenv("DISPLAY", ":0")
    assert camera.missing_window() is None

"""Driving: the output has the driver's rate, length and audio; gaps repeat frames; bad input gives one sentence, no file."""

import math
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import jax
import numpy as np
import pytest
from commands import animate as main
from driver_clips import blank, swaying, write_clip
from opens import counted_opens

from th_jax.avatars.file import LoadedAvatar, load_avatar, save_avatar
from th_jax.driving import animate as script
from th_jax.driving.animate import animate
from th_jax.driving.driver import read_landmarks, track_driver
from th_jax.driving.panels import parse_layout
from th_jax.driving.poses import driving_poses
from th_jax.faces import Square, crop_frame
from th_jax.landmarks.methods import Target
from th_jax.landmarks.smooth import OneEuro
from th_jax.media import open_video, read_image
from th_jax.models import networks as networks_module
from th_jax.models.networks import Networks
from th_jax.provenance import Kind, Provenance, read_sidecar
from th_jax.training.finetune import avatar_from_embedding

NETWORKS = Networks(image_size=16, base_width=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An avatar and its drivers: a video with audio and a gap, one without a face, and a landmark file."""
    folder = tmp_path_factory.mktemp("driving")
    embedding = jax.random.normal(jax.random.key(1), (NETWORKS.plan.embedding,))
    avatar = avatar_from_embedding(NETWORKS, NETWORKS.init(jax.random.key(0)), embedding)
    moving = swaying(12)
    write_clip(folder / "driver.mp4", [*moving[:6], *blank(3), *moving[6:]], fps=Fraction(30000, 1001), tone=True)
    write_clip(folder / "nobody.mp4", blank(4))
    with track_driver(folder / "driver.mp4") as driving:
        landmarks = np.array(driving.landmarks)
    np.savez(folder / "landmarks.npz", landmarks=landmarks, fps=10)
    shots = landmarks[np.isfinite(landmarks).all((1, 2))][:3]
    record = Provenance(kind=Kind.GENERATED, inputs=("a" * 64,))
    save_avatar(folder / "ada.safetensors", avatar, networks=NETWORKS, provenance=record, landmarks=shots)
    save_avatar(folder / "bare.safetensors", avatar, networks=NETWORKS, provenance=record)
    return folder


@pytest.fixture(scope="module")
def loaded(folder: Path) -> LoadedAvatar:
    return load_avatar(folder / "ada.safetensors")


def is_empty(folder: Path) -> bool:
    return not list(folder.iterdir())


def read(path: Path) -> np.ndarray:
    with open_video(path) as video:
        return np.stack([frame for _, frame in video.frames()]).astype(int)


def test_a_video_has_the_drivers_rate_length_and_sound(
    folder: Path, loaded: LoadedAvatar, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "ada.mp4"
    command = ["--avatar", str(folder / "ada.safetensors"), "--driver", str(folder / "driver.mp4"), "--out", str(out)]
    assert main([*command, "--layout", "driver,landmarks,avatar", "--chunk", "4"]) == 0
    printed = capsys.readouterr().out
    assert "15 frames at 29.97 frames/s, with sound; 3 without a face repeat the last pose" in printed
    with open_video(out) as video:
        assert (video.size, video.fps, video.has_audio) == ((48, 16), Fraction(30000, 1001), True)
    with av.open(str(out)) as film:
        wave = np.concatenate([frame.to_ndarray()[0] for frame in film.decode(audio=0)])
    # PyAV 19 leaves out what fills up AAC's last block, PyAV 18 decodes it.
    pictures = 16000 * 15 * 1001 / 30000
    assert len(wave) in (round(pictures), math.ceil(pictures / 1024) * 1024), "as long as the pictures"
    tone = np.abs(np.fft.rfft(wave)).argmax() / len(wave) * 2 * np.pi
    assert tone == pytest.approx(0.2, abs=np.pi / len(wave)), "the driver's, of 0.2 radians a sample"
    frames = read(out)
    assert len(frames) == 15
    # While there is no face the avatar and its landmarks rest and the driver's picture does not.
    gap, moving = frames[6:9] - frames[5:8], frames[1:5] - frames[0:4]
    assert np.abs(gap[:, :, 16:]).max() <= 2
    for panel in (slice(16, 32), slice(32, 48)):
        assert np.abs(moving[:, :, panel]).mean((1, 2, 3)).min() > 1.5
    assert np.abs(frames[7, :, :16] - 90).mean() < 3
    with open_video(folder / "driver.mp4") as video, track_driver(folder / "driver.mp4") as driving:
        first = next(iter(video.frames()))[1]
        wanted = crop_frame(first, Square(*np.rint(driving.squares[0]).astype(int)), size=16)
    assert np.abs(frames[0, :, :16] - wanted).mean() < 12
    record, unchanged = read_sidecar(out)
    assert (unchanged, record.kind, record.avatar, record.inputs) == (True, "composite", loaded.digest, ("a" * 64,))
    assert "driven by a file of SHA-256" in record.notes
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells who opens a file")
@pytest.mark.parametrize(("panels", "opened"), [("avatar", 4), ("driver,avatar", 5)])
def test_a_driver_is_opened_once_for_each_use(
    folder: Path, loaded: LoadedAvatar, tmp_path: Path, panels: str, opened: int
) -> None:
    """Is its sound usable, where is the face, who made it, its sound; its pictures are decoded again only if shown."""
    with counted_opens(folder / "driver.mp4") as opens:
        animate(loaded, folder / "driver.mp4", tmp_path / "a.mp4", layout=parse_layout(panels))
    assert opens.count == opened


def test_landmarks_from_a_file_drive_through_one_program(
    folder: Path, loaded: LoadedAvatar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    traces: list[Any] = []
    draw = networks_module.draw_landmarks
    monkeypatch.setattr(
        networks_module, "draw_landmarks", lambda p, **options: (traces.append(p.shape), draw(p, **options))[1]
    )
    done = animate(loaded, folder / "landmarks.npz", tmp_path / "a.mp4", chunk=5)
    assert (done.frames, done.fps, done.without_face, done.sound) == (15, 10, 3, False)
    animate(loaded, folder / "landmarks.npz", tmp_path / "b.mp4", chunk=5, fps=20.0, seconds=0.35)
    assert traces == [(5, 68, 2)]
    assert len(read(tmp_path / "b.mp4")) == 7


def test_stills_and_gifs(folder: Path, loaded: LoadedAvatar, tmp_path: Path) -> None:
    done = animate(loaded, folder / "driver.mp4", tmp_path / "a.png", at=0.1, layout=("landmarks", "avatar"))
    assert read_image(tmp_path / "a.png").shape == (16, 32, 3)
    assert (done.frames, done.without_face) == (1, 0)
    animate(loaded, folder / "landmarks.npz", tmp_path / "a.gif")
    with open_video(tmp_path / "a.gif") as video:
        times = [float(time) for time, _ in video.frames()]
    # The pose before the gap lasts through it: GIF joins equal frames.
    np.testing.assert_allclose(times, [0.1 * n for n in range(15) if n not in (6, 7, 8)], atol=1e-6)
    assert read_sidecar(tmp_path / "a.gif")[1]
    with pytest.raises(ValueError, match=r"driver.mp4 lasts .* no frame at 9 s"):
        animate(loaded, folder / "driver.mp4", tmp_path / "b.png", at=9.0)


def test_each_segment_has_its_own_square(tmp_path: Path) -> None:
    """A cut to a face elsewhere: both have their landmarks at the same place in their squares."""
    frames = swaying(5, amplitude=0.0)
    wide = [np.pad(f, ((0, 0), (0, 256), (0, 0)), constant_values=60) for f in frames]
    write_clip(tmp_path / "a.mp4", wide + [np.ascontiguousarray(np.roll(f, 230, axis=1)) for f in wide])
    with track_driver(tmp_path / "a.mp4", pupils=True) as driving:
        assert driving.segment.tolist() == [0] * 5 + [1] * 5
        assert driving.squares[5, 0] - driving.squares[0, 0] == pytest.approx(230, abs=8)
        assert driving.landmarks.shape == (10, 70, 2)
        centers = driving.landmarks[:, :68].mean(1)
        np.testing.assert_allclose(centers[0], centers[5], atol=0.05)
        assert 0.3 < centers.min() < centers.max() < 0.7


def test_poses_repeat_adapt_and_start_with_the_first_face(folder: Path) -> None:
    driving = read_landmarks(folder / "landmarks.npz")
    late = driving._replace(segment=np.where(np.arange(15) < 2, -1, driving.segment))
    shown = np.arange(15)
    poses = np.stack(list(driving_poses(late, shown, fps=driving.fps)))
    np.testing.assert_array_equal(poses[0], driving.landmarks[2])
    np.testing.assert_array_equal(poses[6:9], np.broadcast_to(driving.landmarks[5], (3, 68, 2)))
    smooth = np.stack(list(driving_poses(late, shown, fps=driving.fps, smoothing=OneEuro(0.5, 0.0))))
    assert smooth[2:].std(0).mean() < poses[2:].std(0).mean()
    own = np.array(driving.landmarks)
    same = np.stack(list(driving_poses(late, shown, fps=driving.fps, target=Target("shape", own))))
    np.testing.assert_allclose(same, poses, atol=0.02)
    larger = np.stack(list(driving_poses(late, shown, fps=driving.fps, target=Target("shape", 1.5 * own))))
    assert np.ptp(larger[3], axis=0)[1] == pytest.approx(1.5 * np.ptp(poses[3], axis=0)[1], rel=0.05)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"--driver": "no.mp4"}, "no.mp4 does not exist"),
        ({"--driver": "nobody.mp4"}, "no face was found in"),
        ({"--driver": "ada.safetensors"}, "is not a readable video"),
        ({"--driver": "camera:x"}, "a camera is given by its number"),
        ({"--avatar": "driver.mp4"}, "is not a readable safetensors file"),
        ({"--avatar": "no.safetensors"}, "there is no avatar at"),
        ({"--out": "a.avi"}, "must end in .mp4, .gif, .png"),
        ({"--out": "no/a.mp4"}, "no does not exist"),
        ({"--layout": "avatar,face"}, "unknown panel 'face' in the layout; expected driver, landmarks, avatar"),
        ({"--layout": "driver"}, "a layout must contain the avatar"),
        ({"--driver": "landmarks.npz", "--layout": "driver,avatar"}, "a landmark file has no images"),
        ({"--avatar": "bare.safetensors", "--retargeting": "shape"}, "without the landmarks of its shots"),
        ({"--smoothing": "-1"}, "smoothing needs a positive cutoff"),
        ({"--fps": "25"}, "fps is only for landmark files"),
        ({"--seconds": "0"}, "seconds above 0"),
        ({"--seconds": "inf"}, "seconds above 0"),
        ({"--at": "1"}, "at selects the time of a still image"),
        ({"--driver": "landmarks.npz", "--chunk": "0"}, "chunk must be at least 1 frame"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: dict[str, str], message: str
) -> None:
    usual = {"--avatar": "ada.safetensors", "--driver": "driver.mp4", "--out": "a.mp4"} | options
    for name in ("--avatar", "--driver"):
        usual[name] = usual[name] if usual[name].startswith("camera") else str(folder / usual[name])
    usual["--out"] = str(tmp_path / usual["--out"])
    assert main([part for pair in usual.items() for part in pair]) == 1
    printed = capsys.readouterr().err.strip()
    assert message in printed
    assert len(printed.splitlines()) == 1
    assert is_empty(tmp_path)


def test_files_of_landmarks_are_checked(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = np.random.default_rng(0).uniform(0.2, 0.8, (4, 68, 2)).astype(np.float32)
    path = tmp_path / "a.npz"
    for arrays, message in (
        ({"points": good}, "must contain an array named landmarks"),
        ({"landmarks": good[0]}, r"shape \[S, 68 or 70, 2\], got float32 \[68, 2\]"),
        ({"landmarks": good[:0]}, r"got float32 \[0, 68, 2\]"),
        ({"landmarks": (good * 100).astype(int)}, "must be floating point"),
        ({"landmarks": good[:, :5]}, "landmarks must be 68 iBUG points"),
        ({"landmarks": good * np.inf}, "must be finite, or NaN"),
        ({"landmarks": good * np.nan}, "no frame has all 68 landmarks"),
        ({"landmarks": good * 256}, r"must be in \[0, 1\] of the square frame, but extend .* divide pixel"),
        ({"landmarks": np.array([{"a": 1}])}, "landmarks.npy declares object"),
        ({"landmarks": good, "fps": [25, 30]}, "fps must be a single number"),
        ({"landmarks": good, "fps": -1.0}, "fps must be at least 0.001"),
    ):
        np.savez(path, **arrays)
        with pytest.raises(ValueError, match=message):
            read_landmarks(path)
    np.savez_compressed(path, landmarks=good)
    assert read_landmarks(path).fps == 25
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match="not a readable landmark file"):
        read_landmarks(path)
    with pytest.raises(ValueError, match="no landmark file at"):
        read_landmarks(tmp_path / "b.npz")
    monkeypatch.setattr("th_jax.driving.driver.NPZ_BYTES", 1000)
    with pytest.raises(ValueError, match=r"unpacks to .* bytes, over the limit of 1000"):
        read_landmarks(folder / "landmarks.npz")


def test_an_interrupt_leaves_nothing(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> Any:
        yield np.zeros((16, 16, 3), np.uint8)
        raise KeyboardInterrupt

    monkeypatch.setattr(script, "render_stream", interrupted)
    names = {"--avatar": folder / "ada.safetensors", "--driver": folder / "landmarks.npz", "--out": tmp_path / "a.mp4"}
    assert main([str(part) for pair in names.items() for part in pair]) == 75
    assert "interrupted: nothing was written" in capsys.readouterr().err
    assert is_empty(tmp_path)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_video(folder: Path, tmp_path: Path) -> None:
    code = """
import os
import resource, sys
from commands import animate as main
assert main(sys.argv[1:]) == 0
print("peak", *(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))
"""
    peaks = []
    for repeats in (5, 60):
        driver = write_clip(tmp_path / f"{repeats}.mp4", swaying(25) * repeats, tone=True)
        names = {"--avatar": folder / "ada.safetensors", "--driver": driver, "--out": tmp_path / "a.mp4"}
        command = [str(part) for pair in names.items() for part in pair]
        command = [sys.executable, "-c", code, *command, "--layout", "driver,landmarks,avatar"]
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        assert done.returncode == 0, done.stderr[-2000:]
        peaks.append(np.array(done.stdout.rsplit("peak", 1)[1].split(), int) / 1024)
    # MiB, of this process and the largest of those that decode; the longer film's frames are 270 MB.
    assert (peaks[1] < peaks[0] + 40).all()


def test_layouts() -> None:
    assert parse_layout("driver, landmarks,avatar") == ("driver", "landmarks", "avatar")
    with pytest.raises(ValueError, match="no panel twice"):
        parse_layout("avatar,avatar")


def test_a_callback_hears_of_every_frame_and_its_error_leaves_no_file(
    folder: Path, loaded: LoadedAvatar, tmp_path: Path
) -> None:
    heard: list[tuple[int, int]] = []
    animate(loaded, folder / "landmarks.npz", tmp_path / "a.mp4", on_frame=lambda *frames: heard.append(frames))
    assert heard == [(done, heard[0][1]) for done in range(heard[0][1] + 1)]
    assert heard[0][1] > 3

    def cancel(done: int, total: int) -> None:
        if done == 2:
            raise InterruptedError("canceled")

    (tmp_path / "empty").mkdir()
    with pytest.raises(InterruptedError):
        animate(loaded, folder / "landmarks.npz", tmp_path / "empty" / "a.mp4", on_frame=cancel)
    assert is_empty(tmp_path / "empty")

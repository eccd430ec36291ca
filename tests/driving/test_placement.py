"""Squares of a driver: following or fixed; frames out of range are counted and reported, or an error."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from commands import animate as main

from benchmarks import following
from th_jax.avatars.file import load_avatar, save_avatar
from th_jax.data.records import VideoRecords, bundled_heads
from th_jax.driving import animate as script
from th_jax.driving.animate import animate
from th_jax.driving.driver import read_landmarks
from th_jax.driving.placement import check_follow, check_range, out_of_range, place_segments
from th_jax.driving.poses import driving_poses
from th_jax.faces import face_size, following_squares, head_center, in_squares, segment_square, to_crop
from th_jax.faces.follow import FACE_SHARE, HEAD_X, HEAD_Y
from th_jax.landmarks.methods import Target
from th_jax.models.networks import Networks
from th_jax.provenance import Kind, Provenance
from th_jax.training.finetune import avatar_from_embedding

NETWORKS = Networks(image_size=16, base_width=4)


@pytest.fixture(scope="module")
def face() -> np.ndarray:
    """A rendered head's landmarks in [0, 1] of its record's square, from the front."""
    return VideoRecords(bundled_heads(), "heldout").read(8).landmarks[0, :68]


@pytest.fixture(scope="module")
def avatar(tmp_path_factory: pytest.TempPathFactory, face: np.ndarray) -> Path:
    embedding = jax.random.normal(jax.random.key(1), (NETWORKS.plan.embedding,))
    made = avatar_from_embedding(NETWORKS, NETWORKS.init(jax.random.key(0)), embedding)
    path = tmp_path_factory.mktemp("placement") / "ada.safetensors"
    record = Provenance(kind=Kind.GENERATED)
    save_avatar(path, made, networks=NETWORKS, provenance=record, landmarks=np.stack([face, face + 0.01]))
    return path


@pytest.mark.parametrize("share", [0.56, None])
def test_the_driver_s_face_is_as_large_as_in_the_avatar_s_shots(
    face: np.ndarray, avatar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float | None
) -> None:
    """Its position too; an avatar without landmarks gets the training median."""
    loaded = load_avatar(avatar)
    shots = None if share is None else shrunk(face, *([share / face_size(face)] * 3)) + np.float32([0.02, -0.05])
    poses: list[np.ndarray] = []

    def generated(*arguments: Any, **_: Any) -> Iterator[np.ndarray]:
        for pose in arguments[2]:
            poses.append(pose)
            yield np.zeros((16, 16, 3), np.uint8)

    monkeypatch.setattr(script, "render_stream", generated)
    np.savez(tmp_path / "a.npz", landmarks=shrunk(face, *[0.8] * 5))
    animate(dataclasses.replace(loaded, landmarks=shots), tmp_path / "a.npz", tmp_path / "a.mp4")
    assert len(poses) == 5
    assert face_size(np.stack(poses)) == pytest.approx(share or FACE_SHARE.median, rel=1e-4)
    wanted = (HEAD_X.median, HEAD_Y.median) if shots is None else head_center(shots)[0]
    np.testing.assert_allclose(head_center(np.stack(poses)), np.tile(wanted, (5, 1)), atol=1e-4)


def shrunk(face: np.ndarray, *factors: float) -> np.ndarray:
    """The face at other sizes, at the same position."""
    return np.stack([(face - 0.5) * factor + 0.5 for factor in factors]).astype(np.float32)


def test_frames_out_of_range_are_counted(face: np.ndarray) -> None:
    good, small, large = shrunk(face, 1.0, 0.5, 1.5)
    right = good + np.float32([0.6, 0])
    profile = good.copy()
    profile[30, 0] = good[45, 0] + 0.05
    assert out_of_range([good] * 3) == (0, 0, 0, 0)
    assert out_of_range([good, small, large, right, profile, small + np.float32([0.7, 0])]) == (5, 3, 2, 1)
    assert check_range([good, small], strict=False).frames == 1
    assert check_range([good], strict=True).frames == 0
    with pytest.raises(
        ValueError, match=r"the driver has 2 frames beyond the training range \(2 by face size, 1 by lan"
    ):
        check_range([good, small, small + np.float32([0.7, 0])], strict=True)


def tracked(face: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two faces, a gap in the first one, and a false detection of two frames before them: pixels, segments, times."""
    landmarks = np.full((20, 68, 2), np.nan, np.float32)
    segment = np.full(20, -1)
    for number, frames in ((0, [0, 1]), (1, [3, 4, 5, 7, 8]), (2, range(10, 20))):
        for frame in frames:
            landmarks[frame] = face * 100 * (number + 1) + frame
            segment[frame] = number
    return landmarks, segment, np.arange(20) / 25


def test_each_segment_is_followed_by_itself(face: np.ndarray) -> None:
    landmarks, segment, times = tracked(face)
    pixels = landmarks.copy()
    numbers, squares = place_segments(landmarks, segment, times, {n: (400, 400) for n in range(3)})
    assert numbers.tolist() == [-1, -1, -1, 0, 0, 0, -1, 0, 0, -1, *[1] * 10]
    wanted = following_squares(pixels[3:9], times[3:9])
    np.testing.assert_array_equal(squares[3:9], wanted)
    np.testing.assert_array_equal(landmarks[3:6], in_squares(pixels[3:6], wanted[:3]))
    assert np.isnan(landmarks[:2]).all(), "a false alarm"
    assert np.isnan(squares[[0, 9]]).all()
    known = landmarks[numbers >= 0]
    np.testing.assert_allclose(face_size(known), FACE_SHARE.median, rtol=0.01)
    wider, _, _ = tracked(face)
    place_segments(wider, segment, times, {n: (400, 400) for n in range(3)}, context=1.25)
    np.testing.assert_allclose(face_size(wider[10:]) * 1.25, face_size(landmarks[10:]), rtol=1e-4)
    np.testing.assert_allclose(wider[10:] - 0.5, (landmarks[10:] - 0.5) / 1.25, atol=1e-5)


def test_a_segment_within_another_is_a_flash(face: np.ndarray) -> None:
    landmarks, segment, times = tracked(face)
    segment[12:16] = 3
    pixels = landmarks.copy()
    numbers, _ = place_segments(landmarks, segment, times, {n: (400, 400) for n in range(4)})
    assert numbers.tolist() == [-1, -1, -1, 0, 0, 0, -1, 0, 0, -1, 1, 1, -1, -1, -1, -1, 1, 1, 1, 1]
    assert np.isnan(landmarks[12:16]).all()
    pixels[12:16] = np.nan
    np.testing.assert_array_equal(landmarks[10:], in_squares(pixels[10:], following_squares(pixels[10:], times[10:])))


def test_a_fixed_square_is_that_of_shots(face: np.ndarray) -> None:
    landmarks, segment, times = tracked(face)
    pixels = landmarks.copy()
    _, squares = place_segments(landmarks, segment, times, {n: (400, 400) for n in range(3)}, follow="segment")
    square = segment_square(pixels[10:], height=400, width=400)
    np.testing.assert_array_equal(squares[10:], np.tile(square, (10, 1)))
    np.testing.assert_allclose(landmarks[10:], to_crop(pixels[10:], square), atol=1e-6)
    with pytest.raises(ValueError, match=r"follow .* got 'head'"):
        check_follow("head")
    with pytest.raises(ValueError, match="context"):
        place_segments(landmarks, segment, times, {}, context=0.0)


def leaning(face: np.ndarray, path: Path) -> Path:
    """Landmarks of a driver who leans back in a fixed square and moves to the right."""
    factors = 1 - 0.6 * (1 - np.cos(2 * np.pi * np.arange(50) / 50)) / 2
    aside = 0.2 * np.sin(2 * np.pi * np.arange(50) / 50)[:, None, None] * np.float32([1, 0])
    np.savez(path, landmarks=(shrunk(face, *factors) + aside).astype(np.float32))
    return path


@pytest.mark.parametrize("retarget", [False, True])
def test_landmarks_of_a_file_are_brought_into_range(face: np.ndarray, tmp_path: Path, retarget: bool) -> None:
    path = leaning(face, tmp_path / "a.npz")
    target = Target("shape", face[None]) if retarget else None
    outside = {}
    for follow in ("face", "segment"):
        driving = read_landmarks(path, follow=follow)
        poses = list(driving_poses(driving, np.arange(50), fps=driving.fps, target=target))
        outside[follow] = out_of_range(poses).frames
        if follow == "face":
            assert np.ptp(head_center(np.stack(poses)), axis=0).max() < 0.16
    assert outside["face"] == 0
    assert outside["segment"] > 10


def test_the_command_reports_or_rejects_out_of_range_frames(
    face: np.ndarray, avatar: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = leaning(face, tmp_path / "a.npz")
    command = ["--avatar", str(avatar), "--driver", str(driver), "--out", str(tmp_path / "a.mp4")]
    assert main([*command, "--strict"]) == 0
    assert "beyond" not in capsys.readouterr().out
    assert main([*command, "--follow", "segment"]) == 0
    printed = capsys.readouterr().out
    assert "frames beyond the training range (" in printed
    assert "by face size" in printed
    (tmp_path / "a.mp4").unlink()

    def generated(*_: Any, **__: Any) -> None:
        raise AssertionError("something was generated")

    monkeypatch.setattr(script, "render_stream", generated)
    assert main([*command, "--follow", "segment", "--strict"]) == 1
    printed = capsys.readouterr().err
    assert "frames beyond the training range" in printed
    assert "choose another part or driver, or omit --strict" in printed
    assert not (tmp_path / "a.mp4").exists()
    assert main(["--avatar", str(avatar), "--driver", "camera:0", "--strict"]) == 1
    assert "--strict needs a recorded driver" in capsys.readouterr().err


def test_the_result_has_the_counts(face: np.ndarray, avatar: Path, tmp_path: Path) -> None:
    from th_jax.avatars.file import load_avatar

    loaded = load_avatar(avatar)
    driver = leaning(face, tmp_path / "a.npz")
    assert animate(loaded, driver, tmp_path / "a.mp4").out_of_range.frames == 0
    still = animate(loaded, driver, tmp_path / "a.png", at=1.0, follow="segment")
    assert (still.frames, still.out_of_range.frames, still.out_of_range.size) == (1, 1, 1)


@pytest.mark.slow
def test_an_avatar_keeps_its_face_whatever_its_driver_does(tmp_path: Path) -> None:
    """With the bundled weights: a face in each frame, as near to the landmarks as when the driver rests."""
    loaded = following.feed_forward_avatar(3)
    for retargeting in (False, True):
        errors = {}
        for name, motion in following.MOTIONS.items():
            measured = following.Measured()
            film = following.video(tmp_path / f"{name}.mp4", 8, motion)
            measured.add(loaded, film, follow="face", retargeting=retargeting)
            assert len(measured.errors) == measured.frames == 60, name
            errors[name] = np.mean(measured.errors)
        assert max(errors.values()) < 1.2 * errors["rests"]
    fixed = following.Measured()
    fixed.add(loaded, tmp_path / "sways.mp4", follow="segment", retargeting=False)
    assert len(fixed.errors) < fixed.frames, "or this driver would prove nothing"

"""Rendered data sets: right records, the same bytes however made, and refusals before anything is rendered."""

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from data_prep.heads import command as render_heads
from data_prep.heads import pool as render_pool
from data_prep.heads import records as head_records
from data_prep.heads.command import Split, main
from data_prep.heads.people import render_person
from data_prep.heads.records import HeadSettings, encode_frame, head_record, landmark_errors, source_sha256
from data_prep.workers import Died
from tests import commands
from tests.data_prep.folders import command_of, contents
from th_jax.data.records import FRAME_SIZE, TRAIN_FRAMES, VideoRecords, bundled_heads, read_videos
from th_jax.data.video_list import load_video_list
from th_jax.faces import detect
from th_jax.optional import install_command

SMALL = HeadSettings(frames=2, size=64, render_size=192)
ROOT = Path(__file__).parents[3]


def command(out: Path, work: Path, *more: str) -> list[str]:
    small = "--people 2 --first-seed 40 --frames 2 --heldout-people 1 --heldout-frames 2 --size 64 --render-size 192"
    return ["--out", str(out), "--work", str(work), *small.split(), *more]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("heads")
    assert main(command(folder / "out", folder / "work", "--workers", "2")) == 0
    return folder


def test_splits_hold_the_people_of_their_seeds(made):
    videos = load_video_list(made / "out")
    assert (videos.name, videos.points, videos.frame_size, videos.true_landmarks) == ("heads", 70, 64, True)
    assert [entry.identity for entry in videos.entries("train")] == ["head-000040", "head-000041"]
    assert [entry.video_id for entry in videos.entries("heldout")] == ["head-100000"]


def test_a_record_says_what_was_rendered(made):
    record = next(record for _, record in read_videos(made / "out", "train") if record.identity == "head-000041")
    person = render_person(41, frames=2, size=192)
    np.testing.assert_array_equal(record.true_landmarks, person.landmarks)
    np.testing.assert_allclose(record.times, person.times)
    assert record.crops.tolist() == [[0, 0, 192]] * 2
    assert (record.licence, record.minimum_gap) == ("CC0-1.0", 1.0)
    for jpeg, frame in zip(record.frames, person.frames, strict=True):
        stored = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR_RGB).astype(float)
        assert stored.shape == (64, 64, 3)
        difference = stored - frame.reshape(64, 3, 64, 3, 3).mean((1, 3))
        assert 10 * np.log10(255**2 / (difference**2).mean()) > 36, "PSNR in dB"


def test_detected_landmarks_are_dlibs_and_know_no_pupils(made):
    for _, record in read_videos(made / "out", "train"):
        assert np.isnan(record.landmarks[:, 68:]).all()
        assert np.isfinite(record.true_landmarks).all()
        errors = landmark_errors(record)
        assert 0.01 < errors.mean() < 0.12


@pytest.mark.parametrize("workers", ["1", pytest.param("4", marks=pytest.mark.slow)])
def test_the_number_of_workers_leaves_no_trace(made, tmp_path, workers):
    """The other data set was made by two."""
    assert main(command(tmp_path / "out", tmp_path / "work", "--workers", workers)) == 0
    assert contents(tmp_path / "out") == contents(made / "out")


def test_an_interrupted_run_goes_on_and_makes_the_same_bytes(made, tmp_path, capsys):
    shutil.copytree(made / "work", tmp_path / "work")
    kept, lost, cut = sorted((tmp_path / "work").glob("*/*.record"))
    lost.unlink()
    cut.write_bytes(cut.read_bytes()[:-100])
    (cut.parent / "head-100000.77").write_bytes(b"half of a person")
    before = kept.stat().st_mtime_ns
    assert main(command(tmp_path / "out", tmp_path / "work", "--workers", "1")) == 0
    assert contents(tmp_path / "out") == contents(made / "out")
    assert kept.stat().st_mtime_ns == before, "it was rendered again"
    assert "3 people, 6 frames" in capsys.readouterr().out


def test_finished_people_of_other_settings_are_not_taken(made):
    names = {path.parent.name for path in (made / "work").glob("*/*.record")}
    files = [render_pool.head_file(made / "work", 40, SMALL._replace(quality=quality)) for quality in (90, 91)]
    assert [file.path.parent.name in names for file in files] == [True, False]
    assert [file.path.exists() for file in files] == [True, False]


@pytest.mark.slow
def test_a_killed_run_leaves_no_worker_and_goes_on(made, tmp_path):
    arguments = command(tmp_path / "out", tmp_path / "work", "--workers", "1")
    run = subprocess.Popen([sys.executable, "-m", "th_jax.cli.main", "prepare", "render-heads", *arguments], cwd=ROOT)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "work").glob("*/*.record")):
        assert time.monotonic() < deadline
        assert run.poll() is None
        time.sleep(0.01)
    children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
    workers = [pid for pid in children if "isolation_child" in command_of(pid)]
    assert workers
    run.send_signal(signal.SIGKILL)
    run.wait()
    time.sleep(5)
    assert not [pid for pid in workers if "isolation_child" in command_of(pid)]
    assert not (tmp_path / "out").exists()
    assert main(arguments) == 0
    assert contents(tmp_path / "out") == contents(made / "out")


def test_the_default_work_folder_goes_when_the_data_set_is_there(made, tmp_path, monkeypatch):
    out = tmp_path / "out"
    shutil.copytree(made / "work", tmp_path / "out.unfinished")
    monkeypatch.setattr(render_pool, "run_in_processes", None)  # no person is left to be rendered
    arguments = command(out, tmp_path)
    del arguments[2:4]
    assert main(arguments) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_killed_worker_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(render_pool, "run_in_processes", lambda *_, workers: (x for x in [(0, Died(-9))]))
    assert commands.render_heads(command(tmp_path / "out", tmp_path / "work")) == 1
    assert "a worker was killed" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_face_that_is_not_found_is_predicted_where_it_is_known_to_be(monkeypatch):
    found = head_record(40, SMALL)
    monkeypatch.setattr(head_records, "detect_faces", lambda _: [])
    missed = head_record(40, SMALL)
    assert (found.not_found, missed.not_found) == (0, 2)
    assert found.record.frames == missed.record.frames
    assert landmark_errors(missed.record).mean() < 0.12
    elsewhere = [detect.Face(detect.Box(0, 0, 60, 60), 3.0)]
    monkeypatch.setattr(head_records, "detect_faces", lambda _: elsewhere)
    assert head_record(40, SMALL).not_found == 2


def test_points_outside_of_the_image_are_unknown():
    points = np.array([[[0.0, 1.0], [0.5, 1.001], [-0.001, 0.5], [np.nan, np.nan]]], np.float32)
    inside = head_records._inside(points)
    np.testing.assert_array_equal(np.isnan(inside), [[[False] * 2, [True] * 2, [True] * 2, [True] * 2]])


def test_color_keeps_its_full_resolution():
    stripes = np.zeros((32, 32, 3), np.uint8)
    stripes[:, ::2] = (200, 40, 40)
    stripes[:, 1::2] = (40, 90, 200)
    jpeg = np.frombuffer(encode_frame(stripes, size=32, quality=95), np.uint8)
    decoded = cv2.imdecode(jpeg, cv2.IMREAD_COLOR_RGB).astype(int)
    assert np.abs(decoded - stripes).mean() < 8


def test_people_have_different_sources():
    assert len({source_sha256(seed) for seed in range(20)}) == 20
    assert source_sha256(3) == source_sha256(3)
    with pytest.raises(ValueError, match="reserved"):
        source_sha256(900_000)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ("--people 0", "split 'train' needs at least 1 person"),
        ("--heldout-people -1", "split 'heldout' needs at least 1 person"),
        ("--frames 0", "a person needs at least 1 frame, but 0 were asked for"),
        ("--render-size 128", "render_size must be 192 to 1024 px, where landmarks can be found, but is 128"),
        ("--size 256", r"size must be 16 px to render_size \(192 px\), but is 256"),
        ("--quality 101", "quality must be 1 to 100, but is 101"),
        ("--free-eyes 1.5", "free_eyes_share must be 0 to 1, but is 1.5"),
        ("--workers 0", r"workers \(0\) and records_per_shard \(128\) must be 1 or more"),
        ("--first-seed -1", "a person's seed must be 0 or more, got -1"),
        ("--first-seed 899999", "seed 900000 is reserved"),
        ("--first-heldout-seed 41", "seed 41 is in 'train' and in 'heldout'"),
    ],
)
def test_what_cannot_be_rendered_is_refused_at_once(tmp_path, capsys, changes, message):
    assert commands.render_heads(command(tmp_path / "out", tmp_path / "work", *changes.split())) == 1
    error = capsys.readouterr().err
    with pytest.raises(ValueError, match=message):
        raise ValueError(error)
    assert not list(tmp_path.iterdir())


def test_an_existing_folder_is_left_alone(made, capsys):
    assert commands.render_heads(command(made / "out", made / "work")) == 1
    assert "out exists: a data set needs a new folder" in capsys.readouterr().err


def test_missing_dlib_is_named_before_anything_is_rendered(tmp_path, capsys, monkeypatch):
    detect._detector.cache_clear()
    monkeypatch.setitem(sys.modules, "dlib", None)
    assert commands.render_heads(command(tmp_path / "out", tmp_path / "work")) == 1
    assert f"face detection requires dlib: {install_command('video')}" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_seed_in_no_split_is_enough_for_the_library_call(tmp_path):
    with pytest.raises(ValueError, match="split 'train' needs at least 1 person"):
        render_heads.render_heads(tmp_path / "out", {"train": Split(range(0), SMALL)})


def test_the_bundled_heads_are_those_that_this_code_renders():
    stored = VideoRecords(bundled_heads())[7]
    rendered = head_record(7, HeadSettings(TRAIN_FRAMES, FRAME_SIZE)).record
    assert rendered.source_sha256 == stored.source_sha256
    # Other processors round differently: the same person and moments are asked for, not the same bytes.
    np.testing.assert_allclose(rendered.true_landmarks, stored.true_landmarks, atol=1e-4)
    np.testing.assert_allclose(rendered.times, stored.times, atol=1e-4)
    for one, other in zip(rendered.frames, stored.frames, strict=True):
        pixels = [cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR).astype(float) for jpeg in (one, other)]
        assert np.abs(pixels[0] - pixels[1]).mean() < 1

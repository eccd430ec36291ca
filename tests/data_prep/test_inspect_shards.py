"""The contact sheet and the counts of a data set, and the proxy for head turns."""

import cv2
import numpy as np
import pytest
from clips_of_people import talk

from data_prep.inspect_shards import CELL, draw_lines, inspect_shards, main, yaw, yaw_histogram
from data_prep.shard_writer import write_data_set
from data_prep.synthetic_heads import draw_identity, head_state, render_head
from th_jax.data.schema import VideoRecord
from th_jax.media import Kind, read_image, read_sidecar


def record_of(seed):
    clip = talk(seed)
    chosen = [0, 5, 10, 15]
    frames = [cv2.imencode(".jpg", cv2.cvtColor(clip.frames[i], cv2.COLOR_RGB2BGR))[1].tobytes() for i in chosen]
    return VideoRecord(
        frames=tuple(frames),
        landmarks=clip.landmarks[chosen].astype(np.float32),
        true_landmarks=None,
        times=clip.times[chosen].astype(np.float32),
        clips=np.zeros(4, np.int64),
        crops=np.tile(np.float32([0, 0, 160]), (4, 1)),
        minimum_gap=0.5,
        identity=f"person {seed}",
        video_id=f"vidéo {seed}",
        source_sha256=f"{seed:064x}",
        licence="CC0-1.0",
    )


@pytest.fixture(scope="module")
def data_set(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inspect") / "heads"
    write_data_set(folder, {"train": [record_of(1), record_of(3)], "heldout": [record_of(4)]}, name="heads")
    return folder


def test_the_sheet_is_written_with_its_provenance(data_set, tmp_path, capsys):
    out = tmp_path / "new" / "sheet.png"
    assert main([str(data_set), "--out", str(out), "--columns", "3"]) == 0
    said = capsys.readouterr().out
    assert "data set 'heads', 160 px, 70 landmarks a frame" in said
    assert "train: 2 videos of 2 people, 8 frames (4 to 4 a video, median 4)" in said
    assert "heldout: 1 videos of 1 people, 4 frames" in said
    assert "MiB" in said
    assert "dropped" not in said, "there is no manifest"
    provenance, unchanged = read_sidecar(out)
    assert unchanged
    assert provenance.kind is Kind.FIGURE
    assert provenance.inputs == (f"{1:064x}", f"{3:064x}")
    sheet = read_image(out)
    assert sheet.shape[1] == 3 * (CELL + 6) + 6
    colors = {tuple(color) for color in sheet.reshape(-1, 3).tolist()}
    assert any(r < 20 and g > 235 and b > 235 for r, g, b in colors), "the right eye's cyan lines"
    assert len(colors) > 1000, "and the pictures beneath them"


def test_another_split_and_fewer_videos(data_set):
    assert inspect_shards(data_set, split="heldout").inputs == (f"{4:064x}",)
    one, two = inspect_shards(data_set, videos=1), inspect_shards(data_set)
    assert len(one.inputs) == 1
    assert len(two.sheet) > len(one.sheet)
    assert "head turns in train (2 of 2 videos)" in one.text, "the histogram is of all videos"


@pytest.mark.parametrize("degrees", [-25.0, -10.0, 0.0, 10.0, 25.0])
def test_the_turn_of_a_head_is_read_from_its_landmarks(degrees):
    turned = [
        render_head(draw_identity(seed), head_state(yaw=np.radians(degrees)), size=16).landmarks for seed in range(8)
    ]
    assert yaw(np.stack(turned)).mean() == pytest.approx(degrees, abs=4)


def test_unknown_points_have_no_turn_and_wide_ones_are_counted_in_the_last_bin():
    landmarks = talk(1).landmarks[:3].copy()
    landmarks[1, 30] = np.nan
    assert np.isnan(yaw(landmarks)).tolist() == [False, True, False]
    assert yaw_histogram(np.array([-89.0, 0.0, np.nan, 4.9, 80.0])).tolist() == [1, *[0] * 5, 2, *[0] * 5, 1]


def test_unknown_points_are_not_drawn():
    blank = np.zeros((64, 64, 3), np.uint8)
    landmarks = talk(1).landmarks[0].copy()
    whole = draw_lines(blank, landmarks)
    landmarks[:17] = np.nan
    without_jaw = draw_lines(blank, landmarks)
    assert not blank.any()
    assert whole[-20:].any()
    assert 0 < (without_jaw > 0).sum() < (whole > 0).sum()


def test_what_cannot_be_shown_is_said(data_set, tmp_path, capsys):
    assert main([str(tmp_path), "--out", str(tmp_path / "a.png")]) == 1
    assert "holds no data set" in capsys.readouterr().err
    assert main([str(data_set), "--out", str(tmp_path / "a.png"), "--split", "test"]) == 1
    assert "has the splits train, heldout, but no 'test'" in capsys.readouterr().err
    assert main([str(data_set), "--out", str(tmp_path / "a.png"), "--videos", "0"]) == 1
    assert "at least 1 video and 1 column, but 0 and 12 came" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())

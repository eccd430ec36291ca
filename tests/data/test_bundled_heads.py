"""The bundled heads are complete, small, and consistent with their constants."""

import cv2
import numpy as np
import pytest

from th_jax.data import records as bundled
from th_jax.data.episodes import Episodes
from th_jax.data.records import (
    FRAME_SIZE,
    HELDOUT_FRAMES,
    HELDOUT_PEOPLE,
    TRAIN_FRAMES,
    TRAIN_PEOPLE,
    VideoRecords,
    bundled_heads,
    read_videos,
)
from th_jax.data.video_list import load_video_list

COUNTS = {"train": (TRAIN_PEOPLE, TRAIN_FRAMES), "heldout": (HELDOUT_PEOPLE, HELDOUT_FRAMES)}


@pytest.fixture(scope="module", params=list(COUNTS))
def split(request):
    """Every record of a split: reading checks each CRC, and each record against index and list."""
    return request.param, [record for _, record in read_videos(bundled_heads(), request.param)]


def test_it_is_small():
    assert sum(path.stat().st_size for path in bundled_heads().iterdir()) <= 25e6


def test_people_are_counted_from_their_seeds_and_in_one_split_alone():
    videos = load_video_list(bundled_heads())
    assert (videos.name, videos.points, videos.frame_size, videos.true_landmarks) == ("heads", 70, FRAME_SIZE, True)
    seeds = {split: [int(str(e.identity).removeprefix("head-")) for e in videos.entries(split)] for split in COUNTS}
    assert seeds == {"train": list(range(192)), "heldout": list(range(100_000, 100_024))}


def test_every_record_is_whole(split):
    name, records = split
    people, frames = COUNTS[name]
    assert len(records) == people
    assert {len(record.frames) for record in records} == {frames}
    assert {(record.licence, record.minimum_gap) for record in records} == {("CC0-1.0", 1.0)}
    assert len({record.source_sha256 for record in records}) == people
    assert min(float(np.diff(np.sort(record.times)).min()) for record in records) > 0.999


def test_landmarks_are_known_and_near_the_truth(split):
    _, records = split
    detected, true = (np.concatenate([getattr(r, f) for r in records]) for f in ("landmarks", "true_landmarks"))
    assert np.isfinite(true).all(), "pupils included"
    assert np.isnan(detected[:, 68:]).all(), "dlib has no points for pupils"
    assert np.isfinite(detected[:, :68]).all(-1).mean() > 0.995
    errors = np.linalg.norm(detected[:, :68] - true[:, :68], axis=-1)
    eyes = np.linalg.norm(true[:, 45] - true[:, 36], axis=-1)[:, None]
    assert 0.01 < np.nanmedian(errors / eyes) < 0.05
    assert np.nanmean(errors / eyes) < 0.07
    for pupil, eye in ((68, slice(36, 42)), (69, slice(42, 48))):
        offset = np.linalg.norm(true[:, pupil] - true[:, eye].mean(1), axis=-1)
        assert (offset < 0.2 * eyes[:, 0]).mean() > 0.99


def test_every_frame_shows_something(split):
    _, records = split
    for record in records:
        for jpeg in (record.frames[0], record.frames[-1]):
            frame = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR_RGB)
            assert frame.shape == (FRAME_SIZE, FRAME_SIZE, 3)
            assert frame.std() > 15


def test_poses_vary_within_a_person(split):
    _, records = split
    for record in records:
        nose = record.true_landmarks[:, 30, 0]
        assert nose.max() - nose.min() > 0.08, record.identity


def test_episodes_come_from_it():
    episodes = Episodes(VideoRecords(bundled_heads()), image_size=64, batch_size=4, seed=1, landmarks="true")
    batch = episodes.batch(0)
    assert batch.source_frames.shape == (4, 8, 64, 64, 3)
    assert np.isfinite(batch.source_landmarks).all()
    assert episodes.episodes_per_epoch == TRAIN_PEOPLE


def test_a_missing_data_set_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(bundled, "HEADS_FOLDER", tmp_path / "heads" / "shards")
    with pytest.raises(FileNotFoundError, match=r"missing from .*heads/LICENSE-shards\.md"):
        bundled_heads()

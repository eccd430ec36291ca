"""Held-out frames: a deterministic choice, sources separate from targets, and one-sentence errors."""

from pathlib import Path

import numpy as np
import pytest

from th_jax.data.episodes import decode_frame
from th_jax.data.records import VideoRecords, bundled_heads
from th_jax.data.video_list import VideoList, load_video_list, save_video_list
from th_jax.evaluation.people import ChosenFrames, choose_frames, load_heldout


@pytest.fixture(scope="module")
def records() -> VideoRecords:
    return VideoRecords(bundled_heads(), "heldout")


def with_list(folder: Path, videos: VideoList) -> VideoRecords:
    """The bundled held-out shards under another list."""
    save_video_list(videos, folder)
    for path in bundled_heads().glob("heads-heldout*"):
        (folder / path.name).symlink_to(path)
    return VideoRecords(folder, "heldout")


def test_sources_and_targets_are_apart_and_targets_spread(records: VideoRecords) -> None:
    chosen = choose_frames(records, sources=32, targets=4)
    assert len(chosen) == 24
    for one in chosen:
        assert one.targets == (8, 24, 40, 56), "the middle of each quarter of 64 frames"
        assert len(set(one.sources)) == 32
        assert not set(one.sources) & set(one.targets)
        assert set(one.sources) <= set(range(64))
    assert len({one.sources for one in chosen}) == 24, "each person has other sources"
    assert chosen[0].identity == "head-100000"


def test_every_frame_may_be_needed(records: VideoRecords) -> None:
    (one,) = choose_frames(records, people=1, sources=32, targets=32)
    assert sorted(one.sources + one.targets) == list(range(64))


def test_the_choice_depends_on_nothing_but_its_arguments(records: VideoRecords) -> None:
    chosen = choose_frames(records)
    assert choose_frames(VideoRecords(bundled_heads(), "heldout")) == chosen
    assert choose_frames(records, people=3) == chosen[:3]
    other = choose_frames(records, seed=1)
    assert [one.targets for one in other] == [one.targets for one in chosen]
    assert all(one.sources != two.sources for one, two in zip(chosen, other, strict=True))


def test_frames_and_landmarks_are_those_chosen(records: VideoRecords) -> None:
    held = load_heldout(records, image_size=128, people=2, sources=3, targets=2)
    assert [part.shape for part in held] == [(2, 3, 128, 128, 3), (2, 3, 70, 2), (2, 2, 128, 128, 3), (2, 2, 70, 2)]
    chosen: ChosenFrames = choose_frames(records, people=2, sources=3, targets=2)[1]
    record = records.read(1)
    np.testing.assert_array_equal(held.source_landmarks[1], record.true_landmarks[list(chosen.sources)])
    np.testing.assert_array_equal(held.target_landmarks[1], record.true_landmarks[list(chosen.targets)])
    for number, t in enumerate(chosen.targets):
        np.testing.assert_array_equal(held.target_frames[1, number], decode_frame(record.frames[t], size=128))


def test_detected_landmarks(records: VideoRecords) -> None:
    held = load_heldout(records, image_size=16, people=1, landmarks="detected")
    assert np.isnan(held.target_landmarks[..., 68:, :]).all(), "the detector knows no pupils"
    assert np.isfinite(held.target_landmarks[..., :68, :]).all()


def test_impossible_choices(records: VideoRecords) -> None:
    with pytest.raises(ValueError, match="'head-100000' has 64 frames, too few for 61 sources and 4"):
        choose_frames(records, sources=61)
    with pytest.raises(ValueError, match=r"expected 25 people, but VideoRecords\('heads', 'heldout', 24 videos\)"):
        choose_frames(records, people=25)
    with pytest.raises(ValueError, match="1 or more, got None, 0 and 4"):
        choose_frames(records, sources=0)
    for size in (0, -3):
        with pytest.raises(ValueError, match=f"image_size .* got {size}"):
            load_heldout(records, image_size=size)
    with pytest.raises(ValueError, match="128 px of 'heads', got 256"):
        load_heldout(records, image_size=256)
    with pytest.raises(ValueError, match=r"landmarks .* got 'dlib'"):
        load_heldout(records, image_size=64, landmarks="dlib")


def test_an_empty_split(tmp_path: Path) -> None:
    videos = load_video_list(bundled_heads())
    forgotten = videos.forget([str(entry.video_id) for entry in videos.entries("heldout")])
    with pytest.raises(ValueError, match=r"'heldout', 0 videos\) is empty"):
        load_heldout(with_list(tmp_path, forgotten), image_size=64)


def test_true_landmarks_that_are_not_there(tmp_path: Path) -> None:
    videos = load_video_list(bundled_heads())._replace(true_landmarks=False)
    with pytest.raises(ValueError, match="'heads' has no true landmarks"):
        load_heldout(with_list(tmp_path, videos), image_size=64)

"""Which times of a clip are looked at, what is seen there, and which looks become frames."""

import itertools

import numpy as np
import pytest

from data_prep.build.quality import Reason, Thresholds
from data_prep.build.sample_frames import Look, look_at_video, seconds_between_looks, spread, without_duplicates
from tests.data_prep.clips_of_people import FPS, SIZE, talk, write_frames, write_talk
from th_jax.faces import face_size
from th_jax.media import open_video

ANY = Thresholds()


def looks(path, *, step=0.4, most=100, descriptors=False):
    with open_video(path) as video:
        return list(look_at_video(video, step=step, most=most, thresholds=ANY, descriptors=descriptors))


@pytest.mark.parametrize(("seed", "take"), [(1, 1), (2, 2)])
def test_landmarks_are_true_although_looks_are_sparse(tmp_path, seed, take):
    """Between two looks the head turns far: landmarks that start where it was settle beside the face."""
    seen = looks(write_talk(tmp_path / "a.mp4", seed, take=take))
    assert [round(look.time, 2) for look in seen] == [0.0, 0.4, 0.8, 1.2]
    truth = talk(seed, take=take)
    for look in seen:
        assert look.reason is None
        true = truth.landmarks[round(look.time * FPS), :68] * SIZE
        inner = slice(27, 68)  # the nose, the eyes and the mouth: a jaw seen from the side is ambiguous
        error = np.linalg.norm(look.landmarks[inner] - true[inner], axis=-1).mean() / face_size(true)
        assert error < 0.035


def test_one_face_is_one_segment_described_once(tmp_path):
    seen = looks(write_talk(tmp_path / "a.mp4", 1), descriptors=True)
    assert {look.segment for look in seen} == {0}
    assert [look.descriptor is not None for look in seen] == [True, False, False, False]
    assert seen[0].descriptor.shape == (128,)


def test_each_frame_is_looked_at_once_and_no_more_than_asked_for(tmp_path):
    path = write_talk(tmp_path / "a.mp4", 1)
    assert [round(look.time, 2) for look in looks(path, step=0.04)] == [round(i / FPS, 2) for i in range(16)]
    assert len(looks(path, step=0.1, most=5)) == 5


def test_frames_without_a_face_say_so(tmp_path):
    path = write_frames(tmp_path / "gray.mp4", np.full((4, 96, 96, 3), 128, np.uint8))
    assert [(look.reason, look.landmarks) for look in looks(path)] == [(Reason.NO_FACE, None)]


def test_long_videos_are_looked_at_no_oftener_than_short_ones():
    assert seconds_between_looks(8.0, fps=25, gap=1.0, frames=32) == pytest.approx(0.5, abs=0.03)
    assert seconds_between_looks(12_800.0, fps=25, gap=1.0, frames=32) == 100.0


@pytest.mark.parametrize("fps", [10.0, 23.976, 25.0, 29.97, 60.0])
def test_two_steps_are_never_nearer_than_the_gap(fps):
    """A frame's own time lies up to one frame before the one that was asked for."""
    step = seconds_between_looks(8.0, fps=fps, gap=1.0, frames=32)
    times = np.floor(np.arange(0, 8, step) * fps + 1e-9) / fps
    assert (times[2:] - times[:-2]).min() >= 1.0


def test_chosen_looks_are_apart_and_spread_over_all_clips():
    times = [(clip, t / 2) for clip in range(3) for t in range(20)]
    chosen = [times[i] for i in spread(times, gap=1.0, frames=6)]
    assert [clip for clip, _ in chosen] == [0, 0, 1, 1, 2, 2]
    everything = [times[i] for i in spread(times, gap=1.0, frames=100)]
    assert len(everything) == 30
    for one, other in itertools.pairwise(everything):
        assert one[0] != other[0] or other[1] - one[1] >= 1.0
    assert len(spread([], gap=1.0, frames=5)) == 0
    assert spread([(0, np.nan), (1, np.nan)], gap=1.0, frames=5).tolist() == [0, 1]


def test_what_was_shown_before_is_a_duplicate_in_later_clips_too():
    rng = np.random.default_rng(0)
    one, other = rng.uniform(0, 255, (2, 64, 64)).astype(np.float32)
    earlier: list[np.ndarray] = []

    def marked(*patches):
        seen = [Look(0.0, 9, 9, 0, patch=patch) for patch in patches]
        return [look.reason for look in without_duplicates(seen, earlier=earlier, thresholds=ANY)]

    assert marked(one, other, one + 0.3) == [None, None, Reason.DUPLICATE_FRAME]
    assert marked(other, one + 5.0) == [Reason.DUPLICATE_FRAME, None]
    assert len(earlier) == 3

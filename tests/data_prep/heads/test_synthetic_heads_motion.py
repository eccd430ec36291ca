"""The motion of synthetic heads: continuous, varied, and sampled a second apart."""

import numpy as np
import pytest

from data_prep.heads.mesh import load_mesh
from data_prep.heads.motion import WIDEST_GAZE, WIDEST_PITCH, WIDEST_ROLL, WIDEST_YAW, choose_spread, free_eyes, talk
from data_prep.heads.people import render_clip, render_person
from data_prep.tools.contact_sheet import contact_sheet


def test_the_same_seed_talks_the_same_way_and_takes_differ():
    first, again = talk(4, seconds=5, fps=30), talk(4, seconds=5, fps=30)
    np.testing.assert_array_equal(first.units, again.units)
    np.testing.assert_array_equal(first.angles, again.angles)
    assert not np.array_equal(first.angles, talk(4, seconds=5, fps=30, take=1).angles)
    assert not np.array_equal(first.angles, talk(5, seconds=5, fps=30).angles)


def test_motion_stays_in_its_limits_and_uses_them():
    motions = [talk(seed, seconds=60, fps=30) for seed in range(8)]
    angles = np.concatenate([motion.angles for motion in motions])
    units = np.concatenate([motion.units for motion in motions])
    for axis, widest in enumerate((WIDEST_YAW, WIDEST_PITCH, WIDEST_ROLL)):
        assert np.abs(angles[:, axis]).max() <= widest + 1e-9
        assert np.abs(angles[:, axis]).max() > 0.8 * widest
    assert units.min() >= 0
    assert units.max() <= 1
    index = load_mesh().unit_index
    assert units[:, index["jawOpen"]].max() > 0.5
    shut = units[:, index["eyeBlinkLeft"]] > 0.5
    assert 0.01 < shut.mean() < 0.2
    blinks_a_minute = (np.diff(shut.astype(int)) == 1).sum() / 8
    assert 8 < blinks_a_minute < 30


def test_heads_turn_smoothly_while_eyes_jump():
    motion = talk(2, seconds=60, fps=60)
    speed = np.abs(np.diff(motion.angles, axis=0)) * 60  # radians a second
    assert speed[:, :3].max() < 5
    assert speed[:, 3].max() > 2.5, "saccades"


def test_jaws_open_at_the_rate_of_syllables():
    motion = talk(3, seconds=60, fps=60)
    jaw = motion.units[:, load_mesh().unit_index["jawOpen"]]
    opening = (jaw[1:-1] > jaw[:-2]) & (jaw[1:-1] >= jaw[2:]) & (jaw[1:-1] > 0.1)
    assert 1.0 < opening.sum() / 60 < 7.0


def test_chosen_moments_are_spread_in_time_and_pose():
    motion = talk(6, seconds=42, fps=30)
    chosen = choose_spread(motion, count=16)
    assert len(set(chosen.tolist())) == 16
    assert np.diff(motion.times[chosen]).min() >= 1.0 - 1e-9
    even = np.linspace(0, len(motion.times) - 1, 16).astype(int)
    assert motion.angles[chosen, 0].std() > motion.angles[even, 0].std()
    with pytest.raises(ValueError, match=r"16 moments at least 1.0 s apart do not fit into 4.9"):
        choose_spread(talk(6, seconds=5, fps=10), count=16)


def test_free_eyes_look_anywhere_with_any_lids():
    motion = talk(6, seconds=600, fps=10)
    moments = np.arange(0, len(motion.times), 2)
    freed = free_eyes(motion, moments, np.random.default_rng(1), share=1.0)
    index = load_mesh().unit_index

    def lids_and_pitch(of):
        lids = of.units[moments, index["eyeWideLeft"]] - of.units[moments, index["eyeBlinkLeft"]]
        return lids, of.angles[moments, 4]

    lids, pitch = lids_and_pitch(freed)
    assert abs(np.corrcoef(lids, pitch)[0, 1]) < 0.05
    np.testing.assert_allclose([lids.min(), lids.max()], [-0.5, 1.0], atol=0.01)
    np.testing.assert_allclose([pitch.min(), pitch.max()], [-0.6 * WIDEST_GAZE, 0.6 * WIDEST_GAZE], atol=0.01)
    assert pitch.std() > 1.5 * lids_and_pitch(motion)[1].std()
    # Head, mouth, and all moments that are not chosen stay.
    np.testing.assert_array_equal(freed.angles[:, :3], motion.angles[:, :3])
    np.testing.assert_array_equal(freed.units[:, index["jawOpen"]], motion.units[:, index["jawOpen"]])
    np.testing.assert_array_equal(freed.angles[1::2], motion.angles[1::2])
    some = free_eyes(motion, moments, np.random.default_rng(1), share=0.3)
    assert 0.25 < (some.angles != motion.angles).any(1)[moments].mean() < 0.35


def test_a_person_s_frames_are_a_second_apart_and_differ():
    person = render_person(8, frames=6, size=32)
    assert person.frames.shape == (6, 32, 32, 3)
    assert person.landmarks.shape == (6, 70, 2)
    assert np.diff(person.times).min() >= 1.0 - 1e-9
    assert np.ptp(person.landmarks[:, 30, 0]) > 0.05, "the nose is seen in many places"
    again = render_person(8, frames=6, size=32)
    np.testing.assert_array_equal(person.frames, again.frames)


def test_a_clip_is_continuous():
    clip = render_clip(8, seconds=1.0, fps=25, size=32)
    assert clip.frames.shape == (25, 32, 32, 3)
    np.testing.assert_allclose(np.diff(clip.times), 0.04)
    steps = np.linalg.norm(np.diff(clip.landmarks[:, :36], axis=0), axis=-1)
    assert steps.max() < 0.06
    assert steps.max() > 0.0005, "a person talks"


@pytest.mark.parametrize(("seconds", "fps"), [(0, 25), (1, 0), (-1, 25)])
def test_motion_needs_a_length_and_a_rate(seconds, fps):
    with pytest.raises(ValueError, match="must be positive"):
        render_clip(1, seconds=seconds, fps=fps, size=32)


def test_contact_sheets_have_a_row_a_person():
    plain = contact_sheet(1, people=2, frames=3, size=24)
    assert plain.shape == (48, 72, 3)
    marked = contact_sheet(1, people=2, frames=3, size=24, landmarks=True)
    changed = (plain != marked).any(-1)
    assert 20 < changed.sum() < 6 * 70 + 1
    assert (marked[changed] == 255).all()
    with pytest.raises(ValueError, match="people must be 1 or more"):
        contact_sheet(1, people=0, frames=1, size=24)

"""The pose of cross-driven frames is read by each person's own 3D face."""

import numpy as np

from data_prep.heads.identity import draw_identity
from data_prep.heads.motion import head_state, varied_states
from data_prep.heads.person import prepare
from data_prep.heads.retarget_truth import points_of_states
from th_jax.evaluation.metrics import pose_error, rotation_angle
from th_jax.evaluation.protocol.measure import head_pose


def test_different_people_in_equal_poses_agree() -> None:
    states = varied_states(7, count=12)
    first, second = (points_of_states(prepare(draw_identity(seed)), states).landmarks for seed in (100_001, 100_005))
    own = rotation_angle(head_pose(first, known=first), head_pose(second, known=second))
    assert own.mean() < 1.5
    assert pose_error(first, second).mean() > 2 * own.mean()  # with one face for all


def test_a_turn_is_read_as_one_and_unknown_frames_are_nan() -> None:
    person = prepare(draw_identity(100_001))
    known = points_of_states(person, varied_states(7, count=8)).landmarks
    turned = points_of_states(person, [head_state(), head_state(yaw=np.radians(20.0))]).landmarks
    pose = head_pose(np.concatenate([turned, np.full_like(turned[:1], np.nan)]), known=known)
    np.testing.assert_allclose(rotation_angle(pose[:1], pose[1:2]), 20, atol=1)
    assert np.isnan(pose[2]).all()
    assert np.isnan(head_pose(turned, known=np.full_like(known, np.nan))).all()

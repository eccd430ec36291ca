"""Rendered heads: what is seen, what the true landmarks say about it, and who is who."""

import itertools

import numba
import numpy as np
import pytest

from data_prep.heads.identity import check_seed, draw_identity
from data_prep.heads.kernels import kernel
from data_prep.heads.mesh import load_mesh
from data_prep.heads.motion import head_state
from data_prep.heads.people import Style, render_clip, render_person
from data_prep.heads.person import prepare
from data_prep.heads.render import render_head
from data_prep.heads.shape import shaped_vertices
from data_prep.heads.skin import paint_skin

SEED = 7
REST = head_state()


def landmarks(state, *, seed=SEED):
    return render_head(draw_identity(seed), state, size=32).landmarks


def hair_top(frame):
    """The first row in which something stands before the background (which is the same along a row)."""
    differs = np.abs(frame.astype(int) - frame[:, :1]).max(-1) > 14
    return int(differs.any(axis=1).argmax()) / len(frame)


def test_same_seed_gives_the_same_bytes_even_after_forgetting():
    first = render_head(draw_identity(SEED), REST, size=48)
    prepare.cache_clear()
    paint_skin.cache_clear()
    render_head(draw_identity(SEED + 1), REST, size=48)
    second = render_head(draw_identity(SEED), REST, size=48)
    np.testing.assert_array_equal(first.frame, second.frame)
    np.testing.assert_array_equal(first.landmarks, second.landmarks)


def test_frame_and_landmarks_have_their_types_and_range():
    rendering = render_head(draw_identity(SEED), REST, size=40)
    assert rendering.frame.shape == (40, 40, 3)
    assert rendering.frame.dtype == np.uint8
    assert rendering.landmarks.shape == (70, 2)
    assert rendering.landmarks.dtype == np.float32
    assert rendering.visible.all()


def test_landmarks_do_not_depend_on_the_size():
    small, large = (render_head(draw_identity(SEED), REST, size=size).landmarks for size in (32, 96))
    np.testing.assert_allclose(small, large, atol=1e-6)


def test_points_stand_in_the_ibug_order():
    points = landmarks(REST)
    x, y = points.T
    assert (np.diff(x[:17]) > 0).all(), "the jaw runs from the image's left to its right"
    assert (np.diff(x[17:27]) > 0).all()
    assert (np.diff(y[27:31]) > 0).all(), "the nose's bridge runs down"
    assert x[36] < x[39] < x[27] < x[42] < x[45]
    assert x[48] < x[51] < x[54]
    assert y[17:27].max() < y[36:48].min() < y[36:48].max() < y[33] < y[51] < y[57] < y[8]
    for pupil, eye in ((68, range(36, 42)), (69, range(42, 48))):
        corners = points[list(eye)]
        assert (corners.min(0) < points[pupil]).all()
        assert (points[pupil] < corners.max(0)).all()


def test_pupils_are_dark_where_the_landmarks_say():
    frames = [render_head(draw_identity(seed), REST, size=192) for seed in (3, 5, 9, 12)]
    for rendering in frames:
        column, row = (rendering.landmarks[68] * 192).astype(int)
        around = rendering.frame[row - 12 : row + 13, column - 12 : column + 13].mean()
        assert rendering.frame[row, column].mean() < min(0.6 * around, 60)


def test_jaw_opens_the_mouth_and_carries_the_chin():
    shut, open_ = landmarks(REST), landmarks(head_state(expression={"jawOpen": 0.8}))
    assert shut[66, 1] - shut[62, 1] < 0.02
    assert open_[66, 1] - open_[62, 1] > 0.04
    assert open_[8, 1] - shut[8, 1] > 0.02
    np.testing.assert_allclose(open_[36:48], shut[36:48], atol=0.004)


def test_an_open_mouth_is_dark_and_red_inside():
    for seed in (3, 5, 7):
        rendering = render_head(draw_identity(seed), head_state(expression={"jawOpen": 1.0}), size=128)
        places = (rendering.landmarks[[[62, 66], [3, 48]]].mean(1) * 128).astype(int)
        inside, cheek = rendering.frame[places[:, 1], places[:, 0]].astype(float)
        assert inside[1] < 0.85 * cheek[1]
        assert inside[0] / inside[1] > 1.2 * cheek[0] / cheek[1]


def test_blink_closes_the_eye_landmarks():
    def gap(points):
        return (points[[40, 41, 46, 47], 1] - points[[38, 37, 44, 43], 1]).mean()

    shut = landmarks(head_state(expression={"eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0}))
    assert gap(shut) < 0.45 * gap(landmarks(REST))


def test_one_sided_units_move_the_side_of_the_image_opposite_to_their_name():
    wink = landmarks(head_state(expression={"eyeBlinkLeft": 1.0}))
    rest = landmarks(REST)
    assert np.abs(wink[[43, 44]] - rest[[43, 44]]).max() > 0.005  # the person's left is the image's right
    np.testing.assert_allclose(wink[[37, 38]], rest[[37, 38]], atol=1e-4)


@pytest.mark.parametrize("axis", [0, 1])
def test_gaze_moves_the_pupils_alone(axis):
    gaze = {0: {"gaze_yaw": 0.3}, 1: {"gaze_pitch": -0.25}}[axis]
    moved, rest = landmarks(head_state(**gaze)), landmarks(REST)
    assert (moved[68:, axis] - rest[68:, axis] > 0.006).all(), "to the right, or down"
    np.testing.assert_allclose(moved[:36], rest[:36], atol=0.002)


def test_yaw_pitch_and_roll_have_their_signs():
    rest = landmarks(REST)
    nose = [landmarks(head_state(yaw=yaw))[30, 0] for yaw in (-0.5, 0.0, 0.5)]
    assert nose[0] < rest[30, 0] - 0.05
    assert nose[2] > rest[30, 0] + 0.05
    assert landmarks(head_state(pitch=0.2))[30, 1] < rest[30, 1] - 0.02
    clockwise = landmarks(head_state(roll=0.2))
    assert clockwise[45, 1] - clockwise[36, 1] > 0.03


def test_a_turned_head_hides_its_far_side():
    turned = render_head(draw_identity(SEED), head_state(yaw=0.6), size=64)
    assert not turned.visible[[14, 15, 16]].any()
    assert turned.visible[[2, 3, 4, 30, 48]].all()


def test_heads_fill_the_frame_and_stay_inside_it():
    for seed in range(16):
        rendering = render_head(draw_identity(seed), REST, size=48)
        fill = rendering.landmarks[8, 1] - hair_top(rendering.frame)
        assert 0.55 <= fill <= 0.85, f"seed {seed} fills {fill:.2f}"
        assert hair_top(rendering.frame) > 0.02


def test_landmarks_stay_inside_the_image_in_every_pose():
    for seed, yaw, pitch in itertools.product(range(0, 60, 10), (-0.52, 0.52), (-0.23, 0.23)):
        points = landmarks(head_state(expression={"jawOpen": 1.0}, yaw=yaw, pitch=pitch), seed=seed)
        assert points.min() > 0.02
        assert points.max() < 0.98


def test_people_differ_from_each_other():
    frames = [render_head(draw_identity(seed), REST, size=32).frame.astype(float) for seed in range(16)]
    for (i, first), (j, second) in itertools.combinations(enumerate(frames), 2):
        face = np.abs(first - second)[10:22, 11:21]  # neither hair nor background
        assert face.mean() > 3, f"seeds {i} and {j} look alike"


def test_backgrounds_are_plain_along_each_row():
    frame = render_head(draw_identity(SEED), REST, size=64).frame
    assert (frame[:4] == frame[:4, :1]).all()
    assert (frame[:20, :3] == frame[:20, :1]).all()


@pytest.mark.parametrize("call", [draw_identity, check_seed])
def test_reserved_seeds_are_refused(call):
    with pytest.raises(ValueError, match=r"seed 900000 is reserved.*allow_reserved=True"):
        call(900_000)
    check_seed(900_000, allow_reserved=True)


@pytest.mark.parametrize("style", Style)
def test_reserved_seeds_are_refused_in_every_style(style):
    with pytest.raises(ValueError, match="reserved"):
        render_person(950_000, frames=1, size=32, style=style)
    with pytest.raises(ValueError, match="reserved"):
        render_clip(950_000, seconds=1, fps=1, size=32, style=style)


def test_compiling_leaves_other_users_of_numba_alone():
    before = numba.config.CACHE_DIR
    double = kernel(lambda x: 2 * x)
    assert double(21) == 42
    assert before == numba.config.CACHE_DIR


def test_invalid_requests_name_the_value():
    with pytest.raises(ValueError, match="0 or more, got -1"):
        draw_identity(-1)
    with pytest.raises(ValueError, match=r"16 to 1024 px, but is 8"):
        render_head(draw_identity(SEED), REST, size=8)
    with pytest.raises(ValueError, match="unknown face unit 'jawOpened'"):
        head_state(expression={"jawOpened": 1.0})
    with pytest.raises(ValueError, match="frames must be 1 or more"):
        render_person(SEED, frames=0, size=32)
    with pytest.raises(ValueError, match="unknown shape target 'nose/none'"):
        shaped_vertices(load_mesh(), (("nose/none", 1.0),))

"""Rendered people as a webcam sees them: the same truth as drawn ones, other images, and drawn ones left alone."""

import cv2
import numpy as np
import pytest

from data_prep.heads.backdrop import draw_backdrop, linear
from data_prep.heads.camera import photograph
from data_prep.heads.command import main
from data_prep.heads.environment import DIRECTIONS, irradiance, radiance, sphere
from data_prep.heads.identity import draw_identity
from data_prep.heads.mesh import CHILDREN, load_children, load_mesh
from data_prep.heads.motion import SAMPLING_RATE, WIDEST_GAZE, WIDEST_YAW, choose_spread, head_state, talk
from data_prep.heads.people import Style, render_clip
from data_prep.heads.photo import draw_photo
from data_prep.heads.photo_identity import draw_photo_identity, is_male
from data_prep.heads.photo_person import loose_hairs, sitter, turned_further
from data_prep.heads.photo_render import render_photo
from data_prep.heads.records import HeadSettings, head_name, source_sha256
from data_prep.heads.render import pose, render_head, true_landmarks
from data_prep.heads.shape import shaped_vertices
from th_jax.data.records import bundled_heads, read_videos
from th_jax.data.video_list import load_video_list

SEED = 7
REST = head_state()


def shot(seed=SEED, state=REST, *, size=48, moment=0):
    return render_photo(sitter(seed), state, size=size, moment=moment)


def test_drawn_people_are_the_bundled_ones_still():
    record = next(record for _, record in read_videos(bundled_heads(), "train"))
    seed = int(record.identity.removeprefix("head-"))
    assert source_sha256(seed) == record.source_sha256
    motion = talk(seed, seconds=2.5 * len(record.frames) + 2, fps=SAMPLING_RATE)
    moments = choose_spread(motion, count=len(record.frames))
    assert record.true_landmarks is not None
    for i in (0, 9):
        rendering = render_head(draw_identity(seed), motion.state(int(moments[i])), size=256)
        np.testing.assert_allclose(rendering.landmarks, record.true_landmarks[i], atol=1e-5)
        stored = cv2.imdecode(np.frombuffer(record.frames[i], np.uint8), cv2.IMREAD_COLOR_RGB).astype(float)
        now = cv2.resize(rendering.frame, (128, 128), interpolation=cv2.INTER_AREA)
        assert np.abs(stored - now).mean() < 2, "JPEG loses about 1; another light or background changes 10"


def test_same_seed_and_moment_give_the_same_bytes_even_after_forgetting():
    first = shot()
    sitter.cache_clear()
    shot(SEED + 1)
    second = shot()
    np.testing.assert_array_equal(first.frame, second.frame)
    np.testing.assert_array_equal(first.landmarks, second.landmarks)


def test_moments_differ_by_noise_alone():
    first, second = (shot(moment=moment, size=128).frame.astype(float) for moment in (0, 1))
    difference = np.abs(first - second)
    assert 0.1 < difference.mean() < 12


def test_a_clip_keeps_its_background():
    clip = render_clip(SEED, seconds=1.0, fps=4, size=64, style=Style.PHOTO).frames.astype(float)
    corner = clip[:, 2:14, 2:14]
    assert np.abs(corner - corner.mean(0)).mean() < 8
    assert np.abs(corner.mean((1, 2)) - corner.mean((0, 1, 2))).max() < 6


def test_landmarks_are_those_of_the_posed_mesh():
    person = sitter(SEED).person
    state = head_state(expression={"jawOpen": 0.6}, yaw=0.4, gaze_yaw=-0.2)
    expected = true_landmarks(person, pose(person, state))
    np.testing.assert_array_equal(shot(state=state).landmarks, expected[:, :2])
    larger = shot(state=state, size=96)
    np.testing.assert_allclose(larger.landmarks, expected[:, :2], atol=1e-6)


def test_pupils_are_dark_where_the_landmarks_say():
    dark = 0
    for seed in (3, 5, 9, 12):
        rendering = shot(seed, size=192)
        for pupil in (68, 69):
            column, row = (rendering.landmarks[pupil] * 192).astype(int)
            around = rendering.frame[row - 12 : row + 13, column - 12 : column + 13].astype(float).mean()
            dark += rendering.frame[row - 1 : row + 2, column - 1 : column + 2].astype(float).mean() < 0.75 * around
    assert dark >= 7


def test_heads_stand_in_different_places_and_sizes():
    faces = [shot(seed, size=16).landmarks[:68] for seed in range(12)]
    middles = np.array([(face.min(0) + face.max(0)) / 2 for face in faces])
    heights = np.array([np.ptp(face[:, 1]) for face in faces])
    assert np.ptp(middles[:, 0]) > 0.05
    assert heights.max() / heights.min() > 1.1


def test_even_light_reaches_open_surfaces_with_its_own_strength():
    normals = sphere(40)
    still = sphere(DIRECTIONS)
    light = np.full((2, DIRECTIONS, 3), 0.7, np.float32)
    lit = np.empty((40, 4), np.float32)
    follows = np.linspace(0, 1, 40, dtype=np.float32)[:, None]
    irradiance(normals, follows, np.ones((40, DIRECTIONS), np.float32), np.stack([still, still]), light, lit)
    np.testing.assert_allclose(lit[:, :3], 0.7, rtol=0.03)
    np.testing.assert_allclose(lit[:, 3], 1.0, rtol=1e-5)


def test_a_lamp_lights_what_faces_it_with_its_color():
    environment = sitter(SEED).photo.environment
    lamp = environment.lamps[1]._replace(azimuth=0.0, elevation=0.0, color=(1.0, 0.5, 0.2), sharpness=4.0)
    dark = environment._replace(lamps=(lamp, lamp), sky=(0, 0, 0), floor=(0, 0, 0))
    directions = sphere(4000)
    received = 4 / 4000 * (np.maximum(directions[:, 2:], 0) * radiance(dark, directions)).sum(0)
    np.testing.assert_allclose(received, lamp.color, rtol=0.15)


def test_noise_grows_with_light_and_is_the_camera_s():
    camera = sitter(SEED).photo.camera._replace(
        exposure=0.0, red=1.0, blue=1.0, contrast=0.0, black=0.0, saturation=1.0, vignetting=0.0, defocus=0.0,
        sharpening=0.0, shot=0.05, read=0.0, grain=0.0, chroma=1.0, jpeg=0, shake=0.0,
    )  # fmt: skip
    for light in (0.05, 0.4):
        scene = np.full((128, 128, 3), light, np.float32)
        frame = photograph(
            scene, camera, np.random.default_rng(0), head=np.ones((128, 128), np.float32), velocity=np.zeros(2)
        )
        measured = linear(frame / 255)
        assert measured.mean() == pytest.approx(light, rel=0.05)
        assert measured.std() == pytest.approx(0.05 * light**0.5, rel=0.1)


def test_backgrounds_lose_power_with_frequency_as_photographs_do():
    for seed in range(5):
        backdrop = sitter(seed).photo.backdrop
        power = np.abs(np.fft.fft2(draw_backdrop(backdrop, 128).mean(-1))) ** 2
        frequency = np.hypot(np.fft.fftfreq(128)[:, None], np.fft.fftfreq(128)[None]) * 128
        low = power[(frequency > 1) & (frequency < 4)].mean()
        high = power[(frequency > 16) & (frequency < 32)].mean()
        assert low > 20 * high


def test_turned_heads_turn_further_and_keep_the_gaze_on_the_viewer():
    motion = talk(3, seconds=20, fps=10)
    further = turned_further(motion, 1.5)
    np.testing.assert_allclose(further.angles[:, 0], 1.5 * motion.angles[:, 0])
    assert np.abs(further.angles[:, 0]).max() <= 1.5 * WIDEST_YAW + 1e-9
    assert np.abs(further.angles[:, 3]).max() <= WIDEST_GAZE
    looking = np.corrcoef(further.angles[:, 0], further.angles[:, 3])[0, 1]
    assert looking < -0.5


def test_both_sexes_are_drawn_and_neither_is_a_stranger_of_the_other_style():
    assert {is_male(seed) for seed in range(8)} == {True, False}
    assert head_name(3, style=Style.PHOTO) != head_name(3)
    assert source_sha256(3, style=Style.PHOTO) != source_sha256(3)


def test_children_have_larger_eyes_in_shorter_faces_and_neither_beards_nor_gray_hair():
    adult, child = (
        shaped_vertices(
            load_mesh(), ((f"ancestry/caucasian-female-{age}", 1.0), (f"weight/female-{age}-averageweight", 1.0))
        )
        for age in ("young", "child")
    )
    mesh = load_mesh()
    points = [(v[mesh.landmark_vertices] * mesh.landmark_weights[..., None]).sum(1) for v in (adult, child)]
    heights = [point[27, 1] - point[8, 1] for point in points]
    eyes = [np.linalg.norm(point[39] - point[36]) for point in points]
    assert eyes[1] / heights[1] > 1.05 * eyes[0] / heights[0]
    children = [
        identity
        for identity in map(draw_photo_identity, range(60))
        if any("-child" in name for name, _ in identity.shape)
    ]
    assert 3 <= len(children) <= 15
    for identity in children:
        assert identity.beard[:3] == (0, 0, 0)
        assert identity.skin.wrinkles == 0
        assert identity.hair.style != "bald"


def test_a_damaged_file_of_children_is_refused(tmp_path):
    (tmp_path / "children.npz").write_bytes(CHILDREN.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"SHA-256 .* update CHILDREN_SHA256 in mesh.py"):
        load_children(path=tmp_path / "children.npz")
    with pytest.raises(FileNotFoundError, match=r"none.npz is missing"):
        load_children(path=tmp_path / "none.npz")


def wearer():
    """The first person with glasses."""
    return next(seed for seed in range(60) if draw_photo(draw_photo_identity(seed), male=True).glasses is not None)


def test_one_in_six_wears_glasses_and_they_sit_around_the_eyes_and_before_the_face():
    share = np.mean([draw_photo(draw_photo_identity(seed), male=True).glasses is not None for seed in range(200)])
    assert 0.10 < share < 0.25
    who = sitter(wearer())
    frame, person = who.frame, who.person
    assert frame is not None
    landmarks = (person.neutral[person.landmark_vertices] * person.landmark_weights[..., None]).sum(1)
    for points, lens in ((landmarks[42:48], frame.lens[:28]), (landmarks[36:42], frame.lens[29:57])):
        assert (lens.min(0) < points.min(0))[:2].all()
        assert (points.max(0) < lens.max(0))[:2].all()
        assert lens[:, 2].min() > points[:, 2].mean()
    outward = ((frame.vertices - frame.lens[28]) * frame.normals).sum(1)[: 28 * 6].reshape(28, 6)
    assert outward.max(1).min() > 0
    np.testing.assert_allclose(np.linalg.norm(frame.normals, axis=1), 1, atol=1e-5)


def test_frames_are_dark_on_the_image_and_turn_with_the_head():
    seed = wearer()
    for state in (REST, head_state(yaw=0.4)):
        with_glasses = sitter(seed)
        bare = with_glasses._replace(photo=with_glasses.photo._replace(glasses=None))
        count = len(load_mesh().triangles)
        bare = bare._replace(frame=None, person=bare.person._replace(triangles=bare.person.triangles[:count]))
        first, second = (render_photo(who, state, size=96) for who in (with_glasses, bare))
        np.testing.assert_array_equal(first.landmarks, second.landmarks)
        difference = np.abs(first.frame.astype(float) - second.frame).mean(-1)
        left, top = first.landmarks[17:27].min(0) * 96 - 8
        right, bottom = first.landmarks[36:48].max(0) * 96 + 14
        inside = difference[int(top) : int(bottom), int(left) : int(right)].mean()
        assert inside > 4 * difference[70:].mean()
        assert inside > 3


def test_loose_hairs_stand_on_the_hair_and_the_bald_have_none():
    people = [sitter(seed) for seed in range(10)]
    for who in people:
        bald = who.person.identity.hair.style == "bald"
        loose = loose_hairs(who.person, who.person.identity, count=50)
        assert (loose is None) == bald
        if loose is not None:
            roots = loose.offset.reshape(50, -1, 3)[:, :2]
            assert np.linalg.norm(roots, axis=-1).max() < 0.2
            assert who.person.neutral[loose.layer.source, 1].max() > 7.5


def test_reserved_seeds_are_refused():
    with pytest.raises(ValueError, match="reserved"):
        sitter(950_000)


def test_settings_name_the_style_and_a_data_set_holds_it(tmp_path):
    assert HeadSettings(1, 64).style == Style.DRAWN
    small = "--people 1 --first-seed 40 --frames 1 --heldout-people 0 --size 64 --render-size 192 --workers 1"
    assert main(["--out", str(tmp_path / "out"), "--style", "photo", *small.split()]) == 0
    assert [entry.identity for entry in load_video_list(tmp_path / "out").entries("train")] == ["photo-000040"]

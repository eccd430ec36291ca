"""Pasted faces: exact blending, marks that are found, and a refusal of everyone but the avatar's own person."""

import dataclasses
from fractions import Fraction
from pathlib import Path

import cv2
import jax
import numpy as np
import pytest
from commands import animate as main
from driver_clips import PORTRAIT, RECORD, blank, swaying, write_clip

from data_prep.heads.identity import draw_identity
from data_prep.heads.motion import talk
from data_prep.heads.render import render_head
from th_jax.avatars.file import LoadedAvatar, load_avatar, save_avatar
from th_jax.data.shots import load_shots
from th_jax.driving import paste_back
from th_jax.driving.animate import animate
from th_jax.driving.driver import Driving, track_driver
from th_jax.driving.paste_back import (
    MARK_SIZES,
    check_same_person,
    face_mask,
    first_other,
    mark_places,
    own_descriptors,
    paste,
    pasted_frames,
)
from th_jax.faces import detect_faces, settled_landmarks
from th_jax.media import MediaError, open_video, read_image
from th_jax.models.networks import Networks
from th_jax.provenance import Kind, Provenance, read_sidecar, write_image
from th_jax.provenance.record import pixel_digest
from th_jax.provenance.watermark.detect import detect, detect_video
from th_jax.provenance.watermark.messages import marking_of
from th_jax.training.finetune import avatar_from_embedding

NETWORKS = Networks(image_size=64, base_width=4)
WIDE = 420


def wide(frame: np.ndarray) -> np.ndarray:
    """A frame of the portrait within a wider room of vertical stripes."""
    stripes = np.where(np.arange(WIDE) // 6 % 2, 60, 180).astype(np.uint8)
    room = np.repeat(np.broadcast_to(stripes[None, :, None], (256, WIDE, 1)), 3, 2).copy()
    room[:, 80:336] = frame
    return room


@pytest.fixture(scope="module")
def landmarks() -> np.ndarray:
    image = read_image(PORTRAIT)
    return settled_landmarks(image, detect_faces(image)[0].box)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An avatar of the portrait, a video of the same woman in a wide room, and photos and a video of another person."""
    folder = tmp_path_factory.mktemp("pasting")
    embedding = jax.random.normal(jax.random.key(1), (NETWORKS.plan.embedding,))
    avatar = avatar_from_embedding(NETWORKS, NETWORKS.init(jax.random.key(0)), embedding)
    shots = load_shots(PORTRAIT, size=64)
    record = Provenance(kind=Kind.GENERATED, inputs=(pixel_digest(shots.frames[0]),))
    save_avatar(folder / "ada.safetensors", avatar, networks=NETWORKS, provenance=record, landmarks=shots.landmarks)
    moving = [wide(frame) for frame in swaying(4, amplitude=2)]
    write_clip(folder / "own.mp4", [*moving, *(wide(frame) for frame in blank(2))], fps=Fraction(12), tone=True)
    head = render_head(draw_identity(100_001), talk(100_001, seconds=1.0, fps=2.0).state(0), size=256)[0]
    write_image(folder / "other.png", head, provenance=RECORD)
    write_clip(folder / "then_other.mp4", [*moving, *[wide(head)] * 4], fps=12)
    return folder


@pytest.fixture(scope="module")
def loaded(folder: Path) -> LoadedAvatar:
    return load_avatar(folder / "ada.safetensors")


def test_a_mask_is_one_in_the_face_and_zero_outside(landmarks: np.ndarray) -> None:
    mask = face_mask(landmarks, height=256, width=256)
    assert mask.dtype == np.float32
    assert (mask.min(), mask.max()) == (0, 1)
    hull = cv2.convexHull(landmarks)
    away = [
        (x, y)
        for y in range(0, 256, 4)
        for x in range(0, 256, 4)
        if cv2.pointPolygonTest(hull, (float(x), float(y)), True) < -40
    ]
    assert all(mask[y, x] == 0 for x, y in away)
    for point in landmarks[27:].astype(int):  # nose, eyes and mouth
        assert mask[point[1], point[0]] == 1
    assert np.abs(np.diff(mask, axis=1)).max() < 0.5, "the edge is soft"


def test_a_face_pasted_over_itself_changes_nothing_and_elsewhere_nothing_ever_changes(landmarks: np.ndarray) -> None:
    frame = wide(read_image(PORTRAIT))
    points = landmarks + np.array([80, 0])
    square = np.array([120.0, 40.0, 180.0])
    crop = frame[40:220, 120:300]
    inside = ((points - square[:2]) / square[2]).astype(np.float32)
    np.testing.assert_array_equal(paste(frame, crop, square=square, landmarks=inside), frame)
    white = paste(frame, np.full((180, 180, 3), 255, np.uint8), square=square, landmarks=inside)
    mask = face_mask(points.astype(np.float64), height=256, width=WIDE)
    np.testing.assert_array_equal(white[mask == 0], frame[mask == 0])
    assert (white[mask == 1] == 255).all()
    expected = frame + mask[..., None] * (255.0 - frame)
    assert np.abs(white - expected).max() <= 0.5


def test_a_smaller_face_is_placed_to_the_pixel(landmarks: np.ndarray) -> None:
    """A ramp keeps its values when it is enlarged, whatever the interpolation: its place can be read from them."""
    frame = np.zeros((256, 256, 3), np.uint8)
    left, top, side = 60.3, 70.8, 128.0
    ramp = np.repeat((np.arange(32, dtype=np.float32) * 4 + 60)[None, :, None], 32, 0).repeat(3, 2).astype(np.uint8)
    points = ((landmarks - (left, top)) / side).astype(np.float32)
    pasted = paste(frame, ramp, square=np.array([left, top, side]), landmarks=points)
    whole = face_mask(landmarks.astype(np.float64), height=256, width=256) == 1
    columns = np.broadcast_to(np.arange(256) + 0.5, (256, 256))[whole]
    expected = ((columns - left) / side * 32 - 0.5) * 4 + 60
    assert np.abs(pasted[..., 0][whole] - expected).max() < 1.5


def test_the_marked_square_lies_in_the_face_and_in_the_frame() -> None:
    squares = np.array([[10.0, 20, 150], [14, 20, 150], [300, 100, 300], [np.nan] * 3])
    driving = Driving(
        np.zeros((4, 68, 2), np.float32), np.arange(4.0), np.array([0, 0, 1, -1]), Fraction(1), squares, Path("a.mp4"),
        False, 0, frame_size=(360, 480),
    )  # fmt: skip
    places = mark_places(driving)
    assert places.side == 128
    assert places.corners.tolist() == [[21, 31], [21, 31], [352, 186], [0, 0]], "it does not move with a small motion"
    walking = np.array([[20.0 * i, 20, 150] for i in range(4)])
    moved = mark_places(driving._replace(squares=walking, segment=np.zeros(4, int))).corners
    assert moved.tolist() == [[11, 31], [11, 31], [51, 31], [51, 31]], "but it does not lose the face either"
    assert mark_places(driving._replace(squares=squares / 2)).side == 64
    with pytest.raises(ValueError, match="the head is 50 px wide in the driver, but a pasted face needs 64 px"):
        mark_places(driving._replace(squares=squares / 3))
    with pytest.raises(ValueError, match="frames all have one size"):
        mark_places(driving._replace(frame_size=None))


def test_a_pasted_video_is_the_drivers_outside_the_face_and_is_marked(
    folder: Path, loaded: LoadedAvatar, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "ada.mp4"
    command = ["--avatar", str(folder / "ada.safetensors"), "--driver", str(folder / "own.mp4"), "--out", str(out)]
    assert main([*command, "--paste-back", str(PORTRAIT), "--chunk", "2"]) == 0
    assert "6 frames at 12 frames/s, with sound; 2 without a face" in capsys.readouterr().out
    with open_video(out) as video, open_video(folder / "own.mp4") as source:
        assert video.size == (WIDE, 256)
        pairs = [(a.astype(int), b.astype(int)) for (_, a), (_, b) in zip(video.frames(), source.frames(), strict=True)]
    for made, frame in pairs:
        assert np.abs(made - frame)[:, [*range(60), *range(360, WIDE)]].mean() < 4, "compression only"
    assert all(np.abs(made - frame)[60:200, 150:260].mean() > 8 for made, frame in pairs[:4])
    assert all(np.abs(made - frame).mean() < 4 for made, frame in pairs[4:]), "no face, nothing pasted"
    record, unchanged = read_sidecar(out)
    assert (unchanged, record.kind, record.avatar) == (True, Kind.COMPOSITE, loaded.digest)
    assert record.notes.endswith("the face is put back into the driver's frames")
    with open_video(out) as video:
        marks = detect_video(frame for _, frame in video.frames()).marks
    assert [f"{mark.message:0{mark.bits // 4}x}" for mark in marks] == [record.watermark]


@pytest.mark.parametrize("side", MARK_SIZES)
def test_the_mark_of_pasted_frames_is_found(side: int, landmarks: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the only mark, wherever the face moves: its square stays in its place."""
    size = round(1.2 * side)
    frames = [cv2.resize(frame, (size, size)) for frame in swaying(3, amplitude=2)]
    monkeypatch.setattr(paste_back, "driver_frames", lambda driving, shown: (frames[i] for i in shown))
    points = np.stack([landmarks / 256] * 3).astype(np.float32)
    squares = np.array([[2.0 * i, 0, size] for i in range(3)])
    driving = Driving(
        points, np.arange(3.0), np.zeros(3, int), Fraction(3), squares, Path("a.mp4"), False, 0, frame_size=(size, size)
    )
    places = mark_places(driving)
    assert places.side == side
    marking = marking_of("ab" * 32, size=side, kind="video")
    assert marking is not None
    faces = np.random.default_rng(0).integers(90, 150, (3, 64, 64, 3)).astype(np.uint8)
    faces = [cv2.GaussianBlur(face, (0, 0), 3) for face in faces]
    made = list(pasted_frames(driving, np.arange(3), faces, points, places=places, mark=marking.mark))
    marks = detect_video(made).marks
    assert [f"{mark.message:0{mark.bits // 4}x}" for mark in marks] == [marking.message]
    assert not detect(frames[0]).marks


@pytest.mark.parametrize(
    ("driver", "images", "said"),
    [
        ("then_other.mp4", str(PORTRAIT), r"the driver at 0\.3 s is not the avatar's person \(distance 0\.[67]"),
        ("own.mp4", "other.png", r"none of the images in .*other\.png is one of which the avatar was made"),
        ("own.mp4", "nowhere.png", r"nowhere\.png does not exist"),
    ],
)
def test_only_the_avatars_own_person_is_pasted(
    folder: Path, loaded: LoadedAvatar, tmp_path: Path, driver: str, images: str, said: str
) -> None:
    with pytest.raises((ValueError, MediaError), match=said):
        animate(loaded, folder / driver, tmp_path / "a.mp4", paste_back=folder / images)
    assert list(tmp_path.iterdir()) == []


def test_another_person_counts_from_the_second_frame_on() -> None:
    assert first_other(np.array([0.1, 0.7, 0.2, 0.9, 0.3])) is None, "single frames may be blurred"
    assert first_other(np.array([0.1, 0.2, 0.6, 0.9, 0.3])) == 2
    assert first_other(np.array([0.9, 0.1, 0.9, 0.1])) == 0, "half of all"
    assert first_other(np.array([0.7])) == 0
    assert first_other(np.array([0.59])) is None


def test_a_face_of_another_shape_is_refused_too(
    folder: Path, loaded: LoadedAvatar, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With four shots the landmarks are compared as well; the network's answer alone is not enough."""
    own = np.zeros((1, 128), np.float32)
    monkeypatch.setattr(paste_back, "face_descriptor", lambda *_: np.zeros(128, np.float32))
    other = dataclasses.replace(loaded, landmarks=render_shape())
    with track_driver(folder / "own.mp4") as driving:
        check_same_person(loaded, own, driving)
        with pytest.raises(ValueError, match=r"the driver is another person .* a face is pasted only"):
            check_same_person(other, own, driving)


def render_shape() -> np.ndarray:
    """Landmarks of four frames of a rendered man."""
    from data_prep.heads.person import prepare
    from data_prep.heads.render import pose, true_landmarks

    person, motion = prepare(draw_identity(100_001)), talk(100_001, seconds=4.0, fps=1.0)
    return np.stack([true_landmarks(person, pose(person, motion.state(i)))[:, :2] for i in range(4)]).astype(np.float32)


def test_the_avatars_images_are_known_by_their_digests(loaded: LoadedAvatar) -> None:
    assert own_descriptors(loaded, PORTRAIT).shape == (1, 128)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--driver", "m.csv"], "has no frames into which a face could be pasted"),
        (["--driver", "camera:0"], "--paste-back needs a recorded driver"),
        (["--driver", "{own}", "--retargeting", "shape"], "must stay where the driver's is"),
        (["--driver", "{own}", "--gains", "mouth=1.2"], "must stay where the driver's is"),
        (["--driver", "{own}", "--layout", "driver,avatar"], "omit the layout"),
        (["--driver", "{own}", "--unmarked-output-for-research"], "are always marked"),
    ],
)
def test_options_that_do_not_fit(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    filled = [option.format(own=folder / "own.mp4") for option in options]
    out = [] if "camera:0" in options else ["--out", str(tmp_path / "a.mp4")]
    command = ["--avatar", str(folder / "ada.safetensors"), "--paste-back", str(PORTRAIT), *filled, *out]
    assert main(command) == 1
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []

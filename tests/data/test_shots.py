"""Photos or a video of one person become padded shots, and unusable files are reported."""

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from th_jax.data.shots import Verdict, inspect_shots, load_shots, shots_and_outcomes, varied_poses
from th_jax.faces import detect_faces, settled_landmarks
from th_jax.faces.pupils import with_pupils
from th_jax.media import MediaError, read_image
from th_jax.media.isolation import run_limited
from th_jax.provenance import Kind, Provenance, write_image, write_video

PORTRAIT = Path(__file__).parent.parent.parent / "th_jax" / "assets" / "portrait" / "astronaut.jpg"
RECORD = Provenance(kind=Kind.REAL_CROP)


def turned(degrees: float, *, x: float = 0.0) -> np.ndarray:
    """The portrait rotated about its center, and moved."""
    matrix = cv2.getRotationMatrix2D((128, 128), degrees, 1.0) + np.array([[0, 0, x], [0, 0, 0]])
    return cv2.warpAffine(
        read_image(PORTRAIT), matrix, (256, 256), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )


def pair() -> np.ndarray:
    return np.concatenate([read_image(PORTRAIT), read_image(PORTRAIT)], axis=1)


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """Five usable photos and four that are not."""
    (folder := tmp_path / "album").mkdir()
    for index, degrees in enumerate([0, 1, 2, -12, 12]):
        write_image(folder / f"{index}.png", turned(degrees), provenance=RECORD)
    write_image(folder / "plain.png", np.full((60, 60, 3), 70, np.uint8), provenance=RECORD)
    write_image(folder / "two.png", pair(), provenance=RECORD)
    (folder / "broken.jpg").write_bytes(PORTRAIT.read_bytes()[:3000])
    (folder / "notes.txt").write_text("no image")
    (folder / ".hidden.xyz").write_text("no image")
    (folder / "raw.dng").write_bytes(b"an image of a kind that is not read")
    (folder / "clip.mov").write_bytes(b"a video")
    (folder / "more").mkdir()
    tiny = cv2.resize(read_image(PORTRAIT), (60, 60), interpolation=cv2.INTER_AREA)
    write_image(folder / "tiny.png", tiny, provenance=RECORD)
    return folder


def test_one_photo() -> None:
    shots = load_shots(PORTRAIT, size=128)
    assert shots.frames.shape == (1, 128, 128, 3)
    assert shots.frames.dtype == np.uint8
    assert shots.landmarks.shape == (1, 68, 2)
    assert shots.landmarks.dtype == shots.mask.dtype == np.float32
    np.testing.assert_array_equal(shots.mask, [1])
    assert shots.landmarks.min() > 0.1
    assert shots.landmarks.max() < 0.9
    found = settled_landmarks(shots.frames[0], detect_faces(shots.frames[0])[0].box) / 128
    assert np.linalg.norm(found - shots.landmarks[0], axis=-1).mean() < 0.01


def test_pupils_are_found_in_the_photo_s_own_resolution(tmp_path: Path) -> None:
    """At 32 px an eye is 3 px wide and shows none; hand-marked pupils are kept."""
    plain, shots = load_shots(PORTRAIT, size=32), load_shots(PORTRAIT, size=32, pupils=True)
    assert shots.landmarks.shape == (1, 70, 2)
    np.testing.assert_array_equal(shots.frames, plain.frames)
    np.testing.assert_array_equal(shots.landmarks[:, :68], plain.landmarks)
    left, right = shots.landmarks[0, 68:]
    for pupil, eye in ((left, shots.landmarks[0, 36:42]), (right, shots.landmarks[0, 42:48])):
        assert (eye.min(0) < pupil).all()
        assert (pupil < eye.max(0)).all()
    assert np.isnan(with_pupils(shots.frames[0], 32 * plain.landmarks[0])[68:]).all()
    points = np.concatenate([load_shots(PORTRAIT, size=256).landmarks[0] * 256, [[100, 90], [140, 90]]])
    marked = tmp_path / "marked.json"
    marked.write_text(json.dumps(points.tolist()))
    by_hand = load_shots(PORTRAIT, size=32, landmarks=marked, pupils=True).landmarks[0]
    np.testing.assert_array_equal(by_hand, load_shots(PORTRAIT, size=32, landmarks=marked).landmarks[0])
    assert np.isfinite(by_hand).all()


def test_a_folder(album: Path) -> None:
    report = inspect_shots(album, size=64)
    verdicts = {source.path.name: source.verdict for source in report.sources}
    assert verdicts == {f"{index}.png": Verdict.USED for index in range(5)} | {
        "plain.png": Verdict.NO_FACE,
        "two.png": Verdict.SEVERAL_FACES,
        "broken.jpg": Verdict.UNREADABLE,
        "tiny.png": Verdict.TOO_SMALL,
        **dict.fromkeys(("clip.mov", "more", "raw.dng"), Verdict.NOT_LOOKED_AT),
    }
    assert report.shots.frames.shape == (8, 64, 64, 3)
    np.testing.assert_array_equal(report.shots.mask, [1] * 5 + [0] * 3)
    # Padding repeats real shots, so that nothing in it can break a network.
    np.testing.assert_array_equal(report.shots.frames[5:], report.shots.frames[:3])
    np.testing.assert_array_equal(report.shots.landmarks[5:], report.shots.landmarks[:3])
    assert np.isfinite(report.shots.landmarks).all()


def test_skipped_files_are_reported_with_reasons(album: Path) -> None:
    """As a limited process returns it; a GIF named as a JPEG is not a JPEG."""
    Image.fromarray(read_image(PORTRAIT)).save(album / "gif.jpg", format="GIF")
    _, images = run_limited(shots_and_outcomes, album, size=64, shots=3)
    looked_at, spare, left_out = images
    assert (looked_at, spare) == (10, 2)
    assert [file for file, _ in left_out] == [
        *("broken.jpg", "gif.jpg", "plain.png", "tiny.png", "two.png"), *("clip.mov", "more", "raw.dng"),
    ]  # fmt: skip
    said = dict(left_out)
    assert said["broken.jpg"].startswith("is damaged or truncated")
    assert said["gif.jpg"].startswith("is not a readable image")
    assert (said["plain.png"], said["clip.mov"]) == ("no face", "a video among photos: to use it, give its path")
    assert said["tiny.png"].startswith("too small: the face is ")
    assert said["raw.dng"].startswith("not read: .dng is not one of .png, ")


def test_fewer_shots_are_the_most_varied(album: Path) -> None:
    report = inspect_shots(album, size=64, shots=3)
    used = {source.path.name for source in report.sources if source.verdict is Verdict.USED}
    assert {"3.png", "4.png"} < used
    assert sum(source.verdict is Verdict.SPARE for source in report.sources) == 2
    assert report.shots.mask.tolist() == [1] * 3 + [0] * 5
    np.testing.assert_array_equal(report.shots.frames[:3], inspect_shots(album, size=64).shots.frames[:3])
    np.testing.assert_array_equal(load_shots(album, size=64, shots=3).frames, report.shots.frames)


def test_varied_poses_spread() -> None:
    generator = np.random.default_rng(0)
    face = generator.uniform(0, 100, (68, 2))
    directions = generator.normal(0, 5, (3, 68, 2))
    crowd = face + generator.normal(0, 0.1, (30, 68, 2))
    faces = np.concatenate([crowd, face + directions, face - directions]).astype(np.float32)
    faces = faces * generator.uniform(0.5, 2, (36, 1, 1)).astype(np.float32) + 50  # size and place do not count
    chosen = varied_poses(faces, count=7)
    assert chosen[0] < 30
    assert set(chosen[1:]) == set(range(30, 36))
    assert sorted(varied_poses(faces[:4], count=9)) == [0, 1, 2, 3]


def test_neighbours_of_chosen_poses_are_left_out() -> None:
    generator = np.random.default_rng(0)
    face, direction = generator.uniform(0, 100, (68, 2)), generator.normal(0, 1, (68, 2))
    steps = np.array([0.1, 10, 9.8, -10, -9.8, 5])
    faces = (face + steps[:, None, None] * direction).astype(np.float32)
    chosen = varied_poses(faces, count=4)
    assert chosen[0] == 0
    assert set(chosen[1:3]) in ({1, 3}, {2, 3}, {1, 4})
    assert chosen[3] == 5


def test_identical_images_are_chosen_once_each() -> None:
    faces = np.repeat(np.random.default_rng(0).uniform(0, 1, (1, 68, 2)).astype(np.float32), 5, axis=0)
    assert sorted(varied_poses(faces, count=5)) == [0, 1, 2, 3, 4]


def test_a_video(tmp_path: Path) -> None:
    swaying = [turned(12 * np.sin(i / 8), x=3 * np.cos(i / 8)) for i in range(50)]
    path = write_video(tmp_path / "clip.mp4", swaying, fps=25, provenance=RECORD, crf=10)
    report = inspect_shots(path, size=96, shots=8)
    assert [source.time for source in report.sources] == pytest.approx(np.arange(10) * 0.2, abs=0.021)
    assert report.shots.frames.shape == (8, 96, 96, 3)
    assert report.shots.mask.sum() == 8
    turns = report.shots.landmarks[:, 45] - report.shots.landmarks[:, 36]
    angles = np.degrees(np.arctan2(turns[:, 1], turns[:, 0]))
    assert np.ptp(angles) > 18  # of 24
    # One square for the whole clip: each crop's landmarks are those that detection finds in it.
    for frame, landmarks in zip(report.shots.frames[:3], report.shots.landmarks[:3], strict=True):
        found = settled_landmarks(frame, detect_faces(frame)[0].box) / 96
        assert np.linalg.norm(found - landmarks, axis=-1).mean() < 0.015
    with_gaze = load_shots(path, size=96, shots=8, pupils=True)
    np.testing.assert_array_equal(with_gaze.landmarks[:, :68], report.shots.landmarks)
    between = with_gaze.landmarks[:, 36:48].reshape(8, 2, 6, 2).mean(2)
    assert np.abs(with_gaze.landmarks[:, 68:] - between).max() < 0.02  # of the frame; an eye is 0.07 wide


def test_padding_to_32(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4", [turned(i / 4) for i in range(60)], fps=25, provenance=RECORD)
    shots = load_shots(path, size=32)
    assert shots.frames.shape == (32, 32, 32, 3)
    assert shots.mask.sum() == 12


def test_no_face_in_any_image(tmp_path: Path) -> None:
    plain = np.full((80, 80, 3), 90, np.uint8)
    photo = write_image(tmp_path / "wall.png", plain, provenance=RECORD)
    video = write_video(tmp_path / "wall.mp4", [plain] * 10, fps=25, provenance=RECORD)
    with pytest.raises(ValueError, match=r"no face was found in .*wall.mp4: .* at least 80 px and 1/16 of"):
        load_shots(video)
    tried = (
        r"no face was found in .*wall.png or in contrast-stretched, enlarged or rotated copies: .* at least 24 px wide"
    )
    with pytest.raises(ValueError, match=tried + r'.*pass --landmarks FILE .*one line "x y" in pixels.*docs/shots\.md'):
        load_shots(photo)


def test_two_people_on_the_only_photo(tmp_path: Path) -> None:
    path = write_image(tmp_path / "two.png", pair(), provenance=RECORD)
    with pytest.raises(ValueError, match=r"several faces: 1; 2 faces of similar score and size"):
        load_shots(path)


def test_a_folder_without_images(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").touch()
    with pytest.raises(ValueError, match=r"contains no images \(\.png, .*not read: clip.mp4$"):
        load_shots(tmp_path)


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"ada does not exist"):
        load_shots(tmp_path / "ada")
    (tmp_path / "ada.mp4").write_text("text")
    with pytest.raises(MediaError, match="not a readable video"):
        load_shots(tmp_path / "ada.mp4")
    (tmp_path / "ada.jpg").write_text("text")
    with pytest.raises(MediaError, match="not a readable image"):
        load_shots(tmp_path / "ada.jpg")


def test_only_unreadable_photos(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("text")
    with pytest.raises(ValueError, match=r"\(unreadable: 1; a\.jpg: is not a readable image"):
        load_shots(tmp_path)


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match=r"size of shots .* got 8"):
        load_shots(PORTRAIT, size=8)
    with pytest.raises(ValueError, match="shots must be 1 to 32, got 33"):
        load_shots(PORTRAIT, shots=33)
    with pytest.raises(ValueError, match="shots must be 1 to 32, got 0"):
        load_shots(PORTRAIT, shots=0)


def test_a_rotated_phone_photo(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = np.rot90(read_image(PORTRAIT))
    Image.fromarray(stored).save(tmp_path / "phone.jpg", exif=exif, quality=95)
    upright = load_shots(PORTRAIT, size=64)
    np.testing.assert_allclose(load_shots(tmp_path / "phone.jpg", size=64).landmarks, upright.landmarks, atol=0.02)


def test_the_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(ImportError, match=r"pip install 'th_jax\[video\]'"):
        load_shots(PORTRAIT)

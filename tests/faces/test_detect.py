"""Detection at any size, landmark positions, and errors for missing parts."""

import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from portrait import moved, on_canvas, portrait

from th_jax.faces import (
    Box,
    Face,
    OutsideFrameError,
    detect_faces,
    detect_in_region,
    face_descriptor,
    landmarks_in_box,
    most_prominent,
    predict_landmarks,
    settled_landmarks,
)
from th_jax.faces import detect as detection
from th_jax.optional import install_command


def test_the_face_is_found() -> None:
    faces = detect_faces(portrait())
    assert len(faces) == 1
    assert faces[0].score > 1
    np.testing.assert_allclose(faces[0].box.center, (127, 126), atol=5)
    assert faces[0].box.side == pytest.approx(88, rel=0.1)


@pytest.mark.parametrize("side", [768, 256, 128, 64])
def test_found_at_any_size(side: int) -> None:
    resized = cv2.resize(portrait(), (side, side), interpolation=cv2.INTER_AREA if side < 256 else cv2.INTER_CUBIC)
    face = detect_faces(resized)[0]
    np.testing.assert_allclose(face.box.center * 256 / side, (127, 126), atol=8)
    expected = settled_landmarks(portrait(), detect_faces(portrait())[0].box)
    landmarks = settled_landmarks(resized, face.box) * 256 / side
    error = np.linalg.norm(landmarks - expected, axis=-1).mean() / 88
    assert error < (0.03 if side == 64 else 0.015)


def test_threads_do_not_disturb_each_other() -> None:
    """dlib's models keep state: without a lock, this test crashes or mixes the images."""
    images = [portrait(), np.ascontiguousarray(portrait()[:, ::-1]), cv2.resize(portrait(), (200, 200))]

    def look(number: int) -> tuple[Box, np.ndarray, np.ndarray]:
        image = images[number % len(images)]
        box = detect_faces(image)[0].box
        landmarks = landmarks_in_box(image, box)
        return box, landmarks, face_descriptor(image, landmarks)

    alone = [look(number) for number in range(len(images))]
    with ThreadPoolExecutor(3) as threads:
        for number, (box, landmarks, descriptor) in enumerate(threads.map(look, range(9))):
            expected = alone[number % len(images)]
            assert box == expected[0]
            np.testing.assert_array_equal(landmarks, expected[1])
            np.testing.assert_allclose(descriptor, expected[2], atol=1e-5)


def test_enlarged_only_when_nothing_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    scales = []
    detect = detection._detect_scaled

    def remember(frame: np.ndarray, scale: float, min_score: float) -> list[Face]:
        scales.append(scale)
        return detect(frame, scale, min_score)

    monkeypatch.setattr(detection, "_detect_scaled", remember)
    detect_faces(portrait())
    assert scales == [1]
    scales.clear()
    detect_faces(np.full((256, 256, 3), 90, np.uint8))
    assert scales == [1, 2, 4]
    scales.clear()
    detect_faces(np.full((1500, 2560, 3), 90, np.uint8))
    assert scales == [0.5]


def test_no_face() -> None:
    assert detect_faces(np.random.default_rng(0).integers(0, 256, (128, 128, 3), np.uint8)) == []


def test_region_agrees_with_the_whole() -> None:
    (face,) = detect_faces(portrait())
    left, top, right, bottom = face.box
    region = Box(left - 44, top - 44, right + 44, bottom + 44)
    (again,) = detect_in_region(portrait(), region)
    np.testing.assert_allclose(again.box.center, face.box.center, atol=10)
    assert detect_in_region(portrait(), Box(-90, -90, -10, -10)) == []


def test_landmarks_lie_on_their_features() -> None:
    image = portrait()
    points = predict_landmarks(image, detect_faces(image)[0].box)
    assert points.shape == (68, 2)
    eyes, mouth, chin = points[36:48].mean(0), points[48:68].mean(0), points[8]
    assert eyes[1] < points[30, 1] < mouth[1] < chin[1]
    assert points[36:42, 0].max() < points[27, 0] < points[42:48, 0].min()
    # The lips are redder than the cheeks between them and the eyes.
    redness = image[..., 0].astype(int) - image[..., 1]
    lips, cheeks = points[48:60].astype(int), ((points[1:5] + points[31]) / 2).astype(int)
    assert redness[lips[:, 1], lips[:, 0]].mean() > redness[cheeks[:, 1], cheeks[:, 0]].mean()


def test_enlargement_steadies_small_faces() -> None:
    small = cv2.resize(portrait(), (128, 128), interpolation=cv2.INTER_AREA)
    left, top, right, bottom = detect_faces(portrait())[0].box
    generator = np.random.default_rng(0)

    def jitter(min_side: float) -> float:
        found = []
        for x, y in generator.uniform(-1, 1, (12, 2)):
            box = Box(left / 2 + x, top / 2 + y, right / 2 + x, bottom / 2 + y)
            found.append(landmarks_in_box(moved(small, x=x, y=y), box, min_side=min_side) - (x, y))
        return float(np.std(found, axis=0).mean())

    assert jitter(300.0) < 0.6 * jitter(0.0)


def test_pixels_are_counted_from_the_frames_edge() -> None:
    # Only then does a point scale with the image: the edge stays where it is, the first pixel's middle does not.
    image = portrait()
    box = detect_faces(image)[0].box
    enlarged = cv2.resize(image, (1024, 1024), interpolation=cv2.INTER_CUBIC)
    small = predict_landmarks(image, box)
    large = predict_landmarks(enlarged, Box(*(4 * edge for edge in box))) / 4
    np.testing.assert_allclose((large - small).mean(0), 0, atol=0.2)


def test_landmarks_move_with_the_image() -> None:
    image = portrait()
    still = settled_landmarks(image, detect_faces(image)[0].box)
    shifted = moved(image, x=20, y=-12)
    there = settled_landmarks(shifted, detect_faces(shifted)[0].box)
    np.testing.assert_allclose((there - still).mean(0), (20, -12), atol=1)


def test_a_box_outside_of_the_frame() -> None:
    with pytest.raises(OutsideFrameError, match="lies outside the frame"):
        landmarks_in_box(portrait(), Box(-200, -200, -100, -100))


def test_descriptor_knows_the_person_again() -> None:
    image = portrait()
    changed = (moved(image, x=10, turn=8, scale=0.9) * 0.8).astype(np.uint8)
    one, other = (face_descriptor(p, settled_landmarks(p, detect_faces(p)[0].box)) for p in (image, changed))
    assert one.shape == (128,)
    assert np.linalg.norm(one - other) < 0.4


def test_prominence_and_rivals() -> None:
    large = Face(Box(0, 0, 100, 100), 1.0)
    small_and_sure = Face(Box(0, 0, 30, 30), 2.0)
    twin = Face(Box(200, 0, 270, 70), 0.9)
    false_alarm = Face(Box(0, 0, 120, 120), 0.1)
    assert most_prominent([small_and_sure, large, false_alarm]) == (large, 0)
    assert most_prominent([small_and_sure, twin, large]) == (large, 1)
    with pytest.raises(ValueError, match="list of faces is empty"):
        most_prominent([])


def test_two_people_are_rivals() -> None:
    _, rivals = most_prominent(detect_faces(on_canvas(portrait(), (10, 20), (300, 20))))
    assert rivals == 1


def test_a_predictor_of_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    box = detect_faces(portrait())[0].box
    with pytest.raises(FileNotFoundError, match=r"my\.dat does not exist"):
        predict_landmarks(portrait(), box, model=tmp_path / "my.dat")
    monkeypatch.setenv("TH_JAX_LANDMARK_MODEL", str(tmp_path / "my.dat"))
    with pytest.raises(FileNotFoundError, match="unset TH_JAX_LANDMARK_MODEL"):
        predict_landmarks(portrait(), box)
    (tmp_path / "my.dat").write_bytes(b"not a predictor")
    with pytest.raises(ValueError, match="not a dlib shape predictor"):
        predict_landmarks(portrait(), box)
    five = detection._model_path("shape_predictor_5_face_landmarks.dat")
    with pytest.raises(ValueError, match="predicts 5 points"):
        predict_landmarks(portrait(), box, model=five)


def test_missing_parts_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    detection._detector.cache_clear()
    monkeypatch.setitem(sys.modules, "dlib", None)
    with pytest.raises(ImportError, match=re.escape(f"requires dlib: {install_command('video')}")):
        detect_faces(portrait())
    with pytest.raises(FileNotFoundError, match=re.escape(f"other.dat is not installed: {install_command('video')}")):
        detection._model_path("other.dat")

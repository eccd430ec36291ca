"""The landmark model `heads`: its features, its bundled weights on a real portrait, and the option that chooses it."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from commands import th_jax
from portrait import PORTRAIT, moved, portrait

from th_jax.avatars.output import Saving, input_fingerprint
from th_jax.avatars.requests import one_person
from th_jax.faces import (
    Box,
    OutsideFrameError,
    box_around,
    detect_faces,
    face_size,
    landmark_cascade,
    landmarks_in_box,
    predict_landmarks,
    settled_landmarks,
    track_faces,
)
from th_jax.faces.detect import HEADS, LANDMARK_MODEL_VARIABLE, landmark_model_digest, using_landmark_model
from th_jax.faces.landmark_cascade import (
    CASCADE_FILE,
    CROP_SIDE,
    FEATURES,
    LOOKS,
    Look,
    cascade_landmarks,
    crop_face,
    features,
    gradient_maps,
    load_cascade,
)
from th_jax.landmarks.scheme import MIRROR_ORDER, mirror_landmarks
from th_jax.media.isolation import run_limited
from th_jax.storage.files import file_sha256


def found(image: np.ndarray) -> np.ndarray:
    return settled_landmarks(image, detect_faces(image)[0].box, model=HEADS)


@pytest.fixture(scope="module")
def points() -> np.ndarray:
    return found(portrait())


def apart(one: np.ndarray, other: np.ndarray) -> float:
    """Mean distance in face sizes."""
    return float(np.linalg.norm(one - other, axis=-1).mean() / face_size(other))


def test_the_bundled_weights_are_whole_and_small() -> None:
    cascade = load_cascade()
    count = len(cascade.components)
    assert cascade.mean.shape == (70, 2)
    assert cascade.components.shape == (count, 140)
    assert cascade.weights.shape == (len(LOOKS), FEATURES, count)
    assert cascade.bias.shape == (len(LOOKS), count)
    np.testing.assert_allclose(cascade.components @ cascade.components.T, np.eye(count), atol=2e-3)
    assert CASCADE_FILE.stat().st_size < 2e6


def test_gradients_have_the_directions_of_edges_whatever_the_light() -> None:
    """A dark left half: gradients point right, and nowhere else; an edge upside down turns by 180 degrees."""
    crop = np.full((96, 96, 3), 60, np.uint8)
    crop[:, 48:] = 180
    strength = np.moveaxis(gradient_maps(crop), 0, 2).reshape(96, 96, 8)
    assert strength[40:56, 47:49].mean((0, 1)).argmax() == 0
    assert strength[:, :40].max() == 0
    turned = np.moveaxis(gradient_maps(np.ascontiguousarray(crop[:, ::-1])), 0, 2).reshape(96, 96, 8)
    np.testing.assert_allclose(turned[:, ::-1, 4], strength[..., 0], atol=1e-4)
    brighter = np.moveaxis(gradient_maps((40 + crop // 2).astype(np.uint8)), 0, 2).reshape(96, 96, 8)
    np.testing.assert_allclose(
        brighter[20:76, 20:76], strength[20:76, 20:76], rtol=0.35, atol=0.02
    )  # half the contrast


def test_features_are_read_around_the_points() -> None:
    maps = np.zeros((2, 96, 96, 4), np.float32)
    maps[1, 20:31, 60:71, 2] = 4.0  # the sixth direction, around x = 65.5, y = 25.5
    points = np.tile(np.array([[0.25, 0.75]]), (70, 1))
    points[7] = np.array([65.5, 25.5]) / 96
    read = features(maps, points, Look(5, 20.0, True)).reshape(70, -1, 8)
    assert read[7, 0, 6] == pytest.approx(2.0)
    assert np.count_nonzero(read) == 1
    points[7] = np.array([65.5 - 20, 25.5 + 20]) / 96
    read = features(maps, points, Look(5, 20.0, True)).reshape(70, -1, 8)
    assert read[7, 2, 6] == pytest.approx(2.0), "the cell to the right and above"


def test_known_points_of_a_portrait(points: np.ndarray) -> None:
    """Other weights, or another crop, would move them."""
    known = {8: (124.6, 177.8), 30: (129.7, 125.8), 36: (100.1, 102.3)}
    known |= {45: (160.8, 106.0), 48: (104.4, 138.6), 54: (150.2, 141.7)}
    np.testing.assert_allclose(points[list(known)], list(known.values()), atol=0.3)


def test_near_dlibs_points_on_a_real_face(points: np.ndarray) -> None:
    dlib = settled_landmarks(portrait(), detect_faces(portrait())[0].box)
    assert apart(points, dlib) < 0.035
    assert np.linalg.norm(points[30] - dlib[30]) < 0.03 * face_size(dlib)


def test_a_mirrored_face_has_mirrored_points(points: np.ndarray) -> None:
    mirrored = found(np.ascontiguousarray(portrait()[:, ::-1]))
    assert apart(mirror_landmarks(mirrored / 256) * 256, points) < 0.02
    assert apart(np.array([256, 0]) + mirrored * (-1, 1), points) > 0.1, "the order of the points is mirrored too"
    assert not np.array_equal(MIRROR_ORDER[:68], np.arange(68))


@pytest.mark.parametrize(("x", "y", "scale", "turn"), [(20, -12, 1, 0), (0, 0, 0.5, 0), (0, 0, 1.6, 0), (0, 0, 1, 15)])
def test_points_follow_the_image(points: np.ndarray, x: float, y: float, scale: float, turn: float) -> None:
    """Also where the image is shrunk to the input, which averages areas."""
    matrix = cv2.getRotationMatrix2D((128, 128), turn, scale) + np.array([[0, 0, x], [0, 0, y]])
    image = moved(portrait(), x=x, y=y, scale=scale, turn=turn)
    expected = (points - 0.5) @ matrix[:, :2].T + matrix[:, 2] + 0.5
    there = settled_landmarks(image, box_around(expected.astype(np.float32)), model=HEADS)
    assert apart(there, expected) < 0.01


def test_a_crop_shows_what_its_axes_say() -> None:
    frame = np.zeros((90, 120, 3), np.uint8)
    frame[38:46, 68:76] = 255  # its middle is at (72, 42)
    for axes in (np.diag([64.0, 64.0]), np.array([[0.0, -48.0], [48.0, 0.0]]), np.diag([-200.0, 200.0])):
        crop = crop_face(frame, np.array([60.0, 45.0]), axes)
        assert crop.shape == (CROP_SIDE, CROP_SIDE, 3)
        rows, columns = np.indices(crop.shape[:2]) + 0.5
        weight = crop[..., 0] / crop[..., 0].sum(dtype=float)
        seen = np.array([(columns * weight).sum(), (rows * weight).sum()]) / CROP_SIDE - 0.5
        np.testing.assert_allclose(axes @ seen + (60, 45), (72, 42), atol=0.3 * np.abs(axes).max() / CROP_SIDE)


def test_a_box_without_a_face_has_points_and_one_outside_has_none() -> None:
    blank = np.full((96, 128, 3), 90, np.uint8)
    assert np.isfinite(predict_landmarks(blank, Box(-20, 10, 50, 80), model=HEADS)).all()
    assert np.isfinite(cascade_landmarks(blank[:1, :1], np.array([0.5, 0.5]), 1.0)).all()
    with pytest.raises(OutsideFrameError, match="lies outside the frame"):
        landmarks_in_box(blank, Box(-200, -200, -100, -100), model=HEADS)


def test_a_face_that_goes_away_is_lost() -> None:
    frames = [portrait(), moved(portrait(), x=1), np.full((256, 256, 3), 90, np.uint8)]
    track = track_faces(frames, model=HEADS)
    assert track.segment.tolist() == [0, 0, -1]
    assert np.isnan(track.landmarks[2]).all()
    assert apart(track.landmarks[1] - (1, 0), track.landmarks[0]) < 0.02


def test_damaged_weights_are_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    altered = bytearray(CASCADE_FILE.read_bytes())
    altered[-1] ^= 1
    (tmp_path / "heads.safetensors").write_bytes(altered)
    for file in (tmp_path / "heads.safetensors", tmp_path / "missing.safetensors"):
        monkeypatch.setattr(landmark_cascade, "CASCADE_FILE", file)
        load_cascade.cache_clear()
        with pytest.raises(FileNotFoundError, match=r"the landmark model heads cannot be read.*install th_jax again"):
            load_cascade()
    load_cascade.cache_clear()


def test_the_environment_or_an_argument_chooses(points: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    box = detect_faces(portrait())[0].box
    dlib = settled_landmarks(portrait(), box)
    assert landmark_model_digest() is None
    with using_landmark_model(HEADS):
        np.testing.assert_array_equal(settled_landmarks(portrait(), box), points)
        np.testing.assert_array_equal(settled_landmarks(portrait(), box, model="dlib"), dlib)
        assert landmark_model_digest() == file_sha256(CASCADE_FILE)
    assert LANDMARK_MODEL_VARIABLE not in os.environ
    monkeypatch.setenv(LANDMARK_MODEL_VARIABLE, HEADS)
    with using_landmark_model("dlib"):
        np.testing.assert_array_equal(settled_landmarks(portrait(), box), dlib)
        assert landmark_model_digest() is None
    with using_landmark_model(None):
        np.testing.assert_array_equal(settled_landmarks(portrait(), box), points)
    assert os.environ[LANDMARK_MODEL_VARIABLE] == HEADS


def test_isolated_processes_work_with_the_model_chosen_now() -> None:
    """They are reused: one that was started before would go on with the model of then."""
    assert run_limited(os.getenv, LANDMARK_MODEL_VARIABLE) is None
    with using_landmark_model(HEADS):
        assert run_limited(os.getenv, LANDMARK_MODEL_VARIABLE) == HEADS
    assert run_limited(os.getenv, LANDMARK_MODEL_VARIABLE) is None


def test_commands_take_the_option(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for model in (HEADS, "dlib"):
        assert th_jax(["faces", str(PORTRAIT), "--out", str(tmp_path / f"{model}.png"), "--landmark-model", model]) == 0
    assert (tmp_path / "heads.png").read_bytes() != (tmp_path / "dlib.png").read_bytes(), "the portraits' crops differ"
    assert capsys.readouterr().out.count("face 1: in 1 of the examined images") == 2
    assert th_jax(["faces", str(PORTRAIT), "--out", str(tmp_path / "x.png"), "--landmark-model", "haeds"]) == 1
    message = "the landmark model haeds does not exist: name heads, dlib or the file of a 68-point dlib predictor"
    assert message in capsys.readouterr().err
    assert not (tmp_path / "x.png").exists()


def test_an_avatar_is_not_taken_for_one_of_another_landmark_model(tmp_path: Path) -> None:
    person = one_person(PORTRAIT, name="ada")
    saving = Saving(tmp_path)
    plain = input_fingerprint(person, saving=saving, max_shots=None)
    with using_landmark_model(HEADS):
        other = input_fingerprint(person, saving=saving, max_shots=None)
    assert other == plain | {"landmark_model": file_sha256(CASCADE_FILE)}

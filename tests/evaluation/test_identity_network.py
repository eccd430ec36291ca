"""Identity by a given network: ArcFace alignment for any frame, and NaN rows for failures."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from network_files import write_network, write_settings

from th_jax.evaluation.judges.identity import (
    ARCFACE_POINTS,
    five_points,
    identity_features,
    load_identity_network,
    placement,
)

numbers = st.floats(-3, 3)


def face_of_points(points: np.ndarray, *, side: float) -> np.ndarray:
    """68 landmarks in [0, 1] of a frame of `side` px whose five points are those, pixels from the centre of the first."""
    landmarks = np.full((1, 68, 2), 0.5)
    unit = (points + 0.5) / side
    landmarks[0, 36:42], landmarks[0, 42:48] = unit[0], unit[1]
    landmarks[0, 30], landmarks[0, 48], landmarks[0, 54] = unit[2:]
    return landmarks


@settings(max_examples=30, deadline=None)
@given(numbers, numbers, numbers, numbers, st.integers(0, 1000))
def test_a_similarity_is_found_again(turn: float, stretch: float, x: float, y: float, seed: int) -> None:
    points = np.random.default_rng(seed).normal(size=(5, 2))
    scale = np.exp(stretch)
    cosine, sine = scale * np.cos(turn), scale * np.sin(turn)
    wanted = points @ np.array([[cosine, sine], [-sine, cosine]]) + (x, y)
    np.testing.assert_allclose(
        placement(points, wanted), [[cosine, -sine, x], [sine, cosine, y]], rtol=1e-9, atol=1e-9 * (1 + scale)
    )


def test_the_similarity_is_optimal_and_never_reflects() -> None:
    rng = np.random.default_rng(1)
    points, wanted = rng.normal(size=(5, 2)), rng.normal(size=(5, 2))
    best = placement(points, wanted)

    def error(matrix: np.ndarray) -> float:
        return float(np.square(points @ matrix[:, :2].T + matrix[:, 2] - wanted).sum())

    for _ in range(50):
        a, b, x, y = 1e-3 * rng.normal(size=4)
        assert error(best + np.array([[a, -b, x], [b, a, y]])) >= error(best)
    assert np.linalg.det(placement(points * (-1, 1), points)[:, :2]) > 0


def test_a_frame_already_in_place_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "flat.onnx"
    write_network(path, kind="flat", size=112)
    network = load_identity_network("flat", path)
    frame = np.random.default_rng(0).integers(0, 256, (1, 112, 112, 3), dtype=np.uint8)
    features = identity_features(network, frame, face_of_points(ARCFACE_POINTS, side=112))
    direct = network.features(frame).astype(np.float64)
    np.testing.assert_allclose(features, direct / np.linalg.norm(direct), rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(features, axis=-1), 1.0)
    assert network.about["input"]["deviation"] == [128, 128, 128]


def test_the_face_counts_and_not_its_place_in_the_frame(tmp_path: Path) -> None:
    path = tmp_path / "flat.onnx"
    write_network(path, kind="flat", size=56)
    write_settings(path, size=56)
    network = load_identity_network("flat", path)
    y, x = np.mgrid[:112, :112]
    face = np.stack([128 + 90 * np.sin(x / 9), 128 + 90 * np.cos(y / 7), 128 + 60 * np.sin((x + y) / 15)], -1)
    frame = face.astype(np.uint8)
    moved = np.zeros((200, 200, 3), np.uint8)
    moved[50:162, 70:182] = frame
    here = identity_features(network, frame[None], face_of_points(ARCFACE_POINTS, side=112))
    there = identity_features(network, moved[None], face_of_points(ARCFACE_POINTS + np.array([70, 50]), side=200))
    turned = identity_features(
        network, np.ascontiguousarray(frame[None, ::-1, ::-1]), face_of_points(111 - ARCFACE_POINTS, side=112)
    )
    np.testing.assert_allclose(there, here, atol=1e-5)
    np.testing.assert_allclose(turned, here, atol=5e-3)
    other = identity_features(network, 255 - frame[None], face_of_points(ARCFACE_POINTS, side=112))
    assert np.linalg.norm(other - here) > 1


def test_faces_that_were_not_found_are_nan(tmp_path: Path) -> None:
    path = tmp_path / "flat.onnx"
    write_network(path, kind="flat", size=112)
    network = load_identity_network("flat", path)
    frames = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    landmarks = np.concatenate([face_of_points(ARCFACE_POINTS, side=112)] * 3)
    landmarks[1], landmarks[2] = np.nan, 0.5
    rows = identity_features(network, frames, landmarks)
    assert np.isnan(rows).all(1).tolist() == [False, True, True]


def test_five_points() -> None:
    landmarks = np.arange(136, dtype=np.float64).reshape(1, 68, 2)
    assert five_points(landmarks)[0, :, 0].tolist() == [77, 89, 60, 96, 108]


def test_a_network_without_features(tmp_path: Path) -> None:
    write_network(tmp_path / "map.onnx", kind="map", size=112)
    with pytest.raises(ValueError, match=r"network arc returns \[1, 3, 112, 112\]"):
        load_identity_network("arc", tmp_path / "map.onnx")

"""Scores of held-out frames: zero for real ones, faces found or counted, every measure under its name."""

import jax.numpy as jnp
import numpy as np
import pytest

from th_jax.data.records import VideoRecords, bundled_heads
from th_jax.evaluation import face_measures, scores
from th_jax.evaluation.face_measures import measure_faces
from th_jax.evaluation.people import HeldOut, load_heldout
from th_jax.evaluation.scores import heldout_scores, heldout_table, real_faces, table_means
from th_jax.faces import OutsideFrameError

PIXELS = {"l1/frame", "l1/box", "ssim"}
FACES = {"faces/undetected", "landmark_error", "landmark_error_detected", "pose_error", "expression_error"}
IDENTITY = {"identity/l2", "identity/centred_cosine"}


@pytest.fixture(scope="module")
def held() -> HeldOut:
    return load_heldout(VideoRecords(bundled_heads(), "heldout"), image_size=64, people=2, sources=2, targets=2)


@pytest.fixture(scope="module")
def real(held: HeldOut) -> scores.RealFaces:
    return real_faces(held)


def noise(held: HeldOut) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, held.target_frames.shape, dtype=np.uint8)


def test_real_frames_reach_the_floor(held: HeldOut, real: scores.RealFaces) -> None:
    found = heldout_scores(held, held.target_frames, real=real)
    charged = {f"{name}/with_failures" for name in FACES | IDENTITY if name != "faces/undetected"}
    assert set(found) == PIXELS | FACES | IDENTITY | charged
    assert {name: found[name] for name in ("l1/frame", "l1/box", "landmark_error_detected", "identity/l2")} == {
        "l1/frame": 0.0,
        "l1/box": 0.0,
        "landmark_error_detected": 0.0,
        "identity/l2": 0.0,
    }
    assert found["ssim"] == pytest.approx(1)
    assert found["identity/centred_cosine"] == pytest.approx(1)
    assert found["faces/undetected"] == 0
    assert 0 < found["landmark_error"] < 0.12, "what the detector itself is off the true points"


def test_frames_without_faces_are_counted(held: HeldOut, real: scores.RealFaces) -> None:
    frames = held.target_frames.copy()
    frames[1] = noise(held)[1]
    table = heldout_table(held, frames, real=real)
    assert all(values.shape == (2, 2) for values in table.values())
    assert table["faces/undetected"].tolist() == [[0, 0], [1, 1]]
    for name in (FACES | IDENTITY) - {"faces/undetected"}:
        assert np.isfinite(table[name][0]).all(), name
    assert np.isnan(table["landmark_error"][1]).all()
    means = table_means(table)
    assert means["faces/undetected"] == 0.5
    assert means["landmark_error"] == pytest.approx(table["landmark_error"][0].mean())
    half = 0.5 * means["landmark_error"] + 0.5 * scores.FAILURE_VALUES["landmark_error"]
    assert means["landmark_error/with_failures"] == pytest.approx(half)


def test_frames_without_any_face_are_scored(held: HeldOut, real: scores.RealFaces) -> None:
    found = heldout_scores(held, noise(held), real=real, identity=False)
    assert found["faces/undetected"] == 1
    assert np.isnan(found["pose_error"])
    assert found["pose_error/with_failures"] == scores.FAILURE_VALUES["pose_error"]


def test_swapped_people_are_other_people(held: HeldOut, real: scores.RealFaces) -> None:
    swapped = heldout_scores(held, held.target_frames[::-1], real=real)
    assert swapped["identity/l2"] > 0.4
    assert swapped["identity/centred_cosine"] < 0
    assert swapped["l1/frame"] > 0.05


def test_descriptors_can_be_left_out(held: HeldOut, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(face_measures, "face_descriptor", lambda frame, points: pytest.fail("not asked for"))
    table = heldout_table(held, held.target_frames, identity=False)
    assert set(table) == PIXELS | FACES


def test_perceptual_distance_names_its_network(held: HeldOut, monkeypatch: pytest.MonkeyPatch) -> None:
    def two_layers(weights, images):
        return {name: (images * layers["top"]["scale"], images[:, ::2, ::2]) for name, layers in weights.items()}

    monkeypatch.setattr(scores, "feature_pyramids", two_layers)
    weights = {name: {"top": {"scale": jnp.float32(scale)}} for name, scale in (("vgg16", 3), ("vggface", 1))}
    frames = np.minimum(held.target_frames, 200) + np.uint8(51)
    wanted = held._replace(target_frames=np.minimum(held.target_frames, 200))
    table = heldout_table(wanted, frames, perceptual=weights, faces=False)
    assert set(table) == PIXELS | {"vgg16_distance", "vggface_distance"}
    np.testing.assert_allclose(table["l1/frame"], 0.2)
    np.testing.assert_allclose(table["vgg16_distance"], (3 * 0.4 + 0.4) / 2, rtol=1e-5)
    np.testing.assert_allclose(table["vggface_distance"], 0.4, rtol=1e-5)


def test_wrong_frames(held: HeldOut) -> None:
    with pytest.raises(ValueError, match=r"\(2, 2, 64, 64, 3\) like the targets, got \(2, 1, 64"):
        heldout_table(held, held.target_frames[:, :1])
    with pytest.raises(TypeError, match="uint8 RGB, got float64"):
        heldout_table.__wrapped__(held, held.target_frames / 255.0)


def test_faces_are_found_at_any_size_in_units_of_the_frame(held: HeldOut) -> None:
    records = VideoRecords(bundled_heads(), "heldout")
    large = load_heldout(records, image_size=128, people=2, sources=2, targets=2)
    small_points = measure_faces(held.target_frames, descriptors=False).landmarks
    large_points = measure_faces(large.target_frames, descriptors=False).landmarks
    assert small_points.shape == (2, 2, 68, 2)
    assert np.abs(small_points - large_points).mean() < 0.01
    assert np.linalg.norm(large_points - large.target_landmarks[..., :68, :], axis=-1).mean() < 0.02


def test_a_face_that_left_the_frame_is_not_found(held: HeldOut, monkeypatch: pytest.MonkeyPatch) -> None:
    def outside(frame, box):
        raise OutsideFrameError("gone")

    monkeypatch.setattr(face_measures, "settled_landmarks", outside)
    measured = measure_faces(held.target_frames[0])
    assert np.isnan(measured.landmarks).all()
    assert np.isnan(measured.descriptors).all()

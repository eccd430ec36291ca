"""What the landmark model `heads` is fitted to: points where the image shows them, in the order of the mirrored image."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from data_prep.tools import fit_landmark_cascade as tool
from th_jax.data.records import VideoRecords, bundled_heads
from th_jax.data.schema import VideoRecord
from th_jax.faces import box_around
from th_jax.faces.landmark_cascade import CONTEXT, CROP_SIDE, Cascade, View, descend
from th_jax.landmarks.scheme import MIRROR_ORDER
from th_jax.storage.tensors import read_described


@pytest.fixture(scope="module")
def record() -> VideoRecord:
    return VideoRecords(bundled_heads(), "train").read(0)


def dotted(points: np.ndarray, dot: int) -> bytes:
    """A frame with a white dot at one of the points."""
    frame = np.zeros((128, 128, 3), np.uint8)
    x, y = (points[dot] * 128 - 0.5) * 16
    cv2.circle(frame, (round(x), round(y)), 3 * 16, (255, 255, 255), -1, cv2.LINE_AA, 4)
    return cv2.imencode(".png", frame)[1].tobytes()


def test_points_lie_where_the_image_shows_them(record: VideoRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool, "degraded", lambda image, rng: image)
    points, swapped = record.true_landmarks[0].astype(np.float64), 0
    for seed in range(12):
        image, inside, view = tool.draw_example(dotted(points, 36), points, np.random.default_rng(seed))
        assert image.shape == (2 * CROP_SIDE, 2 * CROP_SIDE, 3)
        rows, columns = np.indices(image.shape[:2]) + 0.5
        weight = image[..., 0] / image[..., 0].sum(dtype=float)
        seen = np.array([(columns * weight).sum(), (rows * weight).sum()])
        nearest = int(np.linalg.norm(inside - seen, axis=1).argmin())
        np.testing.assert_allclose(inside[nearest], seen, atol=1.0)
        assert nearest in (36, MIRROR_ORDER[36])
        assert inside[36, 0] < inside[45, 0], "the left eye is on the left in the mirrored image, too"
        swapped += nearest != 36
        expected = box_around(inside[:68].astype(np.float32))
        assert np.linalg.norm(view.center - expected.center) < 0.4 * expected.side
        assert 0.6 < view.axes[0, 0] / (CONTEXT * expected.side) < 2
    assert 2 <= swapped <= 10


def test_a_view_converts_points_both_ways() -> None:
    view = View(np.array([30.0, 20.0]), np.array([[10.0, -4.0], [4.0, 10.0]]))
    points = np.random.default_rng(0).random((70, 2))
    np.testing.assert_allclose(view.to_crop(view.to_frame(points)), points)
    np.testing.assert_allclose(view.to_frame(np.full((70, 2), 0.5))[0], (30, 20))


def test_examples_depend_on_the_seed_and_their_number(record: VideoRecord) -> None:
    faces = tool.Faces(list(record.frames), record.true_landmarks.astype(np.float64), np.zeros(len(record.frames), int))
    few, more = (tool.draw_examples(faces, count=count, seed=1) for count in (2, 3))
    np.testing.assert_array_equal(few.canvases[1], more.canvases[1])
    np.testing.assert_array_equal(few.points, more.points[:2])
    assert not np.array_equal(more.canvases[2], more.canvases[1])
    assert not np.array_equal(tool.draw_examples(faces, count=2, seed=2).points, few.points)


def test_a_regression_finds_a_line_and_its_halves_predict_each_other() -> None:
    rng = np.random.default_rng(0)
    rows, line = rng.standard_normal((400, 5), np.float32), rng.standard_normal((5, 2), np.float32)
    half = np.arange(400) % 2 == 0
    found = tool.ridge(rows, rows @ line + np.float32(3.0), half)
    np.testing.assert_allclose(found.weights, line, atol=0.03)
    np.testing.assert_allclose(found.bias, 3.0, atol=0.03)
    assert found.penalty == min(tool.RIDGES)
    noise = rng.standard_normal((400, 2), np.float32)
    wide = rng.standard_normal((400, 300), np.float32)
    blind = tool.ridge(wide, noise, half)
    assert blind.penalty == max(tool.RIDGES)
    assert np.square(blind.crossed - noise).mean() > 1.0, "what was not seen cannot be predicted from noise"


def test_data_without_true_points_are_named(monkeypatch: pytest.MonkeyPatch, record: VideoRecord) -> None:
    monkeypatch.setattr(tool, "read_videos", lambda folder, split: iter([(0, record._replace(true_landmarks=None))]))
    with pytest.raises(ValueError, match="people has no true landmarks: give data sets of th-jax prepare render-heads"):
        tool.read_faces(["people"])


@pytest.mark.slow
def test_few_examples_make_a_cascade_that_comes_near(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And again to the byte; its file is read, and on a face that it has not seen it is better than the mean shape."""
    files = [tmp_path / "one.safetensors", tmp_path / "two.safetensors"]
    for file in files:
        assert tool.main(["--examples", "600", "--out", str(file)]) == 0
    assert files[0].read_bytes() == files[1].read_bytes()
    tensors, described, _ = read_described(files[0], file_format=tool.FORMAT)
    assert described["examples"] == 600
    cascade = Cascade(**{name: tensor.astype(np.float32) for name, tensor in tensors.items()})
    record = VideoRecords(bundled_heads(), "heldout").read(0)
    frame = cv2.imdecode(np.frombuffer(record.frames[0], np.uint8), cv2.IMREAD_COLOR_RGB)
    true = record.true_landmarks[0] * len(frame)
    box = box_around(true[:68])
    start = View(box.center, CONTEXT * box.side * np.eye(2))
    *_, (view, points) = descend(cascade, frame, start)
    error = tool.errors(view.to_frame(points)[None], true[None])[0]
    assert error < tool.errors(start.to_frame(cascade.mean)[None], true[None])[0]
    assert "of people left out" in capsys.readouterr().out

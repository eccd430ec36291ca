"""A single photo may be rotated, faint, or a statue with hand-marked landmarks: each becomes an upright shot."""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from th_jax.data import shot_selection as photo_candidates
from th_jax.data.shot_selection import turned_points
from th_jax.data.shots import Verdict, inspect_shots, load_shots
from th_jax.faces import detect_faces, segment_square, settled_landmarks, to_crop
from th_jax.media import read_image
from th_jax.provenance import Kind, Provenance, write_image, write_video

PORTRAIT = Path(__file__).parent.parent.parent / "th_jax" / "assets" / "portrait" / "astronaut.jpg"
RECORD = Provenance(kind=Kind.REAL_CROP)


def saved(folder: Path, name: str, image: np.ndarray) -> Path:
    return write_image(folder / name, np.ascontiguousarray(image), provenance=RECORD)


def statue() -> np.ndarray:
    """Smooth, without color, and with too little contrast for any copy."""
    smooth = cv2.GaussianBlur(cv2.cvtColor(read_image(PORTRAIT), cv2.COLOR_RGB2GRAY), (0, 0), 4)
    return np.repeat((smooth * 0.2 + 150).astype(np.uint8)[..., None], 3, axis=-1)


@pytest.fixture(scope="module")
def points() -> np.ndarray:
    """The portrait's landmarks, in pixels."""
    image = read_image(PORTRAIT)
    return settled_landmarks(image, detect_faces(image)[0].box)


def marked(folder: Path, points: np.ndarray) -> Path:
    path = folder / "points.txt"
    path.write_text("\n".join(f"{x:.3f} {y:.3f}" for x, y in points))
    return path


@pytest.mark.parametrize(("turns", "words"), [(1, "90"), (3, "-90")])
def test_a_rotated_photo_is_turned_upright(tmp_path: Path, turns: int, words: str) -> None:
    upright = load_shots(PORTRAIT, size=64)
    report = inspect_shots(saved(tmp_path, "lying.png", np.rot90(read_image(PORTRAIT), -turns)), size=64)
    (source,) = report.sources
    assert source.verdict is Verdict.USED
    assert f"found on a copy: turned by {words}°" in source.detail
    assert source.detail.endswith(f"the image is rotated by {words}°")
    np.testing.assert_allclose(report.shots.landmarks, upright.landmarks, atol=0.02)
    assert np.abs(report.shots.frames.astype(int) - upright.frames).mean() < 12


def test_points_turn_with_their_image() -> None:
    image = np.arange(6 * 9).reshape(6, 9)
    rows, columns = np.indices(image.shape)
    centers = np.stack([columns, rows], -1).reshape(-1, 2) + 0.5
    for turns in range(-1, 5):
        turned = turned_points(centers, height=6, width=9, quarter_turns=turns)
        x, y = (turned - 0.5).astype(int).T
        np.testing.assert_array_equal(np.rot90(image, turns)[y, x], image.ravel())


def test_weak_hits_on_inverted_faces_are_rejected(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    image = read_image(PORTRAIT)[::-1, ::-1]
    (upright,) = detect_faces(read_image(PORTRAIT))
    left, top, right, bottom = upright.box
    alarm = upright._replace(
        box=upright.box._replace(left=256 - right, top=256 - bottom, right=256 - left, bottom=256 - top)
    )
    monkeypatch.setattr(photo_candidates, "detect_faces", lambda frame: [alarm._replace(score=0.3)])
    (source,) = inspect_shots(saved(tmp_path, "inverted.png", image), size=32).sources
    assert "found on a copy: turned by" in source.detail
    assert source.detail.endswith("the image is rotated by 180°")


def test_copies_are_searched_only_while_photos_are_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder := tmp_path / "album").mkdir()
    searched = []
    monkeypatch.setattr(photo_candidates, "find_on_copies", lambda frame: searched.append(frame.shape))
    for name, image in (("a", statue()), ("b", read_image(PORTRAIT)), ("c", statue()[:200]), ("d", statue()[:210])):
        saved(folder, f"{name}.png", image)
    verdicts = [source.verdict for source in inspect_shots(folder, size=32, shots=1).sources]
    assert verdicts == [Verdict.NO_FACE, Verdict.USED, Verdict.NO_FACE, Verdict.NO_FACE]
    assert searched == [(256, 256, 3)]
    inspect_shots(folder, size=32, shots=2)
    assert [shape[0] for shape in searched] == [256, 256, 200, 210]


def test_a_statue_by_hand(tmp_path: Path, points: np.ndarray) -> None:
    photo, file = saved(tmp_path, "statue.png", statue()), marked(tmp_path, points)
    report = inspect_shots(photo, size=128, landmarks=file)
    assert report.sources[0].verdict is Verdict.USED
    assert report.sources[0].detail.startswith("landmarks of points.txt, face 98 px")
    assert report.shots.frames.shape == (1, 128, 128, 3)
    square = segment_square(points[None], height=256, width=256)
    np.testing.assert_allclose(report.shots.landmarks[0], to_crop(points, square), atol=1e-4)
    lying = saved(tmp_path, "lying.png", np.rot90(statue()))
    file = marked(tmp_path, turned_points(points, height=256, width=256, quarter_turns=1))
    np.testing.assert_array_equal(load_shots(lying, size=128, landmarks=file).frames, report.shots.frames)


def test_hand_marked_pupils_are_kept(tmp_path: Path, points: np.ndarray) -> None:
    eyes = [points[36:42].mean(0), points[42:48].mean(0)]
    shots = load_shots(PORTRAIT, size=64, landmarks=marked(tmp_path, np.concatenate([points, eyes])))
    assert shots.landmarks.shape == (1, 70, 2)


def test_by_hand_needs_no_detector(tmp_path: Path, points: np.ndarray) -> None:
    program = (
        "import sys; sys.modules['dlib'] = None; from th_jax.data import load_shots; "
        f"print(load_shots({str(PORTRAIT)!r}, size=32, landmarks={str(marked(tmp_path, points))!r}).frames.shape)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(1, 32, 32, 3)"


def test_landmarks_are_of_one_photo(tmp_path: Path, points: np.ndarray) -> None:
    file = marked(tmp_path, points)
    with pytest.raises(ValueError, match=r"single photo, but .* is a folder"):
        load_shots(tmp_path, landmarks=file)
    video = write_video(tmp_path / "a.mp4", [statue()], fps=25, provenance=RECORD)
    with pytest.raises(ValueError, match=r"single photo, but .* is a video"):
        load_shots(video, landmarks=file)
    with pytest.raises(ValueError, match=r"missing\.txt does not exist"):
        load_shots(PORTRAIT, landmarks=tmp_path / "missing.txt")

"""Hand-marked landmarks are read from text, and rejected with a reason if they cannot be a face's."""

import json
from pathlib import Path

import numpy as np
import pytest

from th_jax.data.landmark_file import MAX_BYTES, read_landmark_file
from th_jax.landmarks.scheme import MIRROR_ORDER
from th_jax.media import MediaError

EYE = np.array([(-12, 0), (-6, -5), (6, -5), (12, 0), (6, 5), (-6, 5)])


def face() -> np.ndarray:
    """A plain face about (120, 110), 130 px wide."""
    angles = np.linspace(np.pi, 0, 17)
    jaw = np.stack([120 + 65 * np.cos(angles), 100 + 80 * np.sin(angles)], -1)
    brows = [(x, 75) for x in (65, 75, 85, 95, 105, 135, 145, 155, 165, 175)]
    nose = [(120, y) for y in (95, 105, 115, 125)] + [(x, 132) for x in (105, 112, 120, 128, 135)]
    around = np.linspace(np.pi, 3 * np.pi, 13)[:-1]
    outer = np.stack([120 + 25 * np.cos(around), 152 + 10 * np.sin(around)], -1)
    around = around[[0, 2, 3, 4, 6, 8, 9, 10]]
    inner = np.stack([120 + 18 * np.cos(around), 152 + 4 * np.sin(around)], -1)
    return np.concatenate([jaw, brows, nose, EYE + np.array([92, 95]), EYE + np.array([148, 95]), outer, inner])


def lines(points: np.ndarray, separator: str = " ") -> str:
    return "\n".join(separator.join(f"{value:.9g}" for value in point) for point in points)


def read(folder: Path, content: str | bytes, *, suffix: str = ".txt", side: int = 256) -> np.ndarray:
    path = folder / f"face{suffix}"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_landmark_file(path, height=side, width=side)


FORMATS = {
    "spaces": (".txt", lines(face())),
    "commas": (".csv", lines(face(), ",")),
    "semicolons, heading, comments, byte order mark": (".csv", "\ufeff# jaw\n\nx;y\n" + lines(face(), " ; ")),
    "quoted heading": (".CSV", '"x","y"\r\n' + lines(face(), ",").replace("\n", "\r\n")),
    "list": (".json", json.dumps(face().tolist())),
    "under a name": (".json", json.dumps({"note": "by hand", "landmarks": face().tolist()})),
    "iBUG": (".pts", "version: 1\nn_points: 68\n{\n" + lines(face() + 0.5) + "\n}\n"),
}


@pytest.mark.parametrize("name", FORMATS)
def test_formats(tmp_path: Path, name: str) -> None:
    suffix, text = FORMATS[name]
    points = read(tmp_path, text, suffix=suffix)
    assert points.dtype == np.float32
    np.testing.assert_allclose(points, face(), atol=1e-4)


def test_pupils_may_follow(tmp_path: Path) -> None:
    points = np.concatenate([face(), [(92, 95), (148, 95)]])
    np.testing.assert_allclose(read(tmp_path, lines(points)), points, atol=1e-4)


def test_rotated_and_cropped_faces_are_valid(tmp_path: Path) -> None:
    lying = np.stack([face()[:, 1], 256 - face()[:, 0]], -1)
    np.testing.assert_allclose(read(tmp_path, lines(lying)), lying, atol=1e-4)
    np.testing.assert_allclose(read(tmp_path, lines(face()), side=150), face(), atol=1e-4)


def changed(index: int, point: tuple[float, float]) -> str:
    points = face()
    points[index] = point
    return lines(points)


BAD = {
    "too few": (".txt", lines(face()[:5]), r"face\.txt has 5 points, but expected 68, or 70"),
    "nothing": (".json", "[]", "has 0 points"),
    "three numbers": (".txt", "1 2\n1 2 3\n", "line 2: .*got '1 2 3'"),
    "words": (".csv", "jaw,left\n", "line 1: .*got 'jaw,left'"),
    "not finite": (".txt", changed(7, (np.nan, 3)), "point 7 is not finite"),
    "infinite": (".json", json.dumps([[float("inf"), 1.0], *face().tolist()[1:]]), "Infinity is not a JSON value"),
    "outside": (".txt", changed(3, (500, 20)), r"point 3 at \(500, 20\) lies far outside the image of 256 x 256 px"),
    "shares": (".txt", lines(face() / 256), "give pixel coordinates"),
    "one place": (".txt", lines(np.full((68, 2), 40.0)), "span a face of 0 px, but at least 24"),
    "small": (".txt", lines(face() / 10), r"span a face of 1\d px"),
    "mirrored": (".txt", lines((256, 0) + face() * (-1, 1)), "left and right are swapped"),
    "another order": (".txt", lines(face()[::-1]), "iBUG order"),
    "no list": (".json", '{"points": []}', 'expected a list .*"landmarks"'),
    "truth values": (".json", "[[true, 1]]", r"point 0: .*got \[True, 1\]"),
    "deep": (".json", "[" * 60_000, "not a readable landmark file"),
    "huge number": (".json", "[[1" + "0" * 400 + ", 1]]", "not a readable landmark file"),
    "no JSON": (".json", "x y", "not a readable landmark file"),
    "no braces": (".pts", lines(face()), "n_points: 68"),
    "binary": (".txt", b"\x80\x81\xff", "not valid UTF-8"),
    "suffix": (".npz", lines(face()), r"suffix .*\.txt, \.csv, \.json, \.pts"),
    "empty": (".txt", "", r"is empty \(0 bytes\)"),
    "large": (".txt", "0 " * MAX_BYTES, f"over the limit of {MAX_BYTES}"),
}


@pytest.mark.parametrize("name", BAD)
def test_invalid_landmark_files(tmp_path: Path, name: str) -> None:
    suffix, content, message = BAD[name]
    with pytest.raises(ValueError, match=message) as raised:
        read(tmp_path, content, suffix=suffix)
    assert "\n" not in str(raised.value)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"face\.txt does not exist"):
        read_landmark_file(tmp_path / "face.txt", height=9, width=9)
    (tmp_path / "folder.txt").mkdir()
    with pytest.raises(MediaError, match="is a folder"):
        read_landmark_file(tmp_path / "folder.txt", height=9, width=9)


def test_the_plain_face_is_mirrored_onto_itself(tmp_path: Path) -> None:
    mirrored = ((240, 0) + face() * (-1, 1))[MIRROR_ORDER[:68]]
    np.testing.assert_allclose(mirrored, face(), atol=1e-9)
    np.testing.assert_allclose(read(tmp_path, lines(mirrored)), face(), atol=1e-4)

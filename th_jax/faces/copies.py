"""Finds faces that plain detection misses, on contrast-stretched, enlarged and rotated copies of an image.

This helps with paintings, statues, small faces and images that lie on their side. The kinds of copies are searched in
the order of `COPIES`, and the search ends with the first kind that shows a face. A hit counts only if the detector
confirms it twice, in an upright view of fixed size around it and in that view's mirror image, and finds no better face
in the view's quarter turns. Coordinates are pixels of the original image.
"""

from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from th_jax.faces.detect import ENLARGED_SIDE, SEARCH_SIDE, Box, Face, detect_faces, most_prominent
from th_jax.faces.track import box_around, settled_landmarks

TURNS = (15.0, -15.0, 30.0, -30.0, 45.0, -45.0, 90.0, -90.0, 135.0, -135.0, 180.0)
"""Counterclockwise rotation of the copies in degrees; the detector itself tolerates about 35 to both sides."""

PARTS = (2, 3)
"""Enlarged copies show overlapping parts: halves, and then thirds of each side."""

MAX_ENLARGEMENT = 3.5
"""Maximum enlargement of a part; faces are then found from 23 px on."""

_FINER = 1.2
"""Minimum factor by which a part must be larger than the copies searched before it."""

COPY_SCORE = 0.25
"""Minimum of a face's three scores. Copies are fifty more chances of a false detection, usually a lying or inverted face."""

DOUBTFUL = 0.6
"""Score of `detect_faces` below which a face may be a false detection of an inverted one, and gets a `second_look`."""

COPIES = (
    "contrast-stretched",
    "enlarged",
    "turned",
    "contrast-stretched and enlarged",
    "contrast-stretched and turned",
)
"""Kinds of copies, in search order: at most 1, 13, 11, 13 and 11 searches of copies that are at most SEARCH_SIDE long,
each as expensive as plain detection in a large image."""

_OVERLAP = 0.2
"""Minimum overlap of neighboring parts, as a share of a part's side; any face not found before fits into it."""

_FACE_IN_VIEW, _VIEW = 200.0, 520
"""Sides of the face and of the upright view around it, in pixels; detection does not enlarge views of this size."""

_VIEWS_SHIFT = 0.35
"""Maximum distance of a confirmed face from the center of its view, in face sizes."""


class CopyFace(NamedTuple):
    """The most prominent face in the first kind of copies that shows one."""

    landmarks: Float[np.ndarray, "68 2"]
    """Landmarks in pixels of the original image, ordered as in an upright face: the jaw of an inverted face is at the top."""
    score: float
    """Minimum of the detector's scores in the search and the two views."""
    rivals: int
    """Number of other faces in that kind of copies, as counted by `most_prominent`."""
    roll: float
    """Clockwise rotation of the face from upright in degrees, in (-180, 180]."""
    copy: str
    """Description of the copy that showed the face: "contrast-stretched", "enlarged 2.1 times", "turned by -90°"."""


class _Hit(NamedTuple):
    """A face found in a copy, in pixels of the original; its box is upright in a copy rotated by `turn` degrees."""

    face: Face
    turn: float
    copy: str


def find_on_copies(frame: UInt8[np.ndarray, "H W 3"]) -> CopyFace | None:
    """Find a face that `detect_faces` misses in an RGB image; None if there is none, after about 50 searches.

    Raises:
        ImportError: if the extra `video` is not installed.
        FileNotFoundError, ValueError: as `predict_landmarks`, for the landmark model.
    """
    stretched: np.ndarray | None = None
    for kind in COPIES:
        image = frame
        if kind.startswith("contrast-stretched"):
            stretched = stretch_contrast(frame) if stretched is None else stretched
            image = stretched
        hits = _distinct(_hits(image, kind))
        confirmed = [found for hit in hits if (found := _confirmed(image, hit, COPY_SCORE))]
        if confirmed:
            _, rivals = most_prominent([_face(found) for found in confirmed])
            best = max(confirmed, key=lambda found: found.score * _face(found).box.side)
            return best._replace(rivals=rivals)
    return None


def second_look(frame: UInt8[np.ndarray, "H W 3"], face: Face) -> float:
    """Score a detected face again, in the upright view around it and its mirror image.

    Faces that are actually lying or inverted get low scores.

    Returns:
        The lower of the two scores; -1 if either view shows no face.

    Raises:
        ImportError: if the extra `video` is not installed.
        FileNotFoundError, ValueError: as `predict_landmarks`, for the landmark model.
    """
    found = _confirmed(frame, _Hit(face._replace(score=np.inf), 0.0, ""), -1.0)
    return -1.0 if found is None else found.score


def stretch_contrast(frame: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W 3"]:
    """Equalize the lightness locally, within limits (CLAHE), and keep the colors."""
    lab = cv2.cvtColor(frame, cv2.COLOR_RGB2LAB)
    lab[..., 0] = cv2.createCLAHE(clipLimit=4.0, tileGridSize=(8, 8)).apply(np.ascontiguousarray(lab[..., 0]))
    return cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)


def face_roll(landmarks: Float[np.ndarray, "P 2"]) -> float:
    """Compute a face's clockwise rotation from upright in degrees, in (-180, 180], from its eyes and mouth."""
    left, right, mouth = (landmarks[part].mean(0) for part in (slice(36, 42), slice(42, 48), slice(48, 68)))
    across, down = right - left, mouth - (left + right) / 2
    return float(np.degrees(np.arctan2(across[1] - down[0], across[0] + down[1])))


def _hits(image: np.ndarray, kind: str) -> Iterator[_Hit]:
    if kind.endswith("enlarged"):
        return _in_parts(image, kind)
    if kind.endswith("turned"):
        return _in_turned(image, kind)
    return (_Hit(face, 0.0, kind) for face in detect_faces(image, min_score=COPY_SCORE))


def _in_parts(image: np.ndarray, kind: str) -> Iterator[_Hit]:
    height, width = image.shape[:2]
    searched = _plain_scale(max(height, width))
    for parts in PARTS:
        share = 1 / (parts - (parts - 1) * _OVERLAP)
        down, across = max(1, round(share * height)), max(1, round(share * width))
        scale = min(MAX_ENLARGEMENT, SEARCH_SIDE / max(down, across))
        if scale < _FINER * searched:
            continue
        searched = scale
        for top in np.linspace(0, height - down, parts).round().astype(int):
            for left in np.linspace(0, width - across, parts).round().astype(int):
                part = _scaled(image[top : top + down, left : left + across], scale)
                to_part = _scaling(part.shape, (down, across)) @ _shift(-float(left), -float(top))
                for face in detect_faces(part, min_score=COPY_SCORE):
                    yield _Hit(_moved(face, np.linalg.inv(to_part)), 0.0, f"{kind} {scale:.1f} times")


def _plain_scale(longer: int) -> float:
    """Return the largest scale at which `detect_faces` searches an image whose longer side has this length."""
    enlarged = [scale for scale in (2.0, 4.0) if scale * longer <= ENLARGED_SIDE]
    return max([min(1.0, SEARCH_SIDE / longer), *enlarged])


def _in_turned(image: np.ndarray, kind: str) -> Iterator[_Hit]:
    height, width = image.shape[:2]
    reduced = _scaled(image, min(1.0, SEARCH_SIDE / max(height, width)))
    to_reduced = _scaling(reduced.shape, (height, width))
    for turn in TURNS:
        rows, columns = reduced.shape[:2]
        cosine, sine = abs(np.cos(np.radians(turn))), abs(np.sin(np.radians(turn)))
        size = (round(columns * cosine + rows * sine), round(columns * sine + rows * cosine))
        to_copy = _shift(size[0] / 2, size[1] / 2) @ _turning(turn) @ _shift(-columns / 2, -rows / 2)
        copy = _warped(reduced, to_copy, size)
        for face in detect_faces(copy, min_score=COPY_SCORE):
            yield _Hit(_moved(face, np.linalg.inv(to_copy @ to_reduced)), turn, f"{kind} by {turn:.0f}°")


def _distinct(hits: Iterator[_Hit]) -> list[_Hit]:
    """Drop hits that show the same face as a better one: parts overlap, and several rotations show one face."""
    kept: list[_Hit] = []
    for hit in sorted(hits, key=lambda hit: -hit.face.score):
        near = (np.linalg.norm(hit.face.box.center - k.face.box.center) < 0.6 * k.face.box.side for k in kept)
        if not any(near):
            kept.append(hit)
    return kept


def _confirmed(image: np.ndarray, hit: _Hit, min_score: float) -> CopyFace | None:
    """Return the hit with landmarks, if the detector confirms it in the upright view and its mirror image."""
    turn = hit.turn
    found = _landmarks(image, hit.face.box.center, hit.face.box.side, turn)
    if turn:
        turn = face_roll(found)
        found = _landmarks(image, *_middle_and_side(found, turn), turn)
    view, _ = _view(image, *_middle_and_side(found, turn), turn)
    scores = [hit.face.score, _score(view, min_score), _score(np.ascontiguousarray(view[:, ::-1]), min_score)]
    if min(scores) < min_score or _stands_better_otherwise(view, min(scores)):
        return None
    return CopyFace(found, min(scores), 0, face_roll(found), hit.copy)


def _stands_better_otherwise(view: np.ndarray, score: float) -> bool:
    """Return whether a quarter turn of the view shows a better face: lying and inverted ones look a bit like upright ones."""
    turned = (np.ascontiguousarray(np.rot90(view, turns)) for turns in (2, 1, 3))
    return any(face.score > score for image in turned for face in detect_faces(image, min_score=score))


def _middle_and_side(landmarks: np.ndarray, turn: float) -> tuple[np.ndarray, float]:
    """Compute center and side of the detector's box around these landmarks in a copy rotated by `turn` degrees."""
    box = box_around(_apply(_turning(turn), landmarks).astype(np.float32))
    return _apply(_turning(-turn), box.center), box.side


def _score(view: np.ndarray, min_score: float) -> float:
    """Return the score of the face in the center of a view; minus infinity if there is none."""
    near = [
        face.score
        for face in detect_faces(view, min_score=min_score)
        if np.linalg.norm(face.box.center - _VIEW / 2) < _VIEWS_SHIFT * _FACE_IN_VIEW
        and 0.6 < face.box.side / _FACE_IN_VIEW < 1.6
    ]
    return max(near, default=-np.inf)


def _landmarks(image: np.ndarray, center: np.ndarray, side: float, turn: float) -> np.ndarray:
    view, to_view = _view(image, center, side, turn)
    edges = (_VIEW - _FACE_IN_VIEW) / 2, (_VIEW + _FACE_IN_VIEW) / 2
    settled = settled_landmarks(view, Box(edges[0], edges[0], edges[1], edges[1]))
    return _apply(np.linalg.inv(to_view), settled).astype(np.float32)


def _view(image: np.ndarray, center: np.ndarray, side: float, turn: float) -> tuple[np.ndarray, np.ndarray]:
    """Cut out a square around a face, upright and with a fixed face size; returns it with the matrix that maps into it."""
    scale = _FACE_IN_VIEW / side
    reach = 0.75 * _VIEW / scale  # half the view's diagonal, with a margin
    left, top = (max(0, int(edge)) for edge in center - reach)
    right, bottom = (max(1, int(edge) + 1) for edge in center + reach)
    part = image[top:bottom, left:right]
    near = _scaled(part, min(1.0, scale))  # averages areas, which the rotation would not do
    to_near = _scaling(near.shape, part.shape) @ _shift(-float(left), -float(top))
    enlarging = np.diag([max(1.0, scale), max(1.0, scale), 1.0])
    middle = _apply(to_near, center)
    to_view = _shift(_VIEW / 2, _VIEW / 2) @ enlarging @ _turning(turn) @ _shift(-middle[0], -middle[1])
    return _warped(near, to_view, (_VIEW, _VIEW)), to_view @ to_near


def _scaled(image: np.ndarray, scale: float) -> np.ndarray:
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    if size == (image.shape[1], image.shape[0]):
        return np.ascontiguousarray(image)
    return cv2.resize(image, size, interpolation=cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA)


def _warped(image: np.ndarray, matrix: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Warp the image by a matrix in edge-based coordinates; outside, fill with its mean color, which shows no faces."""
    centers = _shift(-0.5, -0.5) @ matrix @ _shift(0.5, 0.5)  # OpenCV counts from the center of the first pixel
    around = [float(mean) for mean in image.mean((0, 1))]
    return cv2.warpAffine(image, centers[:2], size, flags=cv2.INTER_CUBIC, borderValue=around)


def _shift(x: float, y: float) -> np.ndarray:
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1]], np.float64)


def _scaling(into: tuple[int, ...], of: tuple[int, ...]) -> np.ndarray:
    """Compute the matrix from an image to its resized copy, given their shapes."""
    return np.diag([into[1] / of[1], into[0] / of[0], 1.0])


def _turning(degrees: float) -> np.ndarray:
    """Compute a rotation matrix, counterclockwise on screen, where y points down."""
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[cosine, sine, 0], [-sine, cosine, 0], [0, 0, 1]], np.float64)


def _apply(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    return points @ matrix[:2, :2].T + matrix[:2, 2]


def _moved(face: Face, matrix: np.ndarray) -> Face:
    """Map a face of a copy into the original: center and side are transformed, the box stays upright."""
    x, y = _apply(matrix, face.box.center)
    half = face.box.side * np.sqrt(abs(np.linalg.det(matrix[:2, :2]))) / 2
    return Face(Box(x - half, y - half, x + half, y + half), face.score)


def _face(found: CopyFace) -> Face:
    return Face(box_around(found.landmarks), found.score)

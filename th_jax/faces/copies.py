"""Finds a face that detection misses in a picture, on contrast-stretched, enlarged and turned copies of it.

For paintings, statues, small faces and pictures that lie on their side. The kinds of copies are searched in the order of
`COPIES`, and the search ends with the first kind that shows a face. A hit counts only if the detector sees it twice
again, in an upright view of fixed size about it and in that view's mirror image, and no better face in the view's quarter
turns. Coordinates are pixels of the original picture.
"""

from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from th_jax.faces.detect import ENLARGED_SIDE, SEARCH_SIDE, Box, Face, detect_faces, most_prominent
from th_jax.faces.track import box_around, settled_landmarks

TURNS = (15.0, -15.0, 30.0, -30.0, 45.0, -45.0, 90.0, -90.0, 135.0, -135.0, 180.0)
"""Degrees by which copies are turned, counterclockwise; the detector itself stands about 35 to both sides."""

PARTS = (2, 3)
"""Enlarged copies show overlapping parts, a half and then a third of each side."""

MAX_ENLARGEMENT = 3.5
"""Factor above which no part is enlarged: faces are found from 23 px then."""

_FINER = 1.2
"""Factor by which parts must be larger than what was searched before, or they are passed over."""

COPY_SCORE = 0.25
"""The least of a face's three scores: copies are fifty chances more of a false alarm, most of them lying or inverted faces."""

DOUBTFUL = 0.6
"""Score of `detect_faces` below which a face may be the false alarm of an inverted one, and is worth a `second_look`."""

COPIES = (
    "contrast-stretched",
    "enlarged",
    "turned",
    "contrast-stretched and enlarged",
    "contrast-stretched and turned",
)
"""The order in which kinds of copies are searched: at most 1, 13, 11, 13 and 11 searches of copies that are
at most SEARCH_SIDE long, each as costly as the plain detection of a large picture."""

_OVERLAP = 0.2
"""Share of a part's side that its neighbour shows too, at least: a face that is still unfound fits into it."""

_FACE_IN_VIEW, _VIEW = 200.0, 520
"""Sides of the face and of the upright view about it, in pixels; detection enlarges no view of this size."""

_VIEWS_SHIFT = 0.35
"""Face sizes by which a confirmed face may lie off the middle of its view."""


class CopyFace(NamedTuple):
    """The most prominent face of the first kind of copies that shows one."""

    landmarks: Float[np.ndarray, "68 2"]
    """Pixels of the original picture, ordered as in an upright face: the jaw of one on its head lies above."""
    score: float
    """The least of the detector's scores in the search and the two views."""
    rivals: int
    """Other faces of that kind of copies, as `most_prominent` counts them."""
    roll: float
    """Degrees by which the face is turned clockwise from upright, in (-180, 180]."""
    copy: str
    """Which copy showed it, in words: "contrast-stretched", "enlarged 2.1 times", "turned by -90°"."""


class _Hit(NamedTuple):
    """A face that a copy shows, in pixels of the original; its box is upright in a copy turned by `turn` degrees."""

    face: Face
    turn: float
    copy: str


def find_on_copies(frame: UInt8[np.ndarray, "H W 3"], *, min_score: float = COPY_SCORE) -> CopyFace | None:
    """A face that `detect_faces` does not find in an RGB picture, or None; a picture without one costs about 50 searches.

    Raises:
        ImportError: without the extra `video`.
        FileNotFoundError, ValueError: as `predict_landmarks`, for the landmark model.
    """
    stretched: np.ndarray | None = None
    for kind in COPIES:
        picture = frame
        if kind.startswith("contrast-stretched"):
            stretched = stretch_contrast(frame) if stretched is None else stretched
            picture = stretched
        confirmed = [
            found
            for hit in _distinct(_hits(picture, kind, min_score))
            if (found := _confirmed(picture, hit, min_score))
        ]
        if confirmed:
            _, rivals = most_prominent([_face(found) for found in confirmed])
            best = max(confirmed, key=lambda found: found.score * _face(found).box.side)
            return best._replace(rivals=rivals)
    return None


def second_look(frame: UInt8[np.ndarray, "H W 3"], face: Face) -> float:
    """The lesser score of a detected face in the upright view about it and in its mirror image; -1 if one has none.

    So it is for what is rather a lying or an inverted face.

    Raises:
        ImportError: without the extra `video`.
        FileNotFoundError, ValueError: as `predict_landmarks`, for the landmark model.
    """
    found = _confirmed(frame, _Hit(face._replace(score=np.inf), 0.0, ""), -1.0)
    return -1.0 if found is None else found.score


def stretch_contrast(frame: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W 3"]:
    """The picture with its lightness equalised from place to place, within limits (CLAHE), and its colours kept."""
    lab = cv2.cvtColor(frame, cv2.COLOR_RGB2LAB)
    lab[..., 0] = cv2.createCLAHE(clipLimit=4.0, tileGridSize=(8, 8)).apply(np.ascontiguousarray(lab[..., 0]))
    return cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)


def face_roll(landmarks: Float[np.ndarray, "P 2"]) -> float:
    """Degrees by which a face is turned clockwise from upright, in (-180, 180], by its eyes and its mouth."""
    left, right, mouth = (landmarks[part].mean(0) for part in (slice(36, 42), slice(42, 48), slice(48, 68)))
    across, down = right - left, mouth - (left + right) / 2
    return float(np.degrees(np.arctan2(across[1] - down[0], across[0] + down[1])))


def _hits(picture: np.ndarray, kind: str, min_score: float) -> Iterator[_Hit]:
    if kind.endswith("enlarged"):
        return _in_parts(picture, kind, min_score)
    if kind.endswith("turned"):
        return _in_turned(picture, kind, min_score)
    return (_Hit(face, 0.0, kind) for face in detect_faces(picture, min_score=min_score))


def _in_parts(picture: np.ndarray, kind: str, min_score: float) -> Iterator[_Hit]:
    height, width = picture.shape[:2]
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
                part = _scaled(picture[top : top + down, left : left + across], scale)
                to_part = _scaling(part.shape, (down, across)) @ _shift(-float(left), -float(top))
                for face in detect_faces(part, min_score=min_score):
                    yield _Hit(_moved(face, np.linalg.inv(to_part)), 0.0, f"{kind} {scale:.1f} times")


def _plain_scale(longer: int) -> float:
    """The largest scale at which `detect_faces` searches a picture of this side."""
    enlarged = [scale for scale in (2.0, 4.0) if scale * longer <= ENLARGED_SIDE]
    return max([min(1.0, SEARCH_SIDE / longer), *enlarged])


def _in_turned(picture: np.ndarray, kind: str, min_score: float) -> Iterator[_Hit]:
    height, width = picture.shape[:2]
    reduced = _scaled(picture, min(1.0, SEARCH_SIDE / max(height, width)))
    to_reduced = _scaling(reduced.shape, (height, width))
    for turn in TURNS:
        rows, columns = reduced.shape[:2]
        cosine, sine = abs(np.cos(np.radians(turn))), abs(np.sin(np.radians(turn)))
        size = (round(columns * cosine + rows * sine), round(columns * sine + rows * cosine))
        to_copy = _shift(size[0] / 2, size[1] / 2) @ _turning(turn) @ _shift(-columns / 2, -rows / 2)
        copy = _warped(reduced, to_copy, size)
        for face in detect_faces(copy, min_score=min_score):
            yield _Hit(_moved(face, np.linalg.inv(to_copy @ to_reduced)), turn, f"{kind} by {turn:.0f}°")


def _distinct(hits: Iterator[_Hit]) -> list[_Hit]:
    """Without those that show the face of a better one: parts overlap, and several turns show one face."""
    kept: list[_Hit] = []
    for hit in sorted(hits, key=lambda hit: -hit.face.score):
        near = (np.linalg.norm(hit.face.box.center - k.face.box.center) < 0.6 * k.face.box.side for k in kept)
        if not any(near):
            kept.append(hit)
    return kept


def _confirmed(picture: np.ndarray, hit: _Hit, min_score: float) -> CopyFace | None:
    """The hit with its landmarks, if the detector sees it again in the upright view and in the mirror."""
    turn = hit.turn
    found = _landmarks(picture, hit.face.box.center, hit.face.box.side, turn)
    if turn:
        turn = face_roll(found)
        found = _landmarks(picture, *_middle_and_side(found, turn), turn)
    view, _ = _view(picture, *_middle_and_side(found, turn), turn)
    scores = [hit.face.score, _score(view, min_score), _score(np.ascontiguousarray(view[:, ::-1]), min_score)]
    if min(scores) < min_score or _stands_better_otherwise(view, min(scores)):
        return None
    return CopyFace(found, min(scores), 0, face_roll(found), hit.copy)


def _stands_better_otherwise(view: np.ndarray, score: float) -> bool:
    """Whether the view shows a better face in a quarter turn: lying and inverted ones look a little like upright ones."""
    turned = (np.ascontiguousarray(np.rot90(view, turns)) for turns in (2, 1, 3))
    return any(face.score > score for picture in turned for face in detect_faces(picture, min_score=score))


def _middle_and_side(landmarks: np.ndarray, turn: float) -> tuple[np.ndarray, float]:
    """Of the detector's box about these landmarks in a copy turned by `turn` degrees."""
    box = box_around(_apply(_turning(turn), landmarks).astype(np.float32))
    return _apply(_turning(-turn), box.center), box.side


def _score(view: np.ndarray, min_score: float) -> float:
    """The score of the face in the middle of a view, minus infinity if there is none."""
    near = [
        face.score
        for face in detect_faces(view, min_score=min_score)
        if np.linalg.norm(face.box.center - _VIEW / 2) < _VIEWS_SHIFT * _FACE_IN_VIEW
        and 0.6 < face.box.side / _FACE_IN_VIEW < 1.6
    ]
    return max(near, default=-np.inf)


def _landmarks(picture: np.ndarray, center: np.ndarray, side: float, turn: float) -> np.ndarray:
    view, to_view = _view(picture, center, side, turn)
    edges = (_VIEW - _FACE_IN_VIEW) / 2, (_VIEW + _FACE_IN_VIEW) / 2
    settled = settled_landmarks(view, Box(edges[0], edges[0], edges[1], edges[1]))
    return _apply(np.linalg.inv(to_view), settled).astype(np.float32)


def _view(picture: np.ndarray, center: np.ndarray, side: float, turn: float) -> tuple[np.ndarray, np.ndarray]:
    """A square about a face, turned upright, with the face at a fixed size; and the matrix that leads into it."""
    scale = _FACE_IN_VIEW / side
    reach = 0.75 * _VIEW / scale  # half the diagonal of the view, and some
    left, top = (max(0, int(edge)) for edge in center - reach)
    right, bottom = (max(1, int(edge) + 1) for edge in center + reach)
    part = picture[top:bottom, left:right]
    near = _scaled(part, min(1.0, scale))  # by area means, which the turning would not do
    to_near = _scaling(near.shape, part.shape) @ _shift(-float(left), -float(top))
    enlarging = np.diag([max(1.0, scale), max(1.0, scale), 1.0])
    middle = _apply(to_near, center)
    to_view = _shift(_VIEW / 2, _VIEW / 2) @ enlarging @ _turning(turn) @ _shift(-middle[0], -middle[1])
    return _warped(near, to_view, (_VIEW, _VIEW)), to_view @ to_near


def _scaled(picture: np.ndarray, scale: float) -> np.ndarray:
    size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    if size == (picture.shape[1], picture.shape[0]):
        return np.ascontiguousarray(picture)
    return cv2.resize(picture, size, interpolation=cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA)


def _warped(picture: np.ndarray, matrix: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The picture under a matrix of edge-based coordinates; around it, its mean colour, in which nothing can be found."""
    centers = _shift(-0.5, -0.5) @ matrix @ _shift(0.5, 0.5)  # OpenCV counts from the middle of the first pixel
    around = [float(mean) for mean in picture.mean((0, 1))]
    return cv2.warpAffine(picture, centers[:2], size, flags=cv2.INTER_CUBIC, borderValue=around)


def _shift(x: float, y: float) -> np.ndarray:
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1]], np.float64)


def _scaling(into: tuple[int, ...], of: tuple[int, ...]) -> np.ndarray:
    """The matrix from a picture to its resized copy, by their shapes."""
    return np.diag([into[1] / of[1], into[0] / of[0], 1.0])


def _turning(degrees: float) -> np.ndarray:
    """Counterclockwise on the screen, whose y points downwards."""
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[cosine, sine, 0], [-sine, cosine, 0], [0, 0, 1]], np.float64)


def _apply(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    return points @ matrix[:2, :2].T + matrix[:2, 2]


def _moved(face: Face, matrix: np.ndarray) -> Face:
    """A face of a copy in the original: its middle moves and its side scales; the box stays upright."""
    x, y = _apply(matrix, face.box.center)
    half = face.box.side * np.sqrt(abs(np.linalg.det(matrix[:2, :2]))) / 2
    return Face(Box(x - half, y - half, x + half, y + half), face.score)


def _face(found: CopyFace) -> Face:
    return Face(box_around(found.landmarks), found.score)

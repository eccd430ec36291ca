"""Who it is, where the head points and what the face does, from descriptors and the 68 iBUG landmarks; one value a frame.

numpy in float64. A frame whose face was not found is a row of NaN and gives NaN: `score_with_failures` counts it. Landmarks
are x then y from the left and the top edge, in any unit that is the same in both directions, pupils allowed after the 68.
"""

import numpy as np
from jaxtyping import Float

from th_jax.evaluation.metrics.pairs import AnyArray

Landmarks = Float[AnyArray, "B P 2"]
OtherLandmarks = Float[AnyArray, "B Q 2"]
"""Of the same frames; one side may know pupils and the other not."""
Descriptors = Float[AnyArray, "B D"]
PerFrame = Float[np.ndarray, " B"]

POINTS = 68
_OUTER_CORNERS = 36, 45

_RIGID = [36, 39, 42, 45, 27, 28, 29, 30, 31, 32, 33, 34, 35]
# Corners of the eyes and the nose, which no expression moves far: the mean of 100 neutral heads of the CC0 MakeHuman mesh,
# in interocular distances from their middle; x to the picture's right, y down, z away from the viewer.
_MEAN_HEAD = np.array(
    [
        [-0.500, -0.261, 0.178],
        [-0.208, -0.240, 0.143],
        [0.208, -0.240, 0.143],
        [0.500, -0.261, 0.178],
        [0.000, -0.294, 0.006],
        [0.000, -0.142, -0.038],
        [0.000, 0.003, -0.125],
        [0.000, 0.151, -0.224],
        [-0.158, 0.234, -0.020],
        [-0.077, 0.263, -0.068],
        [0.000, 0.290, -0.086],
        [0.077, 0.263, -0.068],
        [0.158, 0.234, -0.020],
    ]
)

EXPRESSION_MEASURES = ("mouth opening", "mouth width", "left eye", "right eye", "left brow", "right brow")
"""What `expression_measures` gives, in this order; left and right are those of the picture."""


def identity_l2(descriptors_a: Descriptors, descriptors_b: Descriptors) -> PerFrame:
    """The Euclidean distance of each pair of descriptors; 0 is the same, and other people's distance is the network's own.

    Raises:
        ValueError: if the descriptors differ in shape.
    """
    a, b = _descriptors(descriptors_a, descriptors_b)
    return np.linalg.norm(a - b, axis=-1)


def centred_cosine(descriptors_a: Descriptors, descriptors_b: Descriptors, *, mean: Float[AnyArray, " D"]) -> PerFrame:
    """The cosine of each pair of descriptors after `mean` is taken from both: 1 is the same, about 0 two strangers.

    Descriptors such as dlib's lie in a narrow cone, where the cosine of two strangers is 0.8: centred by the mean of many
    people it spreads from -1 to 1. NaN where a centred descriptor is zero.

    Raises:
        ValueError: if the descriptors or the mean differ in shape.
    """
    a, b = _descriptors(descriptors_a, descriptors_b)
    if mean.shape != a.shape[1:]:
        raise ValueError(f"the mean of descriptors of {a.shape[1]} numbers must be [{a.shape[1]}], but is {mean.shape}")
    centre = np.asarray(mean, np.float64)
    a, b = a - centre, b - centre
    lengths = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    cosine = np.full(len(a), np.nan)
    np.divide((a * b).sum(-1), lengths, out=cosine, where=lengths > 0)
    return np.clip(cosine, -1.0, 1.0)


def interocular_distance(landmarks: Landmarks) -> PerFrame:
    """From outer eye corner to outer eye corner (points 36 and 45), in the landmarks' unit.

    Raises:
        ValueError: for fewer than 68 points.
    """
    points = _landmarks(landmarks)
    return np.linalg.norm(points[:, _OUTER_CORNERS[1]] - points[:, _OUTER_CORNERS[0]], axis=-1)


def landmark_error(found: Landmarks, true: OtherLandmarks) -> PerFrame:
    """AKD: the mean distance of the 68 points from the true ones, divided by the true interocular distance.

    The mean is over the points known on both sides; NaN if there is none, or if a true outer eye corner is unknown.

    Raises:
        ValueError: for fewer than 68 points, or another number of frames.
    """
    a, b = _landmark_pair(found, true)
    distances = np.linalg.norm(a[:, :POINTS] - b[:, :POINTS], axis=-1)
    known = np.isfinite(distances)
    count = known.sum(-1)
    total = np.where(known, distances, 0.0).sum(-1)
    scale = interocular_distance(b)
    usable = (count > 0) & (scale > 0)
    return np.where(usable, total / np.where(usable, count * scale, 1.0), np.nan)


def head_rotation(landmarks: Landmarks) -> Float[np.ndarray, "B 3 3"]:
    """The rotation that turns a mean head so that, seen from far away, its eye corners and nose fall on the landmarks.

    The affine map of 13 points that no expression moves far, by least squares, brought to the nearest rotation with one
    scale. Axes: x to the picture's right, y down, z away from the viewer. The mean head's nose stands for everybody's, so
    that angles of one person carry a constant error of a few degrees: compare rotations of the same person.

    Returns:
        NaN where one of the 13 points is unknown.

    Raises:
        ValueError: for fewer than 68 points.
    """
    points = _landmarks(landmarks)[:, _RIGID]
    known = np.isfinite(points).all((1, 2))
    rotations = np.full((len(points), 3, 3), np.nan)
    here = points[known]
    if not len(here):
        return rotations
    head = _MEAN_HEAD - _MEAN_HEAD.mean(0)
    affine = (here - here.mean(1, keepdims=True)).swapaxes(1, 2) @ np.linalg.pinv(head).T
    left, _, right = np.linalg.svd(affine, full_matrices=False)
    rows = left @ right
    rotations[known] = np.concatenate([rows, np.cross(rows[:, 0], rows[:, 1])[:, None]], axis=1)
    return rotations


def pose_error(landmarks_a: Landmarks, landmarks_b: OtherLandmarks) -> PerFrame:
    """The angle of the rotation from one head pose to the other (`head_rotation`), in degrees, 0 to 180.

    Raises:
        ValueError: for fewer than 68 points, or another number of frames.
    """
    a, b = _landmark_pair(landmarks_a, landmarks_b)
    difference = head_rotation(a) - head_rotation(b)
    # |R - S| is 2 sqrt(2) sin(angle / 2): unlike the trace's arc cosine, exact for small angles.
    chord = np.linalg.norm(difference.reshape(len(a), 9), axis=-1) / np.sqrt(8.0)
    return np.degrees(2.0 * np.arcsin(np.clip(chord, 0.0, 1.0)))


def expression_measures(landmarks: Landmarks) -> Float[np.ndarray, "B 6"]:
    """Six distances that expressions change, in interocular distances, in the order of `EXPRESSION_MEASURES`.

    Mouth opening is the distance of the inner lips' middles (62, 66); mouth width that of the outer corners (48, 54); an
    eye's opening the mean of its two lid distances (37-41 and 38-40; 43-47 and 44-46); a brow's height the distance of the
    means of its five and of the eye's six points. Heads that turn shorten them unequally: compare equal poses.

    Raises:
        ValueError: for fewer than 68 points.
    """
    points = _landmarks(landmarks)

    def distance(one: int, other: int) -> np.ndarray:
        return np.linalg.norm(points[:, one] - points[:, other], axis=-1)

    def brow(first: int, eye: int) -> np.ndarray:
        return np.linalg.norm(points[:, first : first + 5].mean(1) - points[:, eye : eye + 6].mean(1), axis=-1)

    measures = [
        distance(62, 66),
        distance(48, 54),
        (distance(37, 41) + distance(38, 40)) / 2,
        (distance(43, 47) + distance(44, 46)) / 2,
        brow(17, 36),
        brow(22, 42),
    ]
    scale = interocular_distance(points)[:, None]
    return np.stack(measures, axis=-1) / np.where(scale > 0, scale, np.nan)


def expression_error(landmarks_a: Landmarks, landmarks_b: OtherLandmarks) -> PerFrame:
    """The mean absolute difference of the six expression measures, in interocular distances; NaN where one is unknown.

    Raises:
        ValueError: for fewer than 68 points, or another number of frames.
    """
    a, b = _landmark_pair(landmarks_a, landmarks_b)
    return np.abs(expression_measures(a) - expression_measures(b)).mean(-1)


def _descriptors(one: AnyArray, other: AnyArray) -> tuple[np.ndarray, np.ndarray]:
    if one.ndim != 2 or one.shape != other.shape:
        raise ValueError(f"descriptors must be two arrays [B, D], but have the shapes {one.shape} and {other.shape}")
    return np.asarray(one, np.float64), np.asarray(other, np.float64)


def _landmarks(landmarks: AnyArray) -> np.ndarray:
    if landmarks.ndim != 3 or landmarks.shape[1] < POINTS or landmarks.shape[2] != 2:
        raise ValueError(f"landmarks must be [B, 68 or more, 2], but have the shape {list(landmarks.shape)}")
    return np.asarray(landmarks, np.float64)


def _landmark_pair(one: AnyArray, other: AnyArray) -> tuple[np.ndarray, np.ndarray]:
    a, b = _landmarks(one), _landmarks(other)
    if len(a) != len(b):
        raise ValueError(f"landmarks of {len(a)} frames cannot be compared with those of {len(b)}")
    return a[:, :POINTS], b[:, :POINTS]

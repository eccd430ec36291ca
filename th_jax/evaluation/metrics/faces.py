"""Identity, head pose and expression metrics from descriptors and the 68 iBUG landmarks; one value per frame.

Computed by numpy in float64. A frame without a detected face is a row of NaN and gives NaN, which `score_with_failures`
counts. Landmarks are x then y from the left and top edge, in any isotropic unit; pupils may follow the 68 points.
"""

import numpy as np
from jaxtyping import Float

from th_jax.evaluation.metrics.pairs import AnyArray

Landmarks = Float[AnyArray, "B P 2"]
OtherLandmarks = Float[AnyArray, "B Q 2"]
"""Landmarks of the same frames, with or without pupils."""
Descriptors = Float[AnyArray, "B D"]
PerFrame = Float[np.ndarray, " B"]

POINTS = 68
_OUTER_CORNERS = 36, 45

_RIGID = [36, 39, 42, 45, 27, 28, 29, 30, 31, 32, 33, 34, 35]
# Eye corners and nose, which expressions hardly move: the mean of 100 neutral heads of the CC0 MakeHuman mesh, in
# interocular distances from their center; x to the image's right, y down, z away from the viewer.
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


def identity_l2(descriptors_a: Descriptors, descriptors_b: Descriptors) -> PerFrame:
    """Compute the Euclidean distance of each pair of descriptors.

    0 means identical; the distance of strangers depends on the network.

    Raises:
        ValueError: if the shapes of the descriptors differ.
    """
    a, b = _descriptors(descriptors_a, descriptors_b)
    return np.linalg.norm(a - b, axis=-1)


def centred_cosine(descriptors_a: Descriptors, descriptors_b: Descriptors, *, mean: Float[AnyArray, " D"]) -> PerFrame:
    """Compute the cosine of each pair of descriptors after subtracting `mean`: 1 is identical, about 0 for strangers.

    Descriptors such as dlib's lie in a narrow cone, in which the cosine of two strangers is 0.8. Centered by the mean
    of many people, it ranges from -1 to 1. NaN if a centered descriptor is zero.

    Raises:
        ValueError: if the shapes of the descriptors or the mean differ.
    """
    a, b = _descriptors(descriptors_a, descriptors_b)
    if mean.shape != a.shape[1:]:
        raise ValueError(f"the mean of descriptors of {a.shape[1]} numbers must be [{a.shape[1]}], got {mean.shape}")
    centre = np.asarray(mean, np.float64)
    a, b = a - centre, b - centre
    lengths = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    cosine = np.full(len(a), np.nan)
    np.divide((a * b).sum(-1), lengths, out=cosine, where=lengths > 0)
    return np.clip(cosine, -1.0, 1.0)


def interocular_distance(landmarks: Landmarks) -> PerFrame:
    """Compute the distance between the outer eye corners (points 36 and 45), in the landmarks' unit.

    Raises:
        ValueError: if there are fewer than 68 points.
    """
    points = _landmarks(landmarks)
    return np.linalg.norm(points[:, _OUTER_CORNERS[1]] - points[:, _OUTER_CORNERS[0]], axis=-1)


def landmark_error(found: Landmarks, true: OtherLandmarks) -> PerFrame:
    """Compute AKD: the mean distance of the 68 points from the true ones, divided by the true interocular distance.

    The mean is over the points known on both sides; NaN if there are none, or if a true outer eye corner is unknown.

    Raises:
        ValueError: if there are fewer than 68 points, or the numbers of frames differ.
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
    """Estimate the rotation by which a mean head matches the eye corners and nose of the landmarks, under scaled orthography.

    The affine map of 13 points that expressions hardly move is fitted by least squares, and replaced by the closest
    rotation with one scale. Axes: x to the image's right, y down, z away from the viewer. The nose is that of the mean
    head, so that one person's angles have a constant error of a few degrees: compare rotations of the same person.

    Returns:
        Rotation matrices; NaN where one of the 13 points is unknown.

    Raises:
        ValueError: if there are fewer than 68 points.
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
    """Compute the angle of the rotation between two head poses (`head_rotation`), in degrees, 0 to 180.

    Raises:
        ValueError: if there are fewer than 68 points, or the numbers of frames differ.
    """
    a, b = _landmark_pair(landmarks_a, landmarks_b)
    return rotation_angle(head_rotation(a), head_rotation(b))


def rotation_angle(first: Float[np.ndarray, "B 3 3"], second: Float[np.ndarray, "B 3 3"]) -> PerFrame:
    """Compute the angle between rotations in degrees, 0 to 180; NaN where one is unknown."""
    # |R - S| is 2 sqrt(2) sin(angle / 2): unlike the trace's arc cosine, accurate for small angles.
    chord = np.linalg.norm((first - second).reshape(len(first), 9), axis=-1) / np.sqrt(8.0)
    return np.degrees(2.0 * np.arcsin(np.clip(chord, 0.0, 1.0)))


def expression_measures(landmarks: Landmarks) -> Float[np.ndarray, "B 6"]:
    """Compute six distances that expressions change, in interocular distances: mouth opening and width, eyes, brows.

    Mouth opening is the distance of the centers of the inner lips (62, 66), and mouth width that of the outer corners
    (48, 54). An eye's opening is the mean of its two lid distances (37-41 and 38-40; 43-47 and 44-46). A brow's height
    is the distance between the means of its five and of the eye's six points. Head rotation shortens them unequally:
    compare equal poses.

    Raises:
        ValueError: if there are fewer than 68 points.
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
    """Compute the mean absolute difference of the six expression measures, in interocular distances; NaN where one is unknown.

    Raises:
        ValueError: if there are fewer than 68 points, or the numbers of frames differ.
    """
    a, b = _landmark_pair(landmarks_a, landmarks_b)
    return np.abs(expression_measures(a) - expression_measures(b)).mean(-1)


def _descriptors(one: AnyArray, other: AnyArray) -> tuple[np.ndarray, np.ndarray]:
    if one.ndim != 2 or one.shape != other.shape:
        raise ValueError(f"descriptors must be two arrays [B, D], got {one.shape} and {other.shape}")
    return np.asarray(one, np.float64), np.asarray(other, np.float64)


def _landmarks(landmarks: AnyArray) -> np.ndarray:
    if landmarks.ndim != 3 or landmarks.shape[1] < POINTS or landmarks.shape[2] != 2:
        raise ValueError(f"landmarks must be [B, 68 or more, 2], got {list(landmarks.shape)}")
    return np.asarray(landmarks, np.float64)


def _landmark_pair(one: AnyArray, other: AnyArray) -> tuple[np.ndarray, np.ndarray]:
    a, b = _landmarks(one), _landmarks(other)
    if len(a) != len(b):
        raise ValueError(f"landmarks of {len(a)} frames cannot be compared with those of {len(b)}")
    return a[:, :POINTS], b[:, :POINTS]

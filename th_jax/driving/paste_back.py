"""Puts the avatar's face back into the driver's full frames, only where the driver is the avatar's own person.

The check compares the driver with the avatar's own images by dlib's face network, and with the landmarks of the avatar's file
(`th_jax.driving.same_person`). The images are recognized by their digests in the avatar's provenance record, so that images of
the driver cannot be passed off as the avatar's.
"""

import math
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, Float32, Float64, Int, UInt8

from th_jax.avatars.file import LoadedAvatar
from th_jax.avatars.person_files import read_shots
from th_jax.driving.driver import Driving
from th_jax.driving.panels import driver_crops, driver_frames
from th_jax.driving.poses import driver_sample
from th_jax.driving.same_person import MIN_SHOTS, compare_faces
from th_jax.faces import face_descriptor
from th_jax.faces.people import SAME_PERSON
from th_jax.landmarks.model3d import known_frames
from th_jax.landmarks.scheme import IBUG_POINTS
from th_jax.provenance.record import pixel_digest
from th_jax.provenance.watermark.embed import Mark
from th_jax.provenance.watermark.messages import mark_frames

COMPARED, COMPARED_A_SECOND = 8, 2.0
"""Minimum number of frames of each segment, and number per second, that are compared with the avatar's images."""

MARK_SIZES = (256, 128, 64)
"""Sides of the marked square in the frame, in pixels: those at which the detector searches first."""

_COMPARED_SIDE = 256
_FOREHEAD = 0.75
"""Height of the forehead above the brows, as a share of the distance from the brows to the tip of the nose."""
_FEATHER = 0.06
"""Width of the soft edge, as a share of the face's longer side."""

_BROWS, _NOSE_TIP = slice(17, 27), 30

Frame = UInt8[np.ndarray, "H W 3"]


def check_same_person(loaded: LoadedAvatar, own: Float[np.ndarray, "T 128"], driving: Driving) -> None:
    """Check that every segment of a driver shows the avatar's own person, from beginning to end.

    Args:
        loaded: avatar to drive.
        own: `own_descriptors` of the avatar's images.
        driving: tracked video.

    Raises:
        ValueError: if a segment shows another person; the message states the distance.
        MediaError: if the driver cannot be read again.
        ImportError, FileNotFoundError: if the extra `video` is not installed.
    """
    faces = np.flatnonzero(driving.segment >= 0)
    numbers = driving.segment[faces]
    samples = [_spread(faces[numbers == number], driving.times) for number in np.unique(numbers)]
    shown = np.sort(np.concatenate(samples))
    distances = {}
    with closing(driver_crops(driving, shown, size=_COMPARED_SIDE)) as crops:
        for index, crop in zip(shown.tolist(), crops, strict=True):
            points = np.array(driving.landmarks[index][:IBUG_POINTS]) * _COMPARED_SIDE
            distances[index] = float(np.linalg.norm(own - face_descriptor(crop, points), axis=-1).min())
    for sample in samples:
        other = first_other(np.array([distances[index] for index in sample.tolist()]))
        if other is not None:
            distance = distances[int(sample[other])]
            raise ValueError(
                f"the driver at {driving.times[sample[other]]:.1f} s is not the avatar's person (distance {distance:.2f} by "
                f"the face network, the same person below {SAME_PERSON:g}): a face is pasted only into videos of that person"
            )
    if loaded.landmarks is not None and known_frames(loaded.landmarks).sum() >= MIN_SHOTS:
        choice = compare_faces(loaded.landmarks[:, :IBUG_POINTS], driver_sample(driving)[:, :IBUG_POINTS])
        if choice.method != "none":
            raise ValueError(f"{choice.reason}: a face is pasted only into videos of the avatar's own person")


def own_descriptors(loaded: LoadedAvatar, images: Path) -> Float[np.ndarray, "T 128"]:
    """Compute descriptors of the images of which the avatar was made, by their digests in its record.

    Args:
        loaded: avatar to drive.
        images: photo, folder of photos or video that was given to fine-tuning.

    Raises:
        ValueError: if none of them is an image of this avatar.
        MediaError, OSError: if they cannot be read.
        ImportError, FileNotFoundError: if the extra `video` is not installed.
    """
    size = loaded.networks.image_size
    shots = read_shots(images, size=size).shots
    own = [pixel_digest(frame) in loaded.provenance.inputs for frame in shots.frames]
    own = [known and real > 0 for known, real in zip(own, shots.mask, strict=True)]
    if not any(own):
        raise ValueError(
            f"none of the images in {images} is one of which the avatar was made: give the photos or the video that "
            "th-jax finetune was given"
        )
    large = shots if size == _COMPARED_SIDE else read_shots(images, size=_COMPARED_SIDE).shots
    return np.stack([
        face_descriptor(frame, points[:IBUG_POINTS] * _COMPARED_SIDE)
        for frame, points, known in zip(large.frames, large.landmarks, own, strict=True)
        if known
    ])  # fmt: skip


def first_other(distances: Float[np.ndarray, " C"]) -> int | None:
    """Return the index from which compared frames of a segment show another person; None if all show the avatar's.

    A single frame may be blurred or turned away: two in succession, or half of all, count.
    """
    far = distances >= SAME_PERSON
    twice = np.flatnonzero(far[:-1] & far[1:])
    if len(twice):
        return int(twice[0])
    return int(np.argmax(far)) if 2 * far.sum() >= len(far) else None


def _spread(frames: Int[np.ndarray, " S"], times: Float64[np.ndarray, " N"]) -> Int[np.ndarray, " C"]:
    seconds = float(times[frames[-1]] - times[frames[0]])
    count = max(COMPARED, math.ceil(seconds * COMPARED_A_SECOND))
    return frames[np.unique(np.linspace(0, len(frames) - 1, count).round().astype(np.int64))]


class MarkPlaces(NamedTuple):
    """The marked square of each frame, in whole pixels."""

    side: int
    corners: Int[np.ndarray, "S 2"]
    """Left and top; those of frames without a face have no meaning."""


def mark_places(driving: Driving) -> MarkPlaces:
    """Choose a square around the middle of the face, which moves as seldom as possible, so that frames can be pooled.

    It moves where a segment begins, and where the face's middle is more than a quarter of its side away.

    Raises:
        ValueError: if the faces or frames are too small for a mark, or frames differ in size.
    """
    if driving.squares is None or driving.frame_size is None:
        raise ValueError("a face is pasted only into a video whose frames all have one size")
    height, width = driving.frame_size
    shown = np.flatnonzero(driving.segment >= 0)
    largest = min(height, width, float(driving.squares[shown, 2].min()))
    side = next((size for size in MARK_SIZES if size <= largest), None)
    if side is None:
        raise ValueError(
            f"the head is {largest:.0f} px wide in the driver, but a pasted face needs {MARK_SIZES[-1]} px for its watermark"
        )
    wanted = driving.squares[:, :2] + (driving.squares[:, 2:] - side) / 2
    corners = np.zeros((len(wanted), 2), np.int64)
    place, segment = np.zeros(2), -1
    for index in shown.tolist():
        if driving.segment[index] != segment or np.abs(wanted[index] - place).max() > side / 4:
            place, segment = wanted[index], int(driving.segment[index])
        corners[index] = np.clip(np.rint(place), 0, (width - side, height - side))
    return MarkPlaces(side, corners)


def pasted_frames(
    driving: Driving,
    shown: Int[np.ndarray, " F"],
    faces: Iterable[UInt8[np.ndarray, "N N 3"]],
    poses: Iterable[Float32[np.ndarray, "P 2"]],
    *,
    places: MarkPlaces,
    mark: Mark,
) -> Iterator[Frame]:
    """Yield the driver's frames with the generated faces; a frame without a face is the driver's own.

    Args:
        driving: tracked video.
        shown: index of the decoded frame for each output frame.
        faces: generated frames, without a mark.
        poses: landmarks of the generated frames, in [0, 1].
        places: where the frames are marked.
        mark: mark of that size.

    Raises:
        MediaError: if the video cannot be read again.
    """
    assert driving.squares is not None
    with closing(driver_frames(driving, shown)) as frames:
        for index, frame, face, pose in zip(shown.tolist(), frames, faces, poses, strict=True):
            if driving.segment[index] < 0:
                yield frame
                continue
            pasted = paste(frame, face, square=driving.squares[index], landmarks=pose)
            left, top = places.corners[index]
            inside = (slice(top, top + places.side), slice(left, left + places.side))
            pasted[inside] = next(mark_frames([pasted[inside]], mark))
            yield pasted


def paste(
    frame: Frame,
    face: UInt8[np.ndarray, "N N 3"],
    *,
    square: Float64[np.ndarray, "3"],
    landmarks: Float[np.ndarray, "P 2"],
) -> Frame:
    """Return a copy of a frame with a generated face in its square, blended by `face_mask`.

    Args:
        frame: driver's frame.
        face: generated frame.
        square: left, top and side of the square in pixels of the frame.
        landmarks: the generated face's landmarks in [0, 1] of the square.
    """
    left, top, side = (float(value) for value in square)
    points = landmarks[:IBUG_POINTS].astype(np.float64) * side + (left, top)
    height, width = frame.shape[:2]
    mask = face_mask(points, height=height, width=width)[..., None]
    scale = side / face.shape[0]
    matrix = np.array([[scale, 0, left + (scale - 1) / 2], [0, scale, top + (scale - 1) / 2]])  # between pixel centers
    interpolation = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_LINEAR
    placed = cv2.warpAffine(face, matrix, (width, height), flags=interpolation, borderMode=cv2.BORDER_REPLICATE)
    blended = frame + mask * (placed.astype(np.float32) - frame)
    return np.rint(blended).clip(0, 255).astype(np.uint8)


def face_mask(landmarks: Float[np.ndarray, "68 2"], *, height: int, width: int) -> Float32[np.ndarray, "H W"]:
    """Draw the face with its forehead as a soft mask: 1 inside, falling to 0 within the soft edge, which lies inside too.

    Args:
        landmarks: landmarks in pixels of the frame.
        height: height of the frame, in pixels.
        width: width of the frame, in pixels.
    """
    up = _FOREHEAD * (landmarks[_BROWS].mean(0) - landmarks[_NOSE_TIP])
    outline = cv2.convexHull(np.concatenate([landmarks, landmarks[_BROWS] + up]).astype(np.float32))
    inside = np.zeros((height, width), np.uint8)
    cv2.fillPoly(inside, [np.rint(outline - 0.5).astype(np.int32)], 1)
    edge = max(1.0, _FEATHER * float(np.ptp(outline[:, 0], axis=0).max()))
    distance = cv2.distanceTransform(cv2.copyMakeBorder(inside, 1, 1, 1, 1, cv2.BORDER_REPLICATE), cv2.DIST_L2, 5)
    ramp = np.clip(distance[1:-1, 1:-1] / edge, 0, 1)
    return np.asarray(ramp * ramp * (3 - 2 * ramp), np.float32)

"""The people in images, numbered by how prominent they are, so that one of several faces can be chosen by its number.

Faces of different images are compared by dlib's descriptors. These are biometric data: they are kept in memory only.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from th_jax.faces.crop import crop_frame, segment_square
from th_jax.faces.detect import Face, OutsideFrameError, detect_faces, face_descriptor
from th_jax.faces.track import settled_landmarks

SAME_PERSON = 0.6
"""Maximum L2 distance of two face descriptors of the same person."""

PORTRAIT_SIDE = 128
"""Side of a person's portrait, in pixels."""


class Person(NamedTuple):
    """A person in the examined images."""

    descriptor: Float[np.ndarray, "128"]
    """Mean descriptor of the person's faces (`face_descriptor`)."""
    prominence: float
    """Sum of the products of score and side of the person's faces, in pixels."""
    images: int
    """Number of images that show the person."""
    landmarks: Float[np.ndarray, "68 2"]
    """Landmarks in pixels of the image that shows the person most prominently."""
    portrait: UInt8[np.ndarray, "N N 3"]
    """Crop of that image, of PORTRAIT_SIDE."""


class _Seen(NamedTuple):
    face: Face
    landmarks: np.ndarray
    descriptor: np.ndarray

    @property
    def prominence(self) -> float:
        return self.face.score * self.face.box.side


def people_in(frames: Iterable[UInt8[np.ndarray, "_ _ 3"]]) -> list[Person]:
    """Find the people in images; the most prominent one is first.

    Two faces of one image are always two people. Across images, faces whose descriptors are closer than SAME_PERSON are one
    person.

    Raises:
        ImportError, FileNotFoundError: as `detect_faces` and `face_descriptor`.
    """
    people: list[Person] = []
    best: list[float] = []
    for frame in frames:
        seen = _look(frame, detect_faces(frame))
        known = _assigned([one.descriptor for one in seen], [person.descriptor for person in people])
        for one, number in zip(seen, known, strict=True):
            if number is None:
                best.append(one.prominence)
                people.append(Person(one.descriptor, one.prominence, 1, one.landmarks, _portrait(frame, one.landmarks)))
                continue
            person = people[number]
            mean = (person.descriptor * person.images + one.descriptor) / (person.images + 1)
            person = person._replace(
                descriptor=mean, prominence=person.prominence + one.prominence, images=person.images + 1
            )
            if one.prominence > best[number]:
                best[number] = one.prominence
                person = person._replace(landmarks=one.landmarks, portrait=_portrait(frame, one.landmarks))
            people[number] = person
    return sorted(people, key=lambda person: -person.prominence)


class PersonChooser:
    """Chooses a person's face in further images (`th_jax.faces.follow_face`).

    A face is the person's if it is closer to them than to everyone else, and closer than SAME_PERSON.
    """

    def __init__(self, people: Sequence[Person], number: int) -> None:
        """Choose one of the people.

        Args:
            people: all people of the images, as `people_in` returns them.
            number: number of the person, from 1 on.
        """
        self._descriptors, self._index = [person.descriptor for person in people], number - 1

    def choose(self, frame: UInt8[np.ndarray, "H W 3"], faces: Sequence[Face]) -> Face | None:
        """Return the person's face, or None."""
        seen = _look(frame, faces)
        known = _assigned([one.descriptor for one in seen], self._descriptors)
        return seen[known.index(self._index)].face if self._index in known else None

    def is_other(self, frame: UInt8[np.ndarray, "H W 3"], face: Face) -> bool:
        """Return whether a face is another known person's; a turned face resembles nobody, and is not."""
        known = _assigned([one.descriptor for one in _look(frame, [face])], self._descriptors)
        return known not in ([None], [self._index], [])


def people_sheet(people: Sequence[Person], *, columns: int = 6) -> UInt8[np.ndarray, "H W 3"]:
    """Draw the portraits of people with their numbers, from 1 on, in rows.

    Raises:
        ValueError: if there are no people.
    """
    if not people:
        raise ValueError("a sheet needs at least one person")
    across, side = min(columns, len(people)), PORTRAIT_SIDE
    sheet = np.full((-(-len(people) // across) * side, across * side, 3), 255, np.uint8)
    for index, person in enumerate(people):
        top, left = index // across * side, index % across * side
        sheet[top : top + side, left : left + side] = person.portrait
        text, place = str(index + 1), (left + 5, top + 25)
        for color, width in (((0, 0, 0), 5), ((255, 255, 255), 2)):
            cv2.putText(sheet, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.9, color, width, cv2.LINE_AA)
    return sheet


def _look(frame: np.ndarray, faces: Sequence[Face]) -> list[_Seen]:
    """Describe the faces of a frame, the most prominent one first; a face that leaves the frame is not described."""
    seen = []
    for face in sorted(faces, key=lambda face: -face.score * face.box.side):
        try:
            landmarks = settled_landmarks(frame, face.box)
        except OutsideFrameError:
            continue
        seen.append(_Seen(face, landmarks, face_descriptor(frame, landmarks)))
    return seen


def _assigned(faces: Sequence[np.ndarray], people: Sequence[np.ndarray]) -> list[int | None]:
    """Return the index of each face's person, None for an unknown one; each person has at most one face."""
    numbers: list[int | None] = [None] * len(faces)
    if not faces or not people:
        return numbers
    distances = np.linalg.norm(np.stack(faces)[:, None] - np.stack(people), axis=-1)
    while distances.min() < SAME_PERSON:
        face, person = divmod(int(distances.argmin()), len(people))
        numbers[face] = person
        distances[face], distances[:, person] = np.inf, np.inf
    return numbers


def _portrait(frame: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    height, width = frame.shape[:2]
    return crop_frame(frame, segment_square(landmarks[None], height=height, width=width), size=PORTRAIT_SIDE)

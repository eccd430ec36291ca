"""Turns a seed into the record of a rendered person, prepared as a stranger's video would be, with the truth beside it.

Frames are rendered larger than they are stored. dlib's points are found on the large picture by the same search as in
anybody's photographs, and the pupils, which dlib has no points for, stay unknown among them; the true landmarks hold
all 70. Whoever wants dlib's errors and pupils at once can take the last two points from the truth.
"""

import hashlib
import json
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, Float32, UInt8

from data_prep.synthetic_heads.identity import check_seed, draw_identity
from data_prep.synthetic_heads.mesh import CHILDREN_SHA256
from data_prep.synthetic_heads.mesh import SHA256 as MESH_SHA256
from data_prep.synthetic_heads.motion import SPACING
from data_prep.synthetic_heads.people import Style, render_person
from data_prep.synthetic_heads.photo_person import sitter
from data_prep.synthetic_heads.render import LARGEST, SMALLEST
from th_jax.data.schema import VideoRecord
from th_jax.faces import Box, box_around, detect_faces, landmarks_in_box, most_prominent, settled_landmarks
from th_jax.landmarks.scheme import IBUG_POINTS, PUPIL_POINTS

LICENCE = "CC0-1.0"

RENDER_SIZE = 256
"""Side of the rendered pictures, in pixels: their faces are 105 to 150 px, above the 80 px from which HOG finds them
without enlargement, and 128 and 64 px are whole fractions of it. At 192 px a frame costs a quarter less."""

SMALLEST_RENDER = 192
"""Faces of smaller pictures are below 80 px."""

QUALITY = 90
"""Of the JPEG frames, with colour at full resolution. At 128 px a frame is 4.1 kB with a PSNR of 41 dB; quality 92 with
halved colour, the usual setting, has 39 dB at 3.6 kB, and loses it where lips and eyes meet the skin."""


class HeadSettings(NamedTuple):
    """Everything but the seed that decides a record."""

    frames: int
    size: int
    render_size: int = RENDER_SIZE
    quality: int = QUALITY
    style: Style = Style.DRAWN


class HeadRecord(NamedTuple):
    """A person's record, and in how many frames the detector did not find the face."""

    record: VideoRecord
    not_found: int


def check_settings(settings: HeadSettings) -> None:
    """Refuse settings that no record can be made with.

    Raises:
        ValueError: naming the setting and what it may be.
    """
    if settings.frames < 1:
        raise ValueError(f"a person needs at least 1 frame, but {settings.frames} were asked for")
    if not SMALLEST_RENDER <= settings.render_size <= LARGEST:
        raise ValueError(
            f"render_size must be {SMALLEST_RENDER} to {LARGEST} px, where landmarks can be found, "
            f"but is {settings.render_size}"
        )
    if not SMALLEST <= settings.size <= settings.render_size:
        raise ValueError(
            f"size must be {SMALLEST} px to render_size ({settings.render_size} px), but is {settings.size}"
        )
    if not 1 <= settings.quality <= 100:
        raise ValueError(f"quality must be 1 to 100, but is {settings.quality}")


def head_name(seed: int, *, style: Style = Style.DRAWN) -> str:
    """Identity and video id of the person of a seed: rendered people have one video each."""
    return f"{'head' if style == Style.DRAWN else style.value}-{seed:06d}"


def head_record(seed: int, settings: HeadSettings) -> HeadRecord:
    """Render the person of a seed, find the landmarks, and make the record.

    Raises:
        ValueError: for a negative or reserved seed, or settings as `check_settings` says.
        ImportError, FileNotFoundError: without the extra `video`.
    """
    check_seed(seed)
    check_settings(settings)
    person = render_person(seed, frames=settings.frames, size=settings.render_size, style=settings.style)
    truth = _inside(person.landmarks)
    landmarks = np.full((settings.frames, PUPIL_POINTS, 2), np.nan, np.float32)
    not_found = 0
    for number, frame in enumerate(person.frames):
        expected = box_around(person.landmarks[number, :IBUG_POINTS] * settings.render_size)
        box = _find_face(frame, expected)
        points = landmarks_in_box(frame, expected) if box is None else settled_landmarks(frame, box)
        landmarks[number, :IBUG_POINTS] = points / settings.render_size
        not_found += box is None
    record = VideoRecord(
        frames=tuple(encode_frame(frame, size=settings.size, quality=settings.quality) for frame in person.frames),
        landmarks=_inside(landmarks),
        true_landmarks=truth,
        times=person.times.astype(np.float32),
        clips=np.zeros(settings.frames, np.int64),
        crops=np.tile(np.array([0, 0, settings.render_size], np.float32), (settings.frames, 1)),
        minimum_gap=SPACING,
        identity=head_name(seed, style=settings.style),
        video_id=head_name(seed, style=settings.style),
        source_sha256=source_sha256(seed, style=settings.style),
        licence=LICENCE,
    )
    return HeadRecord(record, not_found)


def source_sha256(seed: int, *, style: Style = Style.DRAWN) -> str:
    """What stands for the hash of a source file: that of the person's parameters and of the mesh they shape.

    Raises:
        ValueError: for a negative or reserved seed.
    """
    parameters: dict[str, object] = {"identity": draw_identity(seed), "mesh": MESH_SHA256}
    if style == Style.PHOTO:
        who = sitter(seed)
        parameters |= {"identity": who.person.identity, "photo": who.photo, "children": CHILDREN_SHA256}
    return hashlib.sha256(json.dumps(parameters).encode()).hexdigest()


def encode_frame(frame: UInt8[np.ndarray, "H W 3"], *, size: int, quality: int) -> bytes:
    """The RGB frame, reduced to `size` pixels by area means, as a JPEG with colour at full resolution."""
    if size != len(frame):
        frame = cv2.resize(frame, (size, size), interpolation=cv2.INTER_AREA)
    settings = (
        *(cv2.IMWRITE_JPEG_QUALITY, quality),
        *(cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444),
        *(cv2.IMWRITE_JPEG_OPTIMIZE, 1),
    )
    encoded, jpeg = cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), settings)
    assert encoded  # any 8-bit colour picture can be
    return jpeg.tobytes()


def landmark_errors(record: VideoRecord) -> Float[np.ndarray, "F 68"]:
    """Distance of each detected from its true point, as a share of the distance of the true eyes' outer corners.

    NaN where one of them is unknown.

    Raises:
        ValueError: if the record has no true landmarks.
    """
    if record.true_landmarks is None:
        raise ValueError(f"video {record.video_id!r} has no true landmarks: only rendered heads have")
    truth = record.true_landmarks[:, :IBUG_POINTS]
    distance = np.linalg.norm(record.landmarks[:, :IBUG_POINTS] - truth, axis=-1)
    return distance / np.linalg.norm(truth[:, 45] - truth[:, 36], axis=-1)[:, None]


def _find_face(frame: UInt8[np.ndarray, "H W 3"], expected: Box) -> Box | None:
    """The detector's box of the face; None if it finds none, or only something elsewhere."""
    near = [
        face
        for face in detect_faces(frame)
        if np.linalg.norm(face.box.center - expected.center) < 0.5 * expected.side
        and 0.5 < face.box.side / expected.side < 2.0
    ]
    return most_prominent(near)[0].box if near else None


def _inside(landmarks: Float[np.ndarray, "F P 2"]) -> Float32[np.ndarray, "F P 2"]:
    """The landmarks with NaN for those outside of the picture: a record says nothing of what no pixel shows."""
    inside = ((landmarks >= 0) & (landmarks <= 1)).all(-1, keepdims=True)
    return np.where(inside, landmarks, np.nan).astype(np.float32)

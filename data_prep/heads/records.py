"""Records of rendered people: landmarks detected as in real videos, and the true landmarks beside them.

Frames are rendered larger than they are stored. dlib's landmarks are detected in the large image in the same way as in
photographs; the pupils, for which dlib has no points, are unknown. The true landmarks contain all 70 points. To combine
dlib's errors with pupils, take the last two points from the true landmarks.
"""

import hashlib
import json
from typing import Any, NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, Float32, UInt8

from data_prep.heads.identity import check_seed, draw_identity
from data_prep.heads.mesh import CHILDREN_SHA256
from data_prep.heads.mesh import SHA256 as MESH_SHA256
from data_prep.heads.motion import SPACING
from data_prep.heads.people import Style, render_person
from data_prep.heads.photo_person import sitter
from data_prep.heads.render import LARGEST, SMALLEST
from th_jax.data.schema import VideoRecord
from th_jax.faces import Box, box_around, detect_faces, landmarks_in_box, most_prominent, settled_landmarks
from th_jax.landmarks.scheme import IBUG_POINTS, PUPIL_POINTS

LICENSE = "CC0-1.0"

RENDER_SIZE = 256
"""Side of the rendered images in pixels. Faces are then 105 to 150 px, above the 80 px that HOG needs without upscaling,
and 128 and 64 px are integer fractions of it. A frame of 192 px costs a quarter less."""

SMALLEST_RENDER = 192
"""Faces in smaller images are below 80 px."""

QUALITY = 90
"""JPEG quality, with color at full resolution. A frame of 128 px has 4.1 kB and a PSNR of 41 dB; quality 92 with color at
half resolution, the usual setting, has 3.6 kB and 39 dB, with the errors at the edges of lips and eyes."""


GROUPS = {
    "jaw": range(17),
    "brows": range(17, 27),
    "nose": range(27, 36),
    "eyes": range(36, 48),
    "outer lips": range(48, 60),
    "inner lips": range(60, 68),
}


RENDER_VERSION = 2
"""Raised by hand with every change of `data_prep.heads` that changes rendered people or their records.

Finished people of an interrupted run of another version are not used, but rendered again.
"""


class HeadSettings(NamedTuple):
    """Everything besides the seed that determines a record."""

    frames: int
    size: int
    render_size: int = RENDER_SIZE
    quality: int = QUALITY
    style: Style = Style.DRAWN
    free_eyes_share: float = 0.0
    """Share of the frames whose gaze and lids are drawn independently of each other, 0..1."""


class HeadRecord(NamedTuple):
    """A person's record, and the number of frames in which the face was not detected."""

    record: VideoRecord
    not_found: int


def check_settings(settings: HeadSettings) -> None:
    """Check settings.

    Raises:
        ValueError: if one is invalid; the message has its valid range.
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
    if not 0 <= settings.free_eyes_share <= 1:
        raise ValueError(f"free_eyes_share must be 0 to 1, but is {settings.free_eyes_share}")


def head_name(seed: int, *, style: Style = Style.DRAWN) -> str:
    """Return the identity of a seed's person, which is also the id of their only video."""
    return f"{'head' if style == Style.DRAWN else style.value}-{seed:06d}"


def head_record(seed: int, settings: HeadSettings) -> HeadRecord:
    """Render the person of a seed, detect the landmarks, and build the record.

    Raises:
        ValueError: for a negative or reserved seed, or invalid settings (`check_settings`).
        ImportError, FileNotFoundError: without the extra `video`.
    """
    check_seed(seed)
    check_settings(settings)
    person = render_person(
        seed,
        frames=settings.frames,
        size=settings.render_size,
        style=settings.style,
        free_eyes_share=settings.free_eyes_share,
    )
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
        licence=LICENSE,
    )
    return HeadRecord(record, not_found)


def source_sha256(seed: int, *, style: Style = Style.DRAWN) -> str:
    """Return the digest of the person's parameters and of the meshes, in place of that of a source file.

    Raises:
        ValueError: for a negative or reserved seed.
    """
    parameters: dict[str, object] = {"identity": draw_identity(seed), "mesh": MESH_SHA256}
    if style == Style.PHOTO:
        who = sitter(seed)
        parameters |= {"identity": who.person.identity, "photo": _rounded(who.photo), "children": CHILDREN_SHA256}
    return hashlib.sha256(json.dumps(parameters).encode()).hexdigest()


def _rounded(value: Any) -> Any:
    """Round every number to 9 digits: processors disagree about the last ones, and digests must not."""
    if isinstance(value, float):
        return float(f"{value:.9g}")
    return [_rounded(item) for item in value] if isinstance(value, tuple | list) else value


def encode_frame(frame: UInt8[np.ndarray, "H W 3"], *, size: int, quality: int) -> bytes:
    """Encode an RGB frame, reduced to `size` pixels by area means, as a JPEG with color at full resolution."""
    if size != len(frame):
        frame = cv2.resize(frame, (size, size), interpolation=cv2.INTER_AREA)
    settings = (
        *(cv2.IMWRITE_JPEG_QUALITY, quality),
        *(cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444),
        *(cv2.IMWRITE_JPEG_OPTIMIZE, 1),
    )
    encoded, jpeg = cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), settings)
    assert encoded  # every 8-bit color image can be encoded
    return jpeg.tobytes()


def landmark_errors(record: VideoRecord) -> Float[np.ndarray, "F 68"]:
    """Compute the distance of each detected point from its true point, NaN where one is unknown.

    The unit is the distance between the true outer corners of the eyes.

    Raises:
        ValueError: if the record has no true landmarks.
    """
    if record.true_landmarks is None:
        raise ValueError(f"video {record.video_id!r} has no true landmarks; only rendered heads have them")
    truth = record.true_landmarks[:, :IBUG_POINTS]
    distance = np.linalg.norm(record.landmarks[:, :IBUG_POINTS] - truth, axis=-1)
    return distance / np.linalg.norm(truth[:, 45] - truth[:, 36], axis=-1)[:, None]


def _find_face(frame: UInt8[np.ndarray, "H W 3"], expected: Box) -> Box | None:
    """Detect the face near the expected box; None if there is no face, or only one elsewhere."""
    near = [
        face
        for face in detect_faces(frame)
        if np.linalg.norm(face.box.center - expected.center) < 0.5 * expected.side
        and 0.5 < face.box.side / expected.side < 2.0
    ]
    return most_prominent(near)[0].box if near else None


def _inside(landmarks: Float[np.ndarray, "F P 2"]) -> Float32[np.ndarray, "F P 2"]:
    """Replace landmarks outside the image by NaN, as records do."""
    inside = ((landmarks >= 0) & (landmarks <= 1)).all(-1, keepdims=True)
    return np.where(inside, landmarks, np.nan).astype(np.float32)

"""Where driving landmarks come from: a video whose face is followed, or a checked file of points.

A video is looked at once before anything is generated, in a process of its own with limits, and only its landmarks
are kept, in a temporary file: so the squares are known from all frames (`th_jax.rendering.placement`), and hours of video need
no memory.
"""

import contextlib
import io
import math
import tempfile
import zipfile
from array import array
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, Int, UInt8

from th_jax.faces import (
    NEEDED_IN_FILM,
    TRAINING_PLACEMENT,
    Placement,
    follow_face,
    following_squares,
    in_squares,
    usable_faces,
)
from th_jax.faces.pupils import with_pupils
from th_jax.faces.track import FLASH_SECONDS
from th_jax.media import DEFAULT_LIMITS, MediaError, MediaFault, open_video
from th_jax.media.confinement import ProcessLimits
from th_jax.media.sandbox import naming, run_limited
from th_jax.rendering.frame_rate import output_rate
from th_jax.rendering.placement import Follow, check_follow, place_segments
from th_jax.topology import IBUG_POINTS, PUPIL_POINTS, check_point_count

DRIVER_LIMITS = ProcessLimits(cpu_seconds=48 * 3600.0, seconds=24 * 3600.0)
"""Of a process that decodes a driver's pictures: hours of film on a slow machine."""

NPZ_BYTES = 2**30
"""Most that a file of landmarks may hold: eight hours at 60 frames/s."""

NPZ_REACH = 4.0
"""Landmarks further than this from the frame are no shares of its side, but pixels."""

_NPY = b"\x93NUMPY"
_NPZ_HEADERS = 2**20
_NPZ_MEMBERS = 64
_NPZ_LIST = 2**17
"""Bytes that opening an archive may read at once: its list of members, of about 100 bytes each, or a comment of 64 KiB."""
_SLOW = 5.0
"""Frames a second up to which the face is searched in each frame (`follow_face`)."""


class Driving(NamedTuple):
    """A driver's landmarks, a set for each of S decoded frames."""

    landmarks: Float32[np.ndarray, "S P 2"]
    """In [0, 1] of the frame's square; NaN without a face."""
    times: Float64[np.ndarray, " S"]
    """Seconds, ascending."""
    segment: Int[np.ndarray, " S"]
    """Number of the clip segment, -1 without a face."""
    fps: Fraction
    squares: Float64[np.ndarray, "S 3"] | None
    """Left, top and side of each frame's square, in pixels, NaN outside of all segments; None for a file of landmarks."""
    video: Path | None
    has_audio: bool
    damaged_frames: int


@contextlib.contextmanager
def track_driver(
    path: str | Path,
    *,
    pupils: bool = False,
    seconds: float | None = None,
    follow: Follow = "face",
    rest: Placement = TRAINING_PLACEMENT,
    context: float = 1.0,
) -> Iterator[Driving]:
    """Follow the face of a video; the landmarks are there until the context is left.

    Args:
        path: a local video.
        pupils: whether to look for the pupils too.
        seconds: to look at, from the start; all by default.
        follow: "face" for a square that moves with the face, "segment" for a fixed one for each segment (`place_segments`).
        rest: where a square that moves holds a head that rests: `placement_of` the avatar's shots.
        context: above 1 shows more around the head.

    Raises:
        MediaError: if the video cannot be read.
        ValueError: if no face was found.
        ImportError: without the extra `video`.
    """
    check_follow(follow)
    points = PUPIL_POINTS if pupils else IBUG_POINTS
    with tempfile.NamedTemporaryFile() as file:
        video = _followed_apart(Path(path), file.name, points, math.inf if seconds is None else seconds)
        times, segment = video.times, video.segment
        landmarks = np.zeros((0, points, 2), np.float32)
        if len(times):
            landmarks = np.asarray(np.memmap(file, np.float32, "r+", shape=(len(times), points, 2)))
        sizes = {number: (height, width) for number, height, width in video.sizes}
        numbers, squares = place_segments(landmarks, segment, times, sizes, follow=follow, rest=rest, context=context)
        if (numbers < 0).all():
            raise ValueError(
                f"no face was found in {path}: a driver shows one face, rather from the front, {NEEDED_IN_FILM}"
            )
        rate = output_rate(times, declared=Fraction(*video.fps))
        yield Driving(landmarks, times, numbers, rate, squares, Path(path), video.has_audio, video.damaged_frames)


def read_landmarks(
    path: str | Path, *, fps: float | None = None, follow: Follow = "face", rest: Placement = TRAINING_PLACEMENT
) -> Driving:
    """Landmarks from an npz file: "landmarks", `[S, 68 | 70, 2]` in [0, 1] of the square frame, and perhaps "fps".

    An npy file holds the landmarks alone.

    A set with an unknown point among the first 68 counts as a frame without a face. Nothing in the file can run: pickles are
    refused, and sizes are checked before anything is unpacked.

    Args:
        path: the file.
        fps: frames a second; by default the file's, else 25.
        follow: "face" moves and scales the landmarks into squares that follow the face; "segment" leaves them as they are.
        rest: as of `track_driver`.

    Raises:
        ValueError: if the file is missing, no npz, too large, or holds anything else; and for a rate that is none.
    """
    check_follow(follow)
    arrays = _arrays(Path(path))
    landmarks = arrays.get("landmarks")
    if landmarks is None:
        raise ValueError(
            f"{path} must hold an array called landmarks, but holds {', '.join(arrays) or 'none'}: save it with "
            "numpy.savez(FILE, landmarks=...)"
        )
    if landmarks.dtype.kind != "f" or landmarks.ndim != 3 or landmarks.shape[2] != 2 or not len(landmarks):
        came = f"{landmarks.dtype} of the shape {list(landmarks.shape)}"
        raise ValueError(f"{path}: landmarks must be floating point of the shape [S, 68 or 70, 2], but are {came}")
    check_point_count(landmarks.shape[1])
    if np.isinf(landmarks).any():
        raise ValueError(f"{path}: landmarks must be finite, or NaN where a point is unknown")
    known = usable_faces(landmarks)
    if not known.any():
        raise ValueError(f"{path}: no frame has all of its 68 landmarks, not all at one place")
    reach = float(np.nanmax(np.abs(landmarks - 0.5)))
    if reach > NPZ_REACH:
        raise ValueError(
            f"{path}: landmarks must lie in [0, 1] of the square frame, but reach {reach:g} from its middle: divide pixels "
            "by the frame's side"
        )
    rate = _rate(path, arrays.get("fps"), fps)
    times, segment = np.arange(len(landmarks)) / float(rate), np.where(known, 0, -1)
    if follow == "face":
        landmarks = in_squares(landmarks, following_squares(landmarks, times, rest=rest))
    return Driving(landmarks.astype(np.float32), times, segment, rate, None, None, False, 0)


class _Followed(NamedTuple):
    """What the process that decodes a video tells of it, beside the landmarks in pixels that it writes into a file."""

    times: Float64[np.ndarray, " S"]
    segment: Int[np.ndarray, " S"]
    sizes: Sequence[tuple[int, int, int]]
    """Number, height and width of each segment."""
    fps: tuple[int, int]
    has_audio: bool
    damaged_frames: int


def follow_driver(path: str, out: str, *, points: int, seconds: float) -> _Followed:
    """Follow the face of a video, and write a set of landmarks for each frame into a file; `track_driver` has it done apart.

    Raises:
        MediaError: if the video cannot be read.
        ImportError: without the extra `video`.
    """
    times, segment = array("d"), array("q")
    sizes: dict[int, tuple[int, int]] = {}
    current: list[UInt8[np.ndarray, "H W 3"]] = []
    with open(out, "wb") as file, open_video(path, threads=0) as video:

        def frames() -> Iterator[UInt8[np.ndarray, "H W 3"]]:
            for time, frame in video.frames():
                if time >= seconds:
                    return
                times.append(max(time, times[-1] if times else 0.0))
                current[:] = [frame]
                yield frame

        every, flash = 1 if video.fps <= _SLOW else 8, round(FLASH_SECONDS * video.fps)
        for tracked in follow_face(frames(), detect_every=every, max_flash=flash):
            landmarks = np.full((points, 2), np.nan, np.float32)
            if tracked.segment >= 0:
                found = tracked.landmarks if points == IBUG_POINTS else with_pupils(current[0], tracked.landmarks)
                landmarks[:] = found
                sizes.setdefault(tracked.segment, current[0].shape[:2])
            segment.append(tracked.segment)
            file.write(landmarks.tobytes())
        listed = [(number, height, width) for number, (height, width) in sizes.items()]
        rate = (video.fps.numerator, video.fps.denominator)
        moments, numbers = np.array(times, np.float64), np.array(segment, np.int64)
        return _Followed(moments, numbers, listed, rate, video.has_audio, video.damaged_frames)


def _followed_apart(path: Path, out: str, points: int, seconds: float) -> _Followed:
    """`follow_driver` in a process of its own, whose word is checked: a decoder that was taken over may say anything."""
    with naming(path):
        answer = run_limited(follow_driver, str(path), out, points=points, seconds=seconds, within=DRIVER_LIMITS)
    followed = _Followed(*answer)
    count, width = len(followed.times), 2 * points * np.dtype(np.float32).itemsize
    ascending = (np.diff(followed.times, prepend=0.0, append=DEFAULT_LIMITS.seconds) >= 0).all()
    if (
        min(followed.fps) <= 0
        or len(followed.segment) != count
        or Path(out).stat().st_size != count * width
        or not ascending
    ):
        raise MediaError(MediaFault.UNDECODABLE, f"{path} cannot be used: what was read of it contradicts itself")
    return followed


class _Archive(io.BufferedReader):
    """A file of which little may be read at once while it is opened: zipfile takes in a list of members of any length."""

    opening = True

    def read(self, size: int | None = -1, /) -> bytes:
        """As any file, but for a ValueError where a list is too long."""
        if not self.opening:
            return super().read(size)
        most = _NPZ_LIST + 1
        content = super().read(most if size is None or size < 0 else min(size, most))
        if len(content) == most:
            raise ValueError(f"its list of files is longer than {_NPZ_LIST} bytes, the limit")
        return content


def is_landmark_file(path: str | Path) -> bool:
    """Whether a driver is a file of landmarks by its name, which ends in .npz or .npy."""
    return str(path).lower().endswith((".npz", ".npy"))


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays that are used; where none is called landmarks, all of the file's under their names, empty."""
    if not path.is_file():
        raise ValueError(f"there is no file of landmarks at {path}")
    try:
        if (size := path.stat().st_size) > NPZ_BYTES + _NPZ_HEADERS:  # its list of members alone could be as long
            raise ValueError(f"it has {size} bytes, over the limit of {NPZ_BYTES}")
        with path.open("rb") as file:
            if file.read(len(_NPY)) == _NPY:
                file.seek(0)
                return {"landmarks": _npy(file, path.name, size)}
        with _Archive(path.open("rb", buffering=0)) as file, zipfile.ZipFile(file) as archive:
            file.opening = False
            if (count := len(archive.infolist())) > _NPZ_MEMBERS:
                raise ValueError(f"it holds {count} files, over the limit of {_NPZ_MEMBERS}")
            members = {info.filename: info.file_size for info in archive.infolist()}
            if sum(members.values()) > NPZ_BYTES:
                raise ValueError(f"it unpacks to {sum(members.values())} bytes, over the limit of {NPZ_BYTES}")
            if "landmarks.npy" not in members:
                return {_shown(name): np.zeros(0) for name in members}
            wanted = [name for name in ("landmarks.npy", "fps.npy") if name in members]
            arrays = {}
            for name in wanted:
                with archive.open(name) as member:
                    arrays[name.removesuffix(".npy")] = _npy(member, name, members[name])
            return arrays
    except Exception as error:  # zipfile, zlib and numpy's parser of headers raise a dozen kinds for damage
        raise ValueError(f"{path} is no npz file of landmarks that can be read: {error}") from error


def _shown(member: str) -> str:
    name = member.removesuffix(".npy")
    return name if name.isprintable() and len(name) <= 100 else ascii(name[:100])


def _npy(file: Any, name: str, size: int) -> np.ndarray:
    """One array; its header is believed only as far as the file has bytes for it."""
    version = np.lib.format.read_magic(file)
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, columns_first, dtype = header(file)
    if dtype.hasobject or any(n < 0 for n in shape) or math.prod(shape) * dtype.itemsize > size:
        raise ValueError(f"{name} declares {dtype} of the shape {list(shape)}, which it does not hold")
    content = np.frombuffer(file.read(math.prod(shape) * dtype.itemsize), dtype)
    return content.reshape(shape, order="F" if columns_first else "C")


def _rate(path: str | Path, stored: np.ndarray | None, asked: float | None) -> Fraction:
    value: Any = asked if asked is not None else 25.0
    if asked is None and stored is not None:
        if stored.size != 1 or stored.dtype.kind not in "iuf":
            raise ValueError(f"{path}: fps must be one number, but is {stored.dtype} of the shape {list(stored.shape)}")
        value = float(stored.reshape(()))
    if not 1e-3 <= value <= 1000:  # a smaller one would be rounded to none
        raise ValueError(f"{path}: fps must be above 0 (at least 0.001) and at most 1000 frames/s, but is {value:g}")
    return Fraction(value).limit_denominator(1001)

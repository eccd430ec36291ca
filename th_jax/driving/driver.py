"""Driving landmarks: tracked videos and landmark files, and the checks of a driver's sound and length.

A video is read once before anything is generated, in an isolated process with limits. Only its landmarks are kept, in a
temporary file. The squares can thus be computed from all frames, and hours of video need no memory.
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

from th_jax.data.people import check_number, people_of
from th_jax.driving.placement import Follow, check_follow, place_segments
from th_jax.driving.rates import output_rate
from th_jax.faces import (
    NEEDED_IN_VIDEO,
    TRAINING_PLACEMENT,
    Placement,
    follow_face,
    following_squares,
    in_squares,
    usable_faces,
)
from th_jax.faces.people import PersonChooser
from th_jax.faces.pupils import with_pupils
from th_jax.faces.track import FLASH_SECONDS
from th_jax.landmarks.scheme import IBUG_POINTS, PUPIL_POINTS, check_point_count
from th_jax.media import DEFAULT_LIMITS, MediaError, MediaFault, open_video
from th_jax.media.audio import missing_sound
from th_jax.media.isolation import ProcessLimits, naming, run_limited

DRIVER_LIMITS = ProcessLimits(cpu_seconds=48 * 3600.0, seconds=24 * 3600.0)
"""Limits of a process that decodes a driver's frames: hours of video on a slow machine."""

NPZ_BYTES = 2**30
"""Maximum size of the landmarks in a file, in bytes: eight hours at 60 frames/s."""

NPZ_REACH = 4.0
"""Landmarks further than this from the frame, in sides, are taken for pixel coordinates."""

_NPY = b"\x93NUMPY"

_NPZ_HEADERS = 2**20

_NPZ_MEMBERS = 64

_NPZ_LIST = 2**17
"""Maximum number of bytes read at once while opening an archive: a member list of about 100 bytes each, or a comment of
64 KiB."""

_SLOW = 5.0
"""Maximum frame rate, in frames per second, at which the face is detected in every frame (`follow_face`)."""


class Driving(NamedTuple):
    """A driver's landmarks for each of S decoded frames."""

    landmarks: Float32[np.ndarray, "S P 2"]
    """Landmarks in [0, 1] of the frame's square; NaN without a face."""
    times: Float64[np.ndarray, " S"]
    """Times in seconds, ascending."""
    segment: Int[np.ndarray, " S"]
    """Segment number of each frame, -1 without a face."""
    fps: Fraction
    squares: Float64[np.ndarray, "S 3"] | None
    """Left, top and side of each frame's square, in pixels, NaN outside all segments; None for a landmark file."""
    video: Path | None
    has_audio: bool
    damaged_frames: int
    rivals: int = 0
    """Number of searched frames in which another face was as prominent as the tracked one."""
    frame_size: tuple[int, int] | None = None
    """Height and width of a video's frames, in pixels; None if segments differ, and for a landmark file."""


@contextlib.contextmanager
def track_driver(
    path: str | Path,
    *,
    pupils: bool = False,
    seconds: float | None = None,
    follow: Follow = "face",
    rest: Placement = TRAINING_PLACEMENT,
    context: float = 1.0,
    face: int | None = None,
) -> Iterator[Driving]:
    """Track the face of a video; a context manager, within which the landmarks are available.

    Args:
        path: local video.
        pupils: whether to detect the pupils too.
        seconds: duration to track, from the start; all of the video by default.
        follow: "face" for a square that follows the face, "segment" for one fixed square per segment
            (`place_segments`).
        rest: placement of a resting head in a following square: `placement_of` the avatar's shots.
        context: scale of the square; values above 1 show more around the head.
        face: number of the person in a video of several people (`th_jax.data.people.people_of`); by default, the most
            prominent face of each segment is tracked.

    Raises:
        MediaError: if the video cannot be read.
        ValueError: if no face was detected, or if there is no person of this number.
        ImportError: if the extra `video` is not installed.
    """
    check_follow(follow)
    points = PUPIL_POINTS if pupils else IBUG_POINTS
    with tempfile.NamedTemporaryFile() as file:
        video = _followed_apart(Path(path), file.name, points, math.inf if seconds is None else seconds, face)
        times, segment = video.times, video.segment
        landmarks = np.zeros((0, points, 2), np.float32)
        if len(times):
            landmarks = np.asarray(np.memmap(file, np.float32, "r+", shape=(len(times), points, 2)))
        sizes = {number: (height, width) for number, height, width in video.sizes}
        numbers, squares = place_segments(landmarks, segment, times, sizes, follow=follow, rest=rest, context=context)
        if (numbers < 0).all():
            raise ValueError(
                f"no face was found in {path}: a driver must show one roughly frontal face, {NEEDED_IN_VIDEO}"
            )
        rate = output_rate(times, declared=Fraction(*video.fps))
        every = set(sizes.values())
        yield Driving(
            landmarks, times, numbers, rate, squares, Path(path), video.has_audio, video.damaged_frames, video.rivals,
            every.pop() if len(every) == 1 else None,
        )  # fmt: skip


def read_landmarks(
    path: str | Path, *, fps: float | None = None, follow: Follow = "face", rest: Placement = TRAINING_PLACEMENT
) -> Driving:
    """Read landmarks from an npz file: "landmarks", `[S, 68 | 70, 2]` in [0, 1] of the square frame, and optionally "fps".

    An npy file holds only the landmarks. A frame with an unknown point among the first 68 counts as a frame without a
    face. Nothing in the file is executed: pickles are rejected, and sizes are checked before anything is unpacked.

    Args:
        path: landmark file.
        fps: frame rate in frames per second; by default that of the file, or else 25.
        follow: "face" moves and scales the landmarks into squares that follow the face; "segment" leaves them
            unchanged.
        rest: placement of a resting head, as for `track_driver`.

    Raises:
        ValueError: if the file is missing, too large, of another format, or has other contents, or if the rate is
            invalid.
    """
    check_follow(follow)
    arrays = _arrays(Path(path))
    landmarks = arrays.get("landmarks")
    if landmarks is None:
        raise ValueError(
            f"{path} must contain an array named landmarks, but contains {', '.join(arrays) or 'none'}: save it "
            "with numpy.savez(FILE, landmarks=...)"
        )
    if landmarks.dtype.kind != "f" or landmarks.ndim != 3 or landmarks.shape[2] != 2 or not len(landmarks):
        found = f"{landmarks.dtype} {list(landmarks.shape)}"
        raise ValueError(f"{path}: landmarks must be floating point of shape [S, 68 or 70, 2], got {found}")
    check_point_count(landmarks.shape[1])
    if np.isinf(landmarks).any():
        raise ValueError(f"{path}: landmarks must be finite, or NaN for unknown points")
    known = usable_faces(landmarks)
    if not known.any():
        raise ValueError(f"{path}: no frame has all 68 landmarks at distinct positions")
    reach = float(np.nanmax(np.abs(landmarks - 0.5)))
    if reach > NPZ_REACH:
        raise ValueError(
            f"{path}: landmarks must be in [0, 1] of the square frame, but extend to {reach:g} from its center: "
            "divide pixel coordinates by the frame's side"
        )
    rate = _rate(path, arrays.get("fps"), fps)
    times, segment = np.arange(len(landmarks)) / float(rate), np.where(known, 0, -1)
    if follow == "face":
        landmarks = in_squares(landmarks, following_squares(landmarks, times, rest=rest))
    return Driving(landmarks.astype(np.float32), times, segment, rate, None, None, False, 0)


class _Followed(NamedTuple):
    """Information about a tracked video, returned by its process; the landmarks, in pixels, are written to a file."""

    times: Float64[np.ndarray, " S"]
    segment: Int[np.ndarray, " S"]
    sizes: Sequence[tuple[int, int, int]]
    """Number, height and width of each segment."""
    fps: tuple[int, int]
    has_audio: bool
    damaged_frames: int
    rivals: int = 0


def follow_driver(path: str, out: str, *, points: int, seconds: float, face: int | None = None) -> _Followed:
    """Track the face of a video, and write the landmarks of each frame to a file; `track_driver` runs it in another process.

    Raises:
        MediaError: if the video cannot be read.
        ValueError: if there is no face of this number.
        ImportError: if the extra `video` is not installed.
    """
    choose = None
    if face is not None:
        people = people_of(path, seconds=seconds)
        check_number(face, people=len(people), path=path)
        choose = PersonChooser(people, face)
    rivals = 0
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
        for tracked in follow_face(frames(), detect_every=every, max_flash=flash, choose=choose):
            rivals += tracked.rivals > 0
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
        return _Followed(moments, numbers, listed, rate, video.has_audio, video.damaged_frames, rivals)


def _followed_apart(path: Path, out: str, points: int, seconds: float, face: int | None) -> _Followed:
    """Run `follow_driver` in an isolated process and validate its answer, which a compromised decoder could forge."""
    with naming(path):
        answer = run_limited(
            follow_driver, str(path), out, points=points, seconds=seconds, face=face, within=DRIVER_LIMITS
        )
    followed = _Followed(*answer)
    count, width = len(followed.times), 2 * points * np.dtype(np.float32).itemsize
    ascending = (np.diff(followed.times, prepend=0.0, append=DEFAULT_LIMITS.seconds) >= 0).all()
    if (
        min(followed.fps) <= 0
        or len(followed.segment) != count
        or Path(out).stat().st_size != count * width
        or not ascending
    ):
        raise MediaError(MediaFault.UNDECODABLE, f"cannot use {path}: the values read from it contradict each other")
    return followed


class _Archive(io.BufferedReader):
    """A file that limits reads while it is opened, because zipfile accepts a member list of any length."""

    opening = True

    def read(self, size: int | None = -1, /) -> bytes:
        """Read as any file does, but raise a ValueError if the member list is too long."""
        if not self.opening:
            return super().read(size)
        most = _NPZ_LIST + 1
        content = super().read(most if size is None or size < 0 else min(size, most))
        if len(content) == most:
            raise ValueError(f"its file list is larger than {_NPZ_LIST} bytes, the limit")
        return content


LANDMARK_SUFFIXES = (".npz", ".npy", ".csv", ".json")


def is_landmark_file(path: str | Path) -> bool:
    """Return whether a driver has no images: landmarks (its name ends in .npz or .npy) or motion (.csv or .json)."""
    return str(path).lower().endswith(LANDMARK_SUFFIXES)


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """Read the required arrays; if there is no array called "landmarks", return all names in the file with empty arrays."""
    if not path.is_file():
        raise ValueError(f"there is no landmark file at {path}")
    try:
        if (size := path.stat().st_size) > NPZ_BYTES + _NPZ_HEADERS:  # the member list alone could be that long
            raise ValueError(f"it has {size} bytes, over the limit of {NPZ_BYTES}")
        with path.open("rb") as file:
            if file.read(len(_NPY)) == _NPY:
                file.seek(0)
                return {"landmarks": _npy(file, path.name, size)}
        with _Archive(path.open("rb", buffering=0)) as file, zipfile.ZipFile(file) as archive:
            file.opening = False
            if (count := len(archive.infolist())) > _NPZ_MEMBERS:
                raise ValueError(f"it contains {count} files, over the limit of {_NPZ_MEMBERS}")
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
    except Exception as error:  # zipfile, zlib and numpy's header parser raise a dozen types for damaged files
        raise ValueError(f"{path} is not a readable landmark file in npz format: {error}") from error


def _shown(member: str) -> str:
    name = member.removesuffix(".npy")
    return name if name.isprintable() and len(name) <= 100 else ascii(name[:100])


def _npy(file: Any, name: str, size: int) -> np.ndarray:
    """Read one array; the shape in its header is only trusted as far as the file has bytes for it."""
    version = np.lib.format.read_magic(file)
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, columns_first, dtype = header(file)
    if dtype.hasobject or any(n < 0 for n in shape) or math.prod(shape) * dtype.itemsize > size:
        raise ValueError(f"{name} declares {dtype} {list(shape)}, which does not match its data")
    content = np.frombuffer(file.read(math.prod(shape) * dtype.itemsize), dtype)
    return content.reshape(shape, order="F" if columns_first else "C")


def _rate(path: str | Path, stored: np.ndarray | None, asked: float | None) -> Fraction:
    value: Any = asked if asked is not None else 25.0
    if asked is None and stored is not None:
        if stored.size != 1 or stored.dtype.kind not in "iuf":
            raise ValueError(f"{path}: fps must be a single number, got {stored.dtype} {list(stored.shape)}")
        value = float(stored.reshape(()))
    if not 1e-3 <= value <= 1000:  # a smaller one would be rounded to zero
        raise ValueError(f"{path}: fps must be at least 0.001 and at most 1000 frames/s, got {value:g}")
    return Fraction(value).limit_denominator(1001)


STILLS = (".png", ".jpg", ".jpeg")

SUFFIXES = (".mp4", ".gif", *STILLS)

GIF_FPS = 50

GIF_FRAMES = 3000
"""Maximum number of frames of a GIF, which is assembled in memory."""

_HEADER_LIMITS = ProcessLimits(cpu_seconds=600.0, seconds=600.0)

_INEXACT = 0.5
"""Maximum error of a declared duration, in seconds."""


def decided_sound(
    driver: Path, out: Path, *, sound: bool, require_audio: bool, seconds: float | None
) -> tuple[bool, str | None]:
    """Decide whether the driver's sound is kept, and if requested sound is unavailable, why.

    Args:
        driver: video or landmark file.
        out: output file.
        sound: whether a video keeps sound.
        require_audio: whether sound is required.
        seconds: duration of the driver that is used; all of it by default.

    Returns:
        Whether sound is kept, and the reason why requested sound is unavailable, or None.

    Raises:
        ValueError: if sound is required but unavailable.
        MediaError: if the driver cannot be read.
        ImportError: if the extra `video` is not installed.
    """
    if require_audio and not sound:
        raise ValueError("audio cannot be both muted and required: omit mute or require_audio")
    points = is_landmark_file(driver)
    if require_audio and (points or out.suffix.lower() != ".mp4"):
        without = f"{driver} is a landmark file" if points else f"{out} is not an MP4 file"
        raise ValueError(f"{without} and has no audio: omit require_audio")
    if points or not sound or out.suffix.lower() != ".mp4":
        return False, None
    reason = missing_sound(driver, seconds=seconds)
    if require_audio and reason is not None:
        raise ValueError(f"the audio of {driver} {reason}: omit require_audio to continue without it")
    return reason is None, reason


def check_length(driver: Path, out: Path, *, at: float, seconds: float | None) -> None:
    """Check that a still's time lies within the video and that a GIF has few enough frames, as far as the headers tell.

    Raises:
        ValueError: if not; the message gives the requested and the available value.
        MediaError: if the driver cannot be read.
        ImportError: if the extra `video` is not installed.
    """
    kind = out.suffix.lower()
    if kind == ".mp4" or is_landmark_file(driver):
        return
    with naming(driver):
        match run_limited(declared_length, str(driver), within=_HEADER_LIMITS):
            case (float(duration), float(fps)):
                pass
            case _:
                raise MediaError(MediaFault.UNDECODABLE, "its decoder process reported no duration")
    if kind in STILLS and duration and at > duration + _INEXACT:
        raise ValueError(f"{driver} lasts {duration:.2f} s: there is no frame at {at:g} s")
    # A lower bound: the output follows the densest second, and a GIF shows faster drivers at no less than half its
    # maximum rate.
    frames = min(duration, math.inf if seconds is None else seconds) * min(fps, GIF_FPS / 2)
    if kind == ".gif" and frames > GIF_FRAMES:
        raise ValueError(f"{frames:.0f} frames are too many for a GIF: write MP4, or limit the length with seconds")


def declared_length(path: str) -> tuple[float, float]:
    """Return a video's duration in seconds, 0 if unknown, and its frame rate, from its headers; runs in a sandbox.

    Raises:
        MediaError: if the video cannot be read.
        ImportError: if the extra `video` is not installed.
    """
    with open_video(path) as video:
        return float(video.duration or 0.0), float(video.fps)

"""What the headers of a driver decide, before the long work of following its face."""

import math
from pathlib import Path

from th_jax.media import MediaError, MediaFault, open_video
from th_jax.media.confinement import ProcessLimits
from th_jax.media.sandbox import naming, run_limited
from th_jax.media.sound import missing_sound
from th_jax.rendering.landmark_source import is_landmark_file

STILLS = (".png", ".jpg", ".jpeg")
SUFFIXES = (".mp4", ".gif", *STILLS)

GIF_FPS = 50
GIF_FRAMES = 3000
"""Most frames of a GIF: it is put together in memory."""

_HEADER_LIMITS = ProcessLimits(cpu_seconds=600.0, seconds=600.0)

_INEXACT = 0.5
"""Seconds by which a declared length may be wrong."""


def decided_sound(
    driver: Path, out: Path, *, sound: bool, require_audio: bool, seconds: float | None
) -> tuple[bool, str | None]:
    """Whether the driver's sound is kept, and if one was wanted that is not there, why.

    Args:
        driver: a video or a file of landmarks.
        out: the file to be written.
        sound: whether a film keeps sound.
        require_audio: whether it must have some.
        seconds: of the driver that are used; all by default.

    Raises:
        ValueError: if sound is required and there will be none.
        MediaError: if the driver cannot be read.
        ImportError: without the extra `video`.
    """
    if require_audio and not sound:
        raise ValueError("sound cannot be both left out and required: leave mute or require_audio away")
    points = is_landmark_file(driver)
    if require_audio and (points or out.suffix.lower() != ".mp4"):
        without = f"{driver} is a file of landmarks" if points else f"{out} is no MP4"
        raise ValueError(f"{without} and has no sound: leave require_audio away")
    if points or not sound or out.suffix.lower() != ".mp4":
        return False, None
    reason = missing_sound(driver, seconds=seconds)
    if require_audio and reason is not None:
        raise ValueError(f"the sound of {driver} {reason}: leave require_audio away to go on without it")
    return reason is None, reason


def check_length(driver: Path, out: Path, *, at: float, seconds: float | None) -> None:
    """Refuse a moment that a video does not reach, and more frames than a GIF may have, where its headers tell.

    Raises:
        ValueError: naming what was asked for and what there is.
        MediaError: if the driver cannot be read.
        ImportError: without the extra `video`.
    """
    kind = out.suffix.lower()
    if kind == ".mp4" or is_landmark_file(driver):
        return
    with naming(driver):
        match run_limited(declared_length, str(driver), within=_HEADER_LIMITS):
            case (float(duration), float(fps)):
                pass
            case _:
                raise MediaError(MediaFault.UNDECODABLE, "its process told of no length")
    if kind in STILLS and duration and at > duration + _INEXACT:
        raise ValueError(f"{driver} lasts {duration:.2f} s: there is no frame at {at:g} s")
    # At least so many: the output follows the densest second, and a GIF shows at least half of its own rate of faster ones.
    frames = min(duration, math.inf if seconds is None else seconds) * min(fps, GIF_FPS / 2)
    if kind == ".gif" and frames > GIF_FRAMES:
        raise ValueError(f"{frames:.0f} frames are too many for a GIF: write MP4, or fewer with seconds")


def declared_length(path: str) -> tuple[float, float]:
    """Seconds of a video, 0 if unknown, and frames a second, by its headers: runs in a sandbox.

    Raises:
        MediaError: if it cannot be read.
        ImportError: without the extra `video`.
    """
    with open_video(path) as video:
        return float(video.duration or 0.0), float(video.fps)

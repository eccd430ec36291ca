"""Numbers the people of a photo or a video, so that a command's `--face N` can select one."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from th_jax.faces.people import Person, people_in
from th_jax.media import DEFAULT_LIMITS, VIDEO_SUFFIXES, Limits, Video, open_video, read_image

SAMPLES_A_SECOND = 2.0

MAX_SAMPLES = 40
"""Number of frames of a video per second that are searched for people, and the maximum in total, evenly spaced."""


def is_video(path: Path) -> bool:
    """Return whether images are taken from the path as a video, by its suffix."""
    return path.suffix.lower() in VIDEO_SUFFIXES and not path.is_dir()


def people_of(path: str | Path, *, seconds: float = math.inf, limits: Limits = DEFAULT_LIMITS) -> list[Person]:
    """Find the people in a photo or a video; the most prominent one is first (`people_in`).

    Args:
        path: photo or video.
        seconds: duration of the video to search, from its start.
        limits: limits on the file.

    Raises:
        ValueError: if the path is a folder.
        MediaError: if the file cannot be read.
        ImportError: if the extra `video` is not installed.
    """
    path, limits = Path(path), Limits(*limits)
    if path.is_dir():
        raise ValueError(f"faces are numbered in one photo or video, but {path} is a folder: name a file in it")
    if not is_video(path):
        return people_in([read_image(path, limits=limits)])
    with open_video(path, limits=limits) as video:
        samples = video_samples(video, a_second=SAMPLES_A_SECOND, most=MAX_SAMPLES, seconds=seconds)
        return people_in(frame for _, frame in samples)


def check_number(number: int, *, people: int, path: str | Path) -> None:
    """Check that there is a person of this number.

    Raises:
        ValueError: if not; the message says how to see the numbers.
    """
    if not 1 <= number <= people:
        found = {0: "no face", 1: "1 face"}.get(people, f"{people} faces")
        raise ValueError(
            f"{path} shows {found}, but face {number} was chosen: th-jax faces FILE --out faces.png draws them with "
            "their numbers"
        )


def video_samples(
    video: Video, *, a_second: float, most: int, seconds: float = math.inf
) -> Iterator[tuple[float, UInt8[np.ndarray, "H W 3"]]]:
    """Yield frames spread over a video with their times, each once.

    Args:
        video: open video.
        a_second: frames per second.
        most: maximum number of frames of a video of known duration.
        seconds: duration of the video to use, from its start.
    """
    if video.duration is None:
        pairs, step = video.frames(), 1 / a_second
    else:
        duration = min(video.duration, seconds)
        count = int(np.clip(duration * a_second, 1, most))
        pairs, step = video.frames_at(np.arange(count) * (duration / count)), 0.0
    last = -np.inf
    for time, frame in pairs:
        if time >= seconds:
            return
        if time > last and time >= last + step:
            last = time
            yield time, frame

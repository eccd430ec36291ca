"""Panels side by side: the driver's crop, the landmark image given to the generator, and the avatar."""

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from jaxtyping import Int, UInt8

from th_jax.driving.driver import DRIVER_LIMITS, Driving
from th_jax.faces import Square, crop_frame
from th_jax.media import DEFAULT_LIMITS, MediaError, MediaFault, open_video
from th_jax.media.isolation import naming, stream_limited

Panel = Literal["driver", "landmarks", "avatar"]
PANELS = ("driver", "landmarks", "avatar")


def parse_layout(text: str) -> tuple[Panel, ...]:
    """Parse a layout, such as "driver,landmarks,avatar", into panels from left to right.

    Raises:
        ValueError: if a panel is unknown or repeated, or the avatar is missing.
    """
    panels = [part.strip() for part in text.split(",")]
    if unknown := [panel for panel in panels if panel not in PANELS]:
        raise ValueError(f"unknown panel {unknown[0]!r} in the layout; expected {', '.join(PANELS)}")
    if len(set(panels)) < len(panels) or "avatar" not in panels:
        raise ValueError(f"a layout must contain the avatar and no panel twice, got {text!r}")
    return cast(tuple[Panel, ...], tuple(panels))


def side_by_side(panels: Iterable[Iterable[UInt8[np.ndarray, "H W 3"]]]) -> Iterator[UInt8[np.ndarray, "H X 3"]]:
    """Concatenate the frames of several streams horizontally, until the shortest stream ends."""
    for pictures in zip(*panels, strict=False):
        yield np.concatenate(pictures, axis=1)


def driver_crops(
    driving: Driving, shown: Int[np.ndarray, " F"], *, size: int
) -> Generator[UInt8[np.ndarray, "{size} {size} 3"], None, None]:
    """Decode the video again and yield each frame's crop; frames without a face use the square of the last frame with one.

    The video is decoded in an isolated process, which is one frame ahead and ends with the iteration.

    Args:
        driving: tracked driver, with its video and squares.
        shown: ascending indices of the decoded frames to show.
        size: side of the crops, in pixels.

    Raises:
        ValueError: if the driver is not a video.
        MediaError: if the video cannot be read again, or its process fails.
    """
    if driving.video is None or driving.squares is None:
        raise ValueError("a landmark file has no images: remove the driver from the layout")
    known = np.isfinite(driving.squares[:, 2])
    # For each frame, the last known square; before the first one, the first.
    last = np.maximum.accumulate(np.where(known, np.arange(len(known)), np.flatnonzero(known)[0]))
    squares = np.rint(driving.squares[last[shown]]).astype(np.int64)
    crops = stream_limited(
        crop_video, str(driving.video), np.asarray(shown), squares, size=size, within=DRIVER_LIMITS, most=3 * size**2
    )
    yield from _images(crops, driving.video, count=len(shown), shape=(size, size, 3))


def driver_frames(driving: Driving, shown: Int[np.ndarray, " F"]) -> Generator[UInt8[np.ndarray, "H W 3"], None, None]:
    """Decode the video again, as `driver_crops` does, and yield whole frames of the size `Driving.frame_size`.

    Raises:
        ValueError: if the driver is not a video, or its frames differ in size.
        MediaError: if the video cannot be read again, or its process fails.
    """
    if driving.video is None or driving.frame_size is None:
        raise ValueError("only a video whose frames all have one size has whole frames")
    shape = (*driving.frame_size, 3)
    frames = stream_limited(
        decode_frames, str(driving.video), np.asarray(shown), within=DRIVER_LIMITS, most=3 * DEFAULT_LIMITS.pixels
    )
    yield from _images(frames, driving.video, count=len(shown), shape=shape)


def _images(
    images: Generator[Any, None, None], video: Path, *, count: int, shape: tuple[int, ...]
) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """Yield what a decoder process returns, if these are as many images of this shape."""
    with naming(video), closing(images):
        for number in range(count):
            image = next(images, None)
            if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.shape != shape:
                raise MediaError(MediaFault.UNDECODABLE, f"its decoder process returned no image {number} of {count}")
            yield image


def crop_video(
    path: str, shown: Int[np.ndarray, " F"], squares: Int[np.ndarray, "F 3"], *, size: int
) -> Iterator[UInt8[np.ndarray, "{size} {size} 3"]]:
    """Decode a video and yield each frame's crop in its square (`Square`); `driver_crops` runs it in another process.

    Raises:
        MediaError: if the video cannot be read.
        ImportError: if the extra `video` is not installed.
    """
    for frame, square in zip(decode_frames(path, shown), squares, strict=True):
        yield crop_frame(frame, Square(*square.tolist()), size=size)


def decode_frames(path: str, shown: Int[np.ndarray, " F"]) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """Decode a video and yield the frames with these ascending indices; after its end, the last one again.

    Raises:
        MediaError: if the video cannot be read.
        ImportError: if the extra `video` is not installed.
    """
    with open_video(path, threads=0) as video:
        frames = enumerate(frame for _, frame in video.frames())
        index, frame = next(frames, (-1, None))
        for wanted in shown.tolist():
            while index < wanted:
                index, frame = next(frames, (wanted, frame))
            if frame is None:
                raise MediaError(MediaFault.UNDECODABLE, f"{path} has no frames left")
            yield frame

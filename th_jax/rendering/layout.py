"""Panels side by side: the driver's crop, the landmark image that the generator is shown, and the avatar."""

from collections.abc import Iterable, Iterator
from typing import Literal, cast

import numpy as np
from jaxtyping import Int, UInt8

from th_jax.faces import crop_frame
from th_jax.media import open_video
from th_jax.rendering.landmark_source import Driving

Panel = Literal["driver", "landmarks", "avatar"]
PANELS = ("driver", "landmarks", "avatar")


def parse_layout(text: str) -> tuple[Panel, ...]:
    """Panels from left to right, such as "driver,landmarks,avatar".

    Raises:
        ValueError: for an unknown panel, one that comes twice, or a layout without the avatar.
    """
    panels = [part.strip() for part in text.split(",")]
    if unknown := [panel for panel in panels if panel not in PANELS]:
        raise ValueError(f"{unknown[0]!r} is no panel of a layout; there are {', '.join(PANELS)}")
    if len(set(panels)) < len(panels) or "avatar" not in panels:
        raise ValueError(f"a layout shows the avatar and nothing twice, but {text!r} came")
    return cast(tuple[Panel, ...], tuple(panels))


def side_by_side(panels: Iterable[Iterable[UInt8[np.ndarray, "H W 3"]]]) -> Iterator[UInt8[np.ndarray, "H X 3"]]:
    """One picture of the frames of several streams, as long as all of them last."""
    for pictures in zip(*panels, strict=False):
        yield np.concatenate(pictures, axis=1)


def driver_crops(
    driving: Driving, shown: Int[np.ndarray, " F"], *, size: int
) -> Iterator[UInt8[np.ndarray, "{size} {size} 3"]]:
    """The video again, frame by frame, in the squares of its segments; without a face in the square of the last one.

    `shown` are ascending indices of its decoded frames.

    Raises:
        ValueError: if the driver is no video.
    """
    if driving.video is None:
        raise ValueError("a file of landmarks has no pictures: leave the driver out of the layout")
    square = driving.squares[0]
    with open_video(driving.video, threads=0) as video:
        frames = enumerate(frame for _, frame in video.frames())
        index, frame = next(frames)
        for wanted in shown:
            while index < wanted:
                index, frame = next(frames, (int(wanted), frame))
            number = int(driving.segment[wanted])
            square = driving.squares[number] if number >= 0 else square
            yield crop_frame(frame, square, size=size)

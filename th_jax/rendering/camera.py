"""Drives an avatar with a camera, frame by frame, in a preview window; refused in one sentence where there is no window.

A camera's square cannot be known from all of its frames: it is decided on the first frames of a segment and stays, until the
face is lost or leaves it.
"""

import itertools
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator

import cv2
import jax
import numpy as np
from jaxtyping import Float, UInt8

from th_jax.avatars import LoadedAvatar
from th_jax.faces import Square, crop_frame, follow_face, segment_square, to_crop
from th_jax.faces.pupils import with_pupils
from th_jax.rendering.layout import Panel
from th_jax.rendering.render import draw_stream, render
from th_jax.rendering.smoothing import LandmarkFilter, OneEuro
from th_jax.retargeting import FaceShape, face_shape, retarget

CAMERA = "camera:"
FIRST_FRAMES = 10
"""Frames of a face from which its square, and its shape, are decided; nothing is generated before."""

_WINDOW = "th_jax"
_ESCAPE, _QUIT = 27, ord("q")

Shown = UInt8[np.ndarray, "H W 3"]


def camera_number(driver: str) -> int | None:
    """The number in "camera:0"; None for anything that does not begin with "camera:".

    Raises:
        ValueError: if no number follows.
    """
    if not driver.startswith(CAMERA):
        return None
    if not re.fullmatch(r"\d{1,3}", driver.removeprefix(CAMERA)):
        raise ValueError(f"a camera is named by its number, such as camera:0, but {driver!r} came")
    return int(driver.removeprefix(CAMERA))


def missing_window() -> str | None:
    """Why no preview window can be opened here, in words; None if one can."""
    toolkit = re.search(r"^\s*GUI:\s*(\S+)", cv2.getBuildInformation(), re.MULTILINE)
    if toolkit is None or toolkit[1] == "NONE":
        return "the installed OpenCV has no windows (opencv-python-headless); opencv-python in its place has"
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return "this session has no display (neither DISPLAY nor WAYLAND_DISPLAY is set)"
    return None


def drive_with_camera(
    loaded: LoadedAvatar,
    number: int,
    *,
    layout: tuple[Panel, ...] = ("driver", "avatar"),
    smoothing: OneEuro | None = None,
    target: FaceShape | None = None,
    pupils: bool = False,
) -> int:
    """Show the avatar in a window until Escape or q is pressed or the camera ends; the number of frames shown.

    Args:
        loaded: the avatar.
        number: of the camera.
        layout: panels from left to right.
        smoothing: settings of the filter of the landmarks; none by default.
        target: the face to move the motion to.
        pupils: whether to look for the pupils too.

    Raises:
        ValueError: if there is no window here, or no such camera.
    """
    if (reason := missing_window()) is not None:
        raise ValueError(f"a camera needs a preview window, but {reason}: record a video and give it as the driver")
    camera = cv2.VideoCapture(number)
    try:
        if not camera.isOpened():
            raise ValueError(f"camera {number} cannot be opened: is it plugged in, and free?")
        frames = live_frames(loaded, _frames(camera), layout=layout, smoothing=smoothing, target=target, pupils=pupils)
        return _show(frames)
    finally:
        camera.release()
        cv2.destroyAllWindows()


def live_frames(
    loaded: LoadedAvatar,
    frames: Iterable[UInt8[np.ndarray, "H W 3"]],
    *,
    layout: tuple[Panel, ...] = ("driver", "avatar"),
    smoothing: OneEuro | None = None,
    target: FaceShape | None = None,
    pupils: bool = False,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Shown]:
    """The panels for each frame as it comes. A frame without a face repeats the last pose; before the first, nothing comes."""
    networks, size = loaded.networks, loaded.networks.image_size
    avatar = jax.device_put(loaded.avatar)
    followed, seen = itertools.tee(frames)  # one frame apart at most
    first: list[Float[np.ndarray, "P 2"]] = []
    segment, square, driver = -1, Square(0, 0, 1), None
    pose: Float[np.ndarray, "P 2"] | None = None
    smooth = None if smoothing is None else LandmarkFilter(smoothing)
    for tracked, frame in zip(follow_face(followed), seen, strict=False):
        if tracked.segment >= 0:
            points = with_pupils(frame, tracked.landmarks) if pupils else tracked.landmarks
            outside = pose is not None and not _within(tracked.landmarks, square)
            if tracked.segment != segment or (outside and len(first) >= FIRST_FRAMES):
                first, segment = [], tracked.segment
            if len(first) < FIRST_FRAMES:
                first.append(points)
                if len(first) == FIRST_FRAMES:
                    height, width = frame.shape[:2]
                    square = segment_square(np.stack(first), height=height, width=width)
                    driver = None if target is None else face_shape(to_crop(np.stack(first), square))
                    if smooth is not None:
                        smooth.reset()
            if len(first) == FIRST_FRAMES:
                pose = to_crop(points, square)
                if driver is not None and target is not None:
                    pose = retarget(pose[None], driver=driver, target=target)[0]
                pose = pose if smooth is None else smooth(pose, time=clock())
        if pose is None:
            continue
        pictures = []
        for panel in layout:
            if panel == "driver":
                pictures.append(crop_frame(frame, square, size=size))
            elif panel == "landmarks":
                pictures += draw_stream([pose], networks=networks, chunk=1)
            else:
                pictures += list(render(networks, avatar, pose[None], chunk=1))
        yield np.concatenate(pictures, axis=1)


def _within(landmarks: Float[np.ndarray, "68 2"], square: Square) -> bool:
    points = to_crop(landmarks, square)
    return bool(((points >= 0) & (points <= 1)).all())


def _frames(camera: cv2.VideoCapture) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    while True:
        came, frame = camera.read()
        if not came:
            return
        yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)


def _show(frames: Iterator[Shown]) -> int:
    shown = 0
    for frame in frames:
        cv2.imshow(_WINDOW, cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
        shown += 1
        if cv2.waitKey(1) & 0xFF in (_ESCAPE, _QUIT):
            break
    return shown

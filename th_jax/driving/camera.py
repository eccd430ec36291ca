"""Drives an avatar live with a camera, in a preview window.

Future frames of a camera are unknown. Its square therefore follows the face causally (`th_jax.faces.follow`), or, with
follow="segment", is computed from the first frames of a segment and stays fixed until the face is lost or leaves it.
Screen recorders and virtual cameras can record the window. The avatar therefore carries the video watermark, and a
label below it says that it is generated.
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
from jaxtyping import Float, Float64, UInt8

from th_jax.avatars.file import LoadedAvatar
from th_jax.driving.panels import Panel
from th_jax.driving.placement import Follow, check_follow
from th_jax.faces import (
    Placement,
    Square,
    SquareFollower,
    crop_frame,
    follow_face,
    in_squares,
    placement_of,
    segment_square,
)
from th_jax.faces.pupils import with_pupils
from th_jax.landmarks.methods import Retargeter, Target, live_retargeter
from th_jax.landmarks.smooth import LandmarkFilter, OneEuro
from th_jax.provenance.watermark.messages import marking_of
from th_jax.render import draw_stream, render

CAMERA = "camera:"
FIRST_FRAMES = 10
"""Number of frames with a face from which its square and shape are computed; nothing is generated before that."""

LABEL = "AI-generated"
"""Text of the label, in a separate bar below the avatar."""

_FLASH = 9
"""Maximum number of frames of an interruption after which the same shot continues: 0.3 s for most cameras."""

_BAR = 0.12
"""Height of the label's bar, as a share of a panel's side."""
_MIN_BAR = 12

_WINDOW = "th_jax"
_ESCAPE, _QUIT = 27, ord("q")

Shown = UInt8[np.ndarray, "H W 3"]

Chooser = Callable[[Float[np.ndarray, "S 68 2"]], Target | None]
"""Chooses the target by the landmarks of a face's first frames (`th_jax.driving.same_person`)."""


def camera_number(driver: str) -> int | None:
    """Parse the camera number of "camera:0"; None if the string does not start with "camera:".

    Raises:
        ValueError: if no number follows "camera:".
    """
    if not driver.startswith(CAMERA):
        return None
    if not re.fullmatch(r"\d{1,3}", driver.removeprefix(CAMERA)):
        raise ValueError(f"a camera is given by its number, such as camera:0, got {driver!r}")
    return int(driver.removeprefix(CAMERA))


def missing_window() -> str | None:
    """Return why no preview window can be opened here, or None if one can."""
    toolkit = re.search(r"^\s*GUI:\s*(\S+)", cv2.getBuildInformation(), re.MULTILINE)
    if toolkit is None or toolkit[1] == "NONE":
        return "the installed OpenCV (opencv-python-headless) has no window support; install opencv-python instead"
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return "this session has no display (neither DISPLAY nor WAYLAND_DISPLAY is set)"
    return None


def drive_with_camera(
    loaded: LoadedAvatar,
    number: int,
    *,
    layout: tuple[Panel, ...] = ("driver", "avatar"),
    smoothing: OneEuro | None = None,
    target: Target | Chooser | None = None,
    pupils: bool = False,
    follow: Follow = "face",
) -> int:
    """Show the avatar in a window until Escape or q is pressed or the camera ends.

    Args:
        loaded: avatar to drive.
        number: number of the camera.
        layout: panels from left to right.
        smoothing: settings of the landmark filter; no smoothing by default.
        target: face to which the motion is retargeted, and the method; or a function that chooses it for each new face.
        pupils: whether to detect the pupils too.
        follow: "face" for a square that follows the face, "segment" for a fixed one.

    Returns:
        The number of frames shown.

    Raises:
        ValueError: if no window can be opened, or the camera does not exist.
    """
    if (reason := missing_window()) is not None:
        raise ValueError(f"a camera needs a preview window, but {reason}: or record a video and use it as the driver")
    camera = cv2.VideoCapture(number)
    try:
        if not camera.isOpened():
            raise ValueError(f"cannot open camera {number}: check that it is connected and not in use")
        frames = live_frames(
            loaded, _frames(camera), layout=layout, smoothing=smoothing, target=target, pupils=pupils, follow=follow
        )
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
    target: Target | Chooser | None = None,
    pupils: bool = False,
    follow: Follow = "face",
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Shown]:
    """Yield the panels for each frame as it arrives, with the label below the avatar.

    A frame without a face repeats the last pose. There is no output before the first FIRST_FRAMES frames with a face.
    From 64 px on, the avatar carries a watermark with its digest; smaller frames have no room for one.

    Raises:
        ValueError: if `follow` is unknown.
    """
    check_follow(follow)
    networks, size = loaded.networks, loaded.networks.image_size
    avatar = jax.device_put(loaded.avatar)
    marking = marking_of(loaded.digest, size=size, kind="video")
    label = _label(size, panels=len(layout), avatar=layout.index("avatar"))
    followed, seen = itertools.tee(frames)  # at most one frame apart
    squares = _LiveSquares(follow, placement_of(loaded.landmarks))
    adapt: Retargeter | None = None
    pose: Float[np.ndarray, "P 2"] | None = None
    smooth = None if smoothing is None else LandmarkFilter(smoothing)
    for tracked, frame in zip(follow_face(followed, max_flash=_FLASH), seen, strict=False):
        if tracked.segment >= 0:
            now = clock()
            begun = squares.add(tracked.landmarks, frame.shape[:2], segment=tracked.segment, time=now)
            if begun is not None:
                chosen = target(begun) if callable(target) else target
                adapt = None if chosen is None else live_retargeter(chosen, begun)
                if smooth is not None:
                    smooth.reset()
            if squares.known:
                points = with_pupils(frame, tracked.landmarks) if pupils else tracked.landmarks
                pose = in_squares(points[None], squares.current[None])[0]
                if adapt is not None:
                    pose = adapt(pose[None])[0]
                pose = pose if smooth is None else smooth(pose, time=now)
        if pose is None:
            continue
        pictures = []
        for panel in layout:
            if panel == "driver":
                square = Square(*np.rint(squares.current).astype(int).tolist())
                pictures.append(crop_frame(frame, square, size=size))
            elif panel == "landmarks":
                pictures += draw_stream([pose], networks=networks, chunk=1)
            else:
                pictures += list(render(networks, avatar, pose[None], chunk=1, mark=marking and marking.mark))
        yield np.concatenate([np.concatenate(pictures, axis=1), label])


class _LiveSquares:
    """Square of the current frame; there is none until FIRST_FRAMES frames of a face have been collected."""

    def __init__(self, follow: Follow, rest: Placement) -> None:
        self._follow, self._rest = follow, rest
        self._segment = -1
        self._first: list[Float[np.ndarray, "68 2"]] = []
        self._follower = SquareFollower(rest=rest)
        self.current: Float64[np.ndarray, "3"] = np.array([0.0, 0.0, 1.0])

    @property
    def known(self) -> bool:
        return len(self._first) == FIRST_FRAMES

    def add(
        self, landmarks: Float[np.ndarray, "68 2"], frame: tuple[int, ...], *, segment: int, time: float
    ) -> Float[np.ndarray, "S 68 2"] | None:
        """Add a frame's landmarks; once enough are collected, return all of them, relative to their squares."""
        fixed = self._follow == "segment"
        if segment != self._segment or (fixed and self.known and not _within(landmarks, self.current)):
            self._first, self._segment, self._follower = [], segment, SquareFollower(rest=self._rest)
        if not fixed:
            moved = self._follower(landmarks, time=time)
        if not self.known:
            self._first.append(landmarks)
            if not self.known:
                return None
            first = np.stack(self._first)
            self.current = (
                np.array(segment_square(first, height=frame[0], width=frame[1]), np.float64) if fixed else moved
            )
            return in_squares(first, np.tile(self.current, (FIRST_FRAMES, 1)))
        if not fixed:
            self.current = moved
        return None


def _within(landmarks: Float[np.ndarray, "68 2"], square: Float64[np.ndarray, "3"]) -> bool:
    points = in_squares(landmarks[None], square[None])
    return bool(((points >= 0) & (points <= 1)).all())


def _label(size: int, *, panels: int, avatar: int) -> Shown:
    """Draw a black bar as wide as the panels, with the largest white label that fits below the avatar's panel."""
    height = max(_MIN_BAR, round(_BAR * size))
    bar, font = np.zeros((height, panels * size, 3), np.uint8), cv2.FONT_HERSHEY_SIMPLEX
    (width, rise), drop = cv2.getTextSize(LABEL, font, 1.0, 1)
    scale = min(0.92 * size / width, 0.8 * height / (rise + drop))
    left = avatar * size + (size - scale * width) / 2
    bottom = (height + scale * (rise - drop)) / 2
    cv2.putText(bar, LABEL, (round(left), round(bottom)), font, scale, (255, 255, 255), 1, cv2.LINE_AA)
    return bar


def _frames(camera: cv2.VideoCapture) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    while True:
        ok, frame = camera.read()
        if not ok:
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

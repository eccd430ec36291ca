"""Drives an avatar with frames that arrive one by one, such as a webcam's; frames that come too fast are dropped."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from th_jax.avatars.file import LoadedAvatar
from th_jax.driving.camera import live_frames
from th_jax.driving.poses import target_of, wants_pupils
from th_jax.driving.same_person import compare_faces
from th_jax.landmarks.methods import Target
from th_jax.landmarks.smooth import OneEuro

Frame = UInt8[np.ndarray, "H W 3"]

FramesOf = Callable[[Iterable[np.ndarray]], Iterator[np.ndarray]]

IDLE_SECONDS = 30.0
"""Time without a frame after which a live avatar ends."""

_RATE_FRAMES = 20
"""Number of frames over which the rate is measured."""


class LiveView(NamedTuple):
    """The newest picture of a live avatar."""

    picture: np.ndarray | None
    """Watermarked and labeled; None before a face was found."""
    pictures: int
    dropped: int
    latency: float
    """Seconds from the arrival of the frame to its picture."""
    rate: float
    """Pictures per second."""
    error: str = ""

    @property
    def words(self) -> str:
        """The state in one line."""
        if self.error:
            return self.error
        if self.picture is None:
            return "looking for a face"
        measured = f"{self.rate:.1f} frames/s, {self.latency * 1000:.0f} ms from camera to picture"
        return f"generated: {measured}, {self.dropped} frames dropped"


class Live:
    """A live avatar in a thread of its own: `put` frames, and take the `view`."""

    def __init__(self, frames_of: FramesOf, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Start the thread.

        Args:
            frames_of: function that turns frames into pictures (`driven_frames`).
            clock: time in seconds.
        """
        self._clock = clock
        self._changed = threading.Condition()
        self._waiting: tuple[np.ndarray, float] | None = None
        self._closed = False
        self._arrived = 0.0
        self._times: list[float] = []
        self._view = LiveView(None, 0, 0, 0.0, 0.0)
        self._thread = threading.Thread(target=self._work, args=(frames_of,), name="live", daemon=True)
        self._thread.start()

    @property
    def ended(self) -> bool:
        """Whether the thread has ended."""
        return not self._thread.is_alive()

    def put(self, frame: Frame) -> None:
        """Give the newest frame; one that is still waiting is dropped."""
        with self._changed:
            if self._waiting is not None:
                self._view = self._view._replace(dropped=self._view.dropped + 1)
            self._waiting = frame, self._clock()
            self._changed.notify_all()

    def view(self) -> LiveView:
        """Return the newest picture."""
        with self._changed:
            return self._view

    def close(self) -> None:
        """End the thread after the current frame, without waiting for it."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def join(self, timeout: float) -> bool:
        """Wait for the end of the thread, and return whether it has ended.

        Args:
            timeout: seconds to wait.
        """
        self._thread.join(timeout)
        return self.ended

    def _incoming(self) -> Iterator[np.ndarray]:
        while True:
            with self._changed:
                in_time = self._changed.wait_for(lambda: self._waiting is not None or self._closed, IDLE_SECONDS)
                if self._closed or not in_time or self._waiting is None:
                    return
                (frame, self._arrived), self._waiting = self._waiting, None
            yield frame

    def _work(self, frames_of: FramesOf) -> None:
        try:
            for picture in frames_of(self._incoming()):
                now = self._clock()
                self._times = [*self._times[-_RATE_FRAMES:], now]
                passed = now - self._times[0]
                rate = (len(self._times) - 1) / passed if passed > 0 else 0.0
                with self._changed:
                    self._view = self._view._replace(
                        picture=picture, pictures=self._view.pictures + 1, latency=now - self._arrived, rate=rate
                    )
        except Exception as error:
            with self._changed:
                self._view = self._view._replace(error=f"the live avatar ended: {error}")


def driven_frames(loaded: LoadedAvatar) -> FramesOf:
    """Return the function that drives an avatar with frames of a face (`th_jax.driving.camera.live_frames`).

    The pictures carry the watermark of videos, from 64 px on, and a label below them. The first frames of each face give its
    shape and neutral expression.
    """

    def choose(driver: Float[np.ndarray, "S 68 2"]) -> Target | None:
        assert loaded.landmarks is not None
        return target_of(loaded, compare_faces(loaded.landmarks, driver).method)

    def frames(incoming: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        target = None if loaded.landmarks is None else choose
        return live_frames(
            loaded, incoming, layout=("avatar",), smoothing=OneEuro(), target=target, pupils=wants_pupils(loaded, None)
        )

    return frames

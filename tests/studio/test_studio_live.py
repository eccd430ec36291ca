"""A live avatar: every picture is of the newest frame, others are dropped, and errors and silence end it."""

import queue
import threading
from collections.abc import Iterable, Iterator

import numpy as np
import pytest

from th_jax.studio import live
from th_jax.studio.live import Live

SOON = 20.0


def frame(value: int) -> np.ndarray:
    return np.full((2, 2, 3), value, np.uint8)


class Slow:
    """Turns a frame into its negative when it is told to."""

    def __init__(self) -> None:
        self.taken: queue.Queue[int] = queue.Queue()
        self.go = threading.Semaphore(0)
        self.shown: queue.Queue[int] = queue.Queue()

    def __call__(self, frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        for one in frames:
            self.taken.put(int(one[0, 0, 0]))
            assert self.go.acquire(timeout=SOON)
            yield 255 - one
            self.shown.put(int(one[0, 0, 0]))  # after the picture was stored


def test_frames_that_come_too_fast_are_dropped_and_the_newest_is_shown() -> None:
    slow, now = Slow(), [0.0]
    running = Live(slow, clock=lambda: now[0])
    running.put(frame(1))
    assert slow.taken.get(timeout=SOON) == 1
    assert running.view().words == "looking for a face"
    for value in (2, 3, 4):
        running.put(frame(value))
    now[0] = 0.25
    slow.go.release()
    assert slow.shown.get(timeout=SOON) == 1
    view = running.view()
    assert view.picture is not None
    assert (view.picture[0, 0, 0], view.pictures, view.dropped, view.latency) == (254, 1, 2, pytest.approx(0.25))
    assert slow.taken.get(timeout=SOON) == 4
    now[0] = 0.5
    slow.go.release()
    assert slow.shown.get(timeout=SOON) == 4
    view = running.view()
    assert (view.pictures, view.rate) == (2, pytest.approx(4.0))
    assert view.words == "generated: 4.0 frames/s, 500 ms from camera to picture, 2 frames dropped"
    running.close()
    assert running.join(SOON)
    assert running.ended


def test_silence_and_errors_end_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "IDLE_SECONDS", 0.01)
    silent = Live(Slow())
    silent._thread.join(SOON)
    assert silent.ended

    def fails(frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        for _ in frames:
            raise ValueError("no face model")
        return iter(())

    monkeypatch.setattr(live, "IDLE_SECONDS", SOON)
    broken = Live(fails)
    broken.put(frame(1))
    broken._thread.join(SOON)
    assert broken.view().words == "the live avatar ended: no face model"

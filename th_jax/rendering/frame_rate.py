"""The output's constant frame rate, and the decoded frame on screen at each of its frames: a driver's frames may be uneven."""

import math
from fractions import Fraction

import numpy as np
from jaxtyping import Float64, Int

MOST_FPS = 60
"""Frames a second of the output at most; a faster driver is shown at a whole part of its rate."""

SYNC = 0.02
"""Seconds by which a frame may be shown early or late, beside the sound."""

USUAL_FPS = (*(Fraction(1000 * n, 1001) for n in (24, 30, 48, 60)), *(Fraction(n) for n in (5, 10, 12, 15, 20, 24, 25)))
USUAL_FPS += tuple(Fraction(n) for n in (30, 48, 50, 60))
"""Rates to which a measured one is rounded."""

_SLACK = 0.005
"""Of a second: stored times are rounded, and phones' clocks tremble."""

_LEAST = 0.5
"""Seconds in which a rate is measured: two frames that follow each other at once are no rate."""


def output_rate(times: Float64[np.ndarray, " S"], *, declared: Fraction) -> Fraction:
    """The rate of the driver's densest second, so that no motion is lost; elsewhere frames repeat.

    The declared rate, an average of the file, is kept where it agrees, and a usual one is preferred to what was measured.
    Where the frames do not lie on the grid of that rate, it is multiplied until each is shown within `SYNC` of its time.

    Args:
        times: seconds of the decoded frames, ascending.
        declared: frames a second by the file's headers.

    Returns:
        Frames a second, above 0 and at most `MOST_FPS`.
    """
    rate = _densest(times, declared)
    if rate > MOST_FPS:
        return rate / math.ceil(rate / MOST_FPS)
    ticks = np.ceil(times * float(rate) - 0.5) / float(rate)
    if 2 * SYNC * rate < 1 and np.abs(ticks - times).max() > SYNC:
        return rate * math.ceil(1 / (2 * SYNC * float(rate)))
    return rate


def frames_on_screen(times: Float64[np.ndarray, " S"], fps: Fraction) -> Int[np.ndarray, " F"]:
    """For each tick of a constant rate the decoded frame on screen: sound stays with the picture when frames are uneven."""
    count = round(float(times[-1]) * fps) + 1
    ticks = (np.arange(count) + 0.5) / float(fps)  # half a frame later: stored times are rounded
    return np.maximum(np.searchsorted(times, ticks, side="right") - 1, 0)


def _densest(times: Float64[np.ndarray, " S"], declared: Fraction) -> Fraction:
    if len(times) < 2 or times[-1] <= times[0]:
        return declared
    last = np.searchsorted(times, times + 1 + _SLACK, side="right") - 1
    counts = last - np.arange(len(times))
    densest = np.flatnonzero(counts == counts.max())
    if counts.max():
        # Of equally dense seconds the middle one: each alone begins and ends at rounded times.
        span = float(np.median(times[last[densest]] - times[densest]))
        measured = int(counts.max()) / max(span, min(_LEAST, float(times[-1] - times[0])))
    else:
        measured = 1 / float(np.diff(times).min())
    if abs(float(declared) / measured - 1) < 2e-3:
        return declared
    nearest = min(USUAL_FPS, key=lambda usual: abs(float(usual) - measured))
    if abs(float(nearest) / measured - 1) < 1e-2:
        return nearest
    return max(Fraction(measured).limit_denominator(1001), Fraction(1, 1001))

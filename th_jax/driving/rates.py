"""Frame rates of a driver: the output rate from the frames' times, and the frames on screen at a constant rate."""

import math
from fractions import Fraction

import numpy as np
from jaxtyping import Float64, Int

MAX_FPS = 60
"""Maximum frame rate of the output, in frames per second; faster drivers are shown at an integer fraction of their rate."""

SYNC = 0.02
"""Maximum time in seconds by which a frame may be shown early or late relative to the sound."""

USUAL_FPS = (
    *(Fraction(1000 * n, 1001) for n in (24, 30, 48, 60)),
    *(Fraction(n) for n in (5, 10, 12, 15, 20, 24, 25, 30, 48, 50, 60)),
)
"""Common frame rates, to which measured rates are rounded."""

_SLACK = 0.005
"""Tolerance in seconds: stored times are rounded, and phone clocks jitter."""

_MIN_SECONDS = 0.5
"""Minimum time in seconds over which a rate is measured; two frames in quick succession do not define one."""


def output_rate(times: Float64[np.ndarray, " S"], *, declared: Fraction) -> Fraction:
    """Compute the frame rate of the driver's densest second, so that no motion is lost; elsewhere frames repeat.

    The declared rate, an average over the file, is kept if it agrees, and common rates are preferred to the measured
    one. If the frames do not lie on that rate's grid, the rate is multiplied until each frame is shown within `SYNC` of
    its time.

    Args:
        times: times of the decoded frames, in seconds, ascending.
        declared: frame rate declared in the file's headers, in frames per second.

    Returns:
        The output's frame rate, above 0 and at most `MAX_FPS`.
    """
    rate = _densest(times, declared)
    if rate > MAX_FPS:
        return rate / math.ceil(rate / MAX_FPS)
    ticks = np.ceil(times * float(rate) - 0.5) / float(rate)
    if 2 * SYNC * rate < 1 and np.abs(ticks - times).max() > SYNC:
        return rate * math.ceil(1 / (2 * SYNC * float(rate)))
    return rate


def frames_on_screen(times: Float64[np.ndarray, " S"], fps: Fraction) -> Int[np.ndarray, " F"]:
    """Return the decoded frame on screen at each tick of a constant rate, so that uneven frames stay in sync with sound."""
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
        # The median over equally dense seconds, because each of them starts and ends at rounded times.
        span = float(np.median(times[last[densest]] - times[densest]))
        measured = int(counts.max()) / max(span, min(_MIN_SECONDS, float(times[-1] - times[0])))
    else:
        measured = 1 / float(np.diff(times).min())
    if abs(float(declared) / measured - 1) < 2e-3:
        return declared
    nearest = min(USUAL_FPS, key=lambda usual: abs(float(usual) - measured))
    if abs(float(nearest) / measured - 1) < 1e-2:
        return nearest
    return max(Fraction(measured).limit_denominator(1001), Fraction(1, 1001))

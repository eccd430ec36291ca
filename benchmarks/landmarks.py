"""Milliseconds to draw a landmark image of 70 points, alone and in a batch: `python -m benchmarks.landmarks`.

`python -m benchmarks.landmarks --fit` prints instead how many frames/s of a known person the 3D model fits, offline and live.
"""

import argparse
import time
from statistics import median

import jax
import numpy as np

from th_jax.data.records import VideoRecords, bundled_heads
from th_jax.landmarks.draw import draw_landmarks
from th_jax.landmarks.live import LiveRetargeter
from th_jax.landmarks.model3d import fit_clip, fit_frames

ROUNDS = 20

_FITTED = 1024


def fit_rates() -> None:
    """Print the frames/s of the fit of a held-out head's frames, repeated, and of live retargeting.

    Seconds are those of all cores together, without the time in which other programs ran.
    """
    points = VideoRecords(bundled_heads(), "heldout").read(0).landmarks[:, :68]
    person, _ = fit_clip(points)
    frames = np.tile(points, (_FITTED // len(points), 1, 1))
    live = LiveRetargeter(points, points)
    for name, run, clip in (
        ("fit in batches", lambda clip: jax.block_until_ready(fit_frames(clip, person)), frames),
        ("live, with transfer", live, points),
    ):
        run(clip)
        times = []
        for _ in range(5):
            start = time.process_time()
            run(clip)
            times.append(time.process_time() - start)
        print(f"{name}: {len(clip) / median(times):.0f} frames/s a core")


def main() -> None:
    """Print a line a size and batch."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.landmarks")
    parser.add_argument("--image_sizes", default="64,128,256")
    parser.add_argument("--fit", action="store_true", help="measure the fit of the 3D model")
    options = parser.parse_args()
    if options.fit:
        return fit_rates()
    for size in map(int, options.image_sizes.split(",")):
        draw = jax.jit(lambda points, size=size: draw_landmarks(points, size=size))
        for batch in (1, 9):
            points = jax.random.uniform(jax.random.key(0), (batch, 70, 2), minval=0.2, maxval=0.8)
            start = time.perf_counter()
            draw(points).block_until_ready()
            compiled = time.perf_counter() - start
            times = []
            for _ in range(ROUNDS):
                start = time.perf_counter()
                draw(points).block_until_ready()
                times.append((time.perf_counter() - start) / batch * 1e3)
            print(f"{size} px, batch {batch}: {median(times):.2f} ms a frame, compiled in {compiled:.1f} s")


if __name__ == "__main__":
    main()

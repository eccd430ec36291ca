"""Milliseconds to draw a landmark image of 70 points, alone and in a batch: `python -m benchmarks.landmarks`."""

import argparse
import time
from statistics import median

import jax

from th_jax.landmarks.draw import draw_landmarks

ROUNDS = 20


def main() -> None:
    """Print a line a size and batch."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.landmarks")
    parser.add_argument("--image_sizes", default="64,128,256")
    options = parser.parse_args()
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

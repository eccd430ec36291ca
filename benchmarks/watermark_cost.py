"""What the watermark costs in time: `python -m benchmarks.watermark_cost [--image_sizes 64,256] [--rounds 15]`.

The same program generates the same frames from the same landmarks with a mark and without one, in short blocks by turns
(`benchmarks.alternating`), frames copied back to the host as driving does. 64 px are `heads64`'s networks, other sizes the
paper's with random weights: the time does not depend on the numbers in them. Printed are medians a frame, the median of the
ratios of neighbouring blocks less one, their middle half, and the seconds that compiling the marked program takes, which
are not in the others.
"""

import argparse
import os

import jax
import numpy as np

from benchmarks.alternating import Comparison, compare
from benchmarks.driving import avatar_at
from th_jax.provenance.watermark.messages import marking_of
from th_jax.render import CHUNK, render


def poses(count: int) -> np.ndarray:
    """So many random landmarks, `[count, 68, 2]`: drawing takes as long for any."""
    return np.random.default_rng(0).uniform(0.2, 0.8, (count, 68, 2)).astype(np.float32)


def measure(size: int, *, chunk: int, rounds: int) -> Comparison:
    """Generating one chunk of frames with its mark, against the same without."""
    loaded, points = avatar_at(size), poses(chunk)
    avatar = jax.device_put(loaded.avatar)
    marking = marking_of(loaded.digest, size=size, kind="video")
    assert marking is not None

    def marked() -> None:
        render(loaded.networks, avatar, points, chunk=chunk, mark=marking.mark)

    def plain() -> None:
        render(loaded.networks, avatar, points, chunk=chunk)

    return compare(marked, plain, rounds=rounds)


def row(size: int, comparison: Comparison, *, chunk: int) -> str:
    """A line of the table."""
    ratios = np.array(comparison.ours) / np.array(comparison.theirs)
    marked, plain = (1e3 * float(np.median(seconds)) / chunk for seconds in (comparison.ours, comparison.theirs))
    low, middle, high = 100 * (np.percentile(ratios, (25, 50, 75)) - 1)
    cost = f"{middle:+.2f} % ({low:+.2f} to {high:+.2f})"
    return f"{size:>6}{plain:>16.2f}{marked:>16.2f}{cost:>30}{comparison.compile_seconds:>12.1f}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.watermark_cost")
    parser.add_argument("--image_sizes", default="64,256")
    parser.add_argument("--chunk", type=int, default=CHUNK, help="frames that are generated together")
    parser.add_argument("--rounds", type=int, default=15, help="pairs of blocks")
    options = parser.parse_args()
    print(f"{jax.default_backend()}, {os.cpu_count()} cores, {options.chunk} frames together")
    print(f"{'px':>6}{'ms unmarked':>16}{'ms marked':>16}{'cost (middle half)':>30}{'compile s':>12}", flush=True)
    for size in map(int, options.image_sizes.split(",")):
        comparison = measure(size, chunk=options.chunk, rounds=options.rounds)
        print(row(size, comparison, chunk=options.chunk), flush=True)


if __name__ == "__main__":
    main()

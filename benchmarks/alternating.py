"""Times two programs in turn, A B A B in short blocks, so that a machine whose speed drifts slows both alike."""

import time
from collections.abc import Callable
from statistics import median
from typing import NamedTuple

Program = Callable[[], None]
"""Runs once and returns when the result is there."""


class Comparison(NamedTuple):
    """Seconds a run; compile times are those of the first call less a steady run."""

    ours: list[float]
    theirs: list[float]
    compile_seconds: float

    @property
    def ratio(self) -> float:
        """Median over the pairs of ours / theirs: below 1 we are faster."""
        return median(a / b for a, b in zip(self.ours, self.theirs, strict=True))


def seconds(program: Program) -> float:
    """One run on the clock."""
    start = time.perf_counter()
    program()
    return time.perf_counter() - start


def steady_seconds(program: Program, *, about: float = 0.4) -> float:
    """Mean of consecutive runs, as a program is used: after a pause and one run that is not counted.

    The pause: OpenMP's threads spin for up to 0.2 s after their work, which would be in the other program's time.
    """
    time.sleep(0.3)
    once = seconds(program)
    runs = max(1, round(about / once))
    start = time.perf_counter()
    for _ in range(runs):
        program()
    return (time.perf_counter() - start) / runs


def compare(ours: Program, theirs: Program, *, rounds: int) -> Comparison:
    """Warm both up twice, then time them in turn."""
    first = seconds(ours)
    warm = seconds(ours)
    for _ in range(2):
        theirs()
    pairs = [(steady_seconds(ours), steady_seconds(theirs)) for _ in range(rounds)]
    return Comparison([a for a, _ in pairs], [b for _, b in pairs], max(0.0, first - warm))


def row(name: str, comparison: Comparison, *, flop: float) -> str:
    """A line of the table: medians in milliseconds, the ratio, the rate and the compile time."""
    ours, theirs = median(comparison.ours), median(comparison.theirs)
    return (
        f"{name:34}{ours * 1e3:>10.1f}{min(comparison.ours) * 1e3:>9.1f}{theirs * 1e3:>10.1f}{comparison.ratio:>8.2f}"
        f"{flop / ours / 1e9:>12.0f}{comparison.compile_seconds:>10.1f}"
    )


HEADER = f"{'':34}{'th_jax ms':>10}{'(best)':>9}{'torch ms':>10}{'ratio':>8}{'GFLOP/s':>12}{'compile s':>10}"

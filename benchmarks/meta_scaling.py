"""Time and memory of a meta-learning step against batch, K, image size and rows of W, and how long it waits for data.

    python -m benchmarks.meta_scaling [--base_width 32] [--repeats 3] [--only batch,sources,image_size,rows,waiting]

Networks of half the paper's width (so that 256 px stay feasible), VGG19 and VGGFace of random weights, float32. Memory is
XLA's plan of the program: state, frozen networks, batch and intermediate arrays together, and the intermediate ones alone.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from statistics import median

import jax

from benchmarks.alternating import compare, seconds
from benchmarks.compiled_step import CompiledStep
from th_jax.data import Episodes, VideoRecords
from th_jax.data.records import bundled_heads
from th_jax.losses import LossWeights, loss_preset
from th_jax.models.networks import Networks
from th_jax.training.run import StepClock
from th_jax.training.sharding import put_batch

START = {"image_size": 64, "sources": 8, "batch": 1}
"""Where each sweep sets out from."""

SWEEPS = {"batch": (1, 2, 4, 8), "sources": (1, 4, 8), "image_size": (64, 128, 256)}
ROWS = (1_000, 150_000)


def sweep(name: str, *, base_width: int, repeats: int) -> Iterator[str]:
    """Lines of the table in which one number of `START` changes."""
    for value in SWEEPS[name]:
        chosen = {**START, name: value}
        networks = Networks(image_size=chosen["image_size"], base_width=base_width)
        step = CompiledStep(networks, episodes=chosen["batch"], sources=chosen["sources"])
        step.program  # noqa: B018 - compiled now, apart from the runs
        step()
        taken = median(seconds(step) for _ in range(repeats))
        yield (
            f"| {chosen['image_size']} px | {chosen['sources']} | {chosen['batch']} | {taken:.2f} s "
            f"| {taken / chosen['batch']:.2f} s | {_gibi(step.peak_bytes)} | {_gibi(step.temporary_bytes)} "
            f"| {step.compile_seconds:.0f} s |"
        )


def row_lines(*, episodes: int, rounds: int) -> Iterator[str]:
    """Two tables of rows of 512, in turn, on a step so small that a pass over the larger one would show."""
    networks, loss_weights = Networks(image_size=16, base_width=64), LossWeights({"vgg16": 0.15})
    few, many = (
        CompiledStep(networks, episodes=episodes, sources=1, videos=videos, loss_weights=loss_weights)
        for videos in ROWS
    )
    few.program, many.program  # noqa: B018
    comparison = compare(many, few, rounds=rounds)
    for videos, step, times in ((ROWS[0], few, comparison.theirs), (ROWS[1], many, comparison.ours)):
        table = sum(leaf.nbytes for leaf in jax.tree.leaves(step.state.table))
        yield (
            f"| {videos:,} | {episodes} | {table / 2**20:,.0f} MiB | {median(times) * 1e3:.1f} ms "
            f"| {step.temporary_bytes / 2**20:,.1f} MiB |"
        )
    yield f"| ratio | {episodes} | | {comparison.ratio:.2f} | |"


def waiting_share(*, steps: int, threads: int) -> str:
    """A loop as train.py's on the bundled heads with the settings of configs/heads.py; a sentence."""
    networks = Networks(image_size=64, base_width=32)
    records = VideoRecords(str(bundled_heads()), "train")
    episodes = Episodes(
        records, image_size=64, batch_size=8, sources=4, seed=0, flip=True, drop_pupils=0.15, landmarks="true"
    )
    step = CompiledStep(networks, episodes=8, sources=4, videos=len(records), loss_weights=loss_preset("heads"))
    step()
    reader, clock = episodes.iterate(threads=threads), StepClock()
    for turn in range(steps + 1):
        if turn == 1:  # the first batch waits for the reader's start
            clock.lap()
        with clock.waiting():
            batch = next(reader)
        step.advance(put_batch(step.programs.mesh, batch))
        jax.block_until_ready(step.state)
    lap = clock.lap()
    return (
        f"{steps} steps of {lap['time/step']:.2f} s (64 px, width 32, K 4, batch 8, {threads} threads): "
        f"{100 * lap['time/waiting_share']:.2f} % of the time spent waiting for data"
    )


def main() -> None:
    """Print the tables in Markdown."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.meta_scaling")
    parser.add_argument("--base_width", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--waiting_steps", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2, help="of the reader")
    parser.add_argument("--only", default=",".join((*SWEEPS, "rows", "waiting")))
    parser.add_argument("--cached", action="store_true", help="programs may come from the cache: no compile time then")
    options = parser.parse_args()
    jax.config.update("jax_enable_compilation_cache", options.cached)
    chosen = options.only.split(",")
    if unknown := sorted(set(chosen) - {*SWEEPS, "rows", "waiting"}):
        sys.exit(f"there is no table called {unknown[0]!r}; there are {', '.join((*SWEEPS, 'rows', 'waiting'))}")
    print(f"{os.cpu_count()} cores, jax {jax.__version__}, width {options.base_width}")
    for name in (name for name in SWEEPS if name in chosen):
        print(f"\n| image | K | batch | a step | an episode | memory | intermediate | compiled in |\n{'|---' * 8}|")
        for line in sweep(name, base_width=options.base_width, repeats=options.repeats):
            print(line, flush=True)
    if "rows" in chosen:
        print(f"\n| rows of W | batch | table with its moments | a step | intermediate |\n{'|---' * 5}|")
        for episodes in (1, 8):  # XLA writes one row by other means than several
            for line in row_lines(episodes=episodes, rounds=options.repeats + 2):
                print(line, flush=True)
    if "waiting" in chosen:
        print(f"\n{waiting_share(steps=options.waiting_steps, threads=options.threads)}")


def _gibi(count: int) -> str:
    return f"{count / 2**30:.2f} GiB"


if __name__ == "__main__":
    main()

"""Frames a second of driving, stage by stage and end to end: `python -m benchmarks.driving [--image_sizes 64,256]`.

A video of a bundled head is decoded, its face followed, landmarks drawn, frames generated and encoded; each stage is timed
alone, after a run that compiles, and then the whole command. 64 px are the networks of `heads64`, other sizes the paper's with
random weights: the time does not depend on the numbers in them.
"""

import argparse
import itertools
import os
import tempfile
import time
from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path

import jax
import numpy as np

import th_jax
from th_jax.avatars.file import LoadedAvatar
from th_jax.data.episodes import decode_frame
from th_jax.data.records import FRAME_SIZE, VideoRecords, bundled_heads
from th_jax.driving.animate import animate
from th_jax.driving.driver import track_driver
from th_jax.media import open_video
from th_jax.models.networks import Networks
from th_jax.provenance import Kind, Provenance, write_video
from th_jax.render import draw_stream, render_stream
from th_jax.training.finetune import avatar_from_embedding
from th_jax.types import MetaWeights

_FPS = Fraction(25)
_RECORD = Provenance(kind=Kind.SYNTHETIC_RENDER)


def driver(folder: Path) -> Path:
    """A video of 128 frames."""
    record = VideoRecords(bundled_heads(), "heldout").read(0)
    frames = [decode_frame(jpeg, size=FRAME_SIZE) for jpeg in record.frames]
    return write_video(folder / "driver.mp4", [*frames, *frames[::-1]], fps=_FPS, provenance=_RECORD)


def avatar_at(size: int) -> LoadedAvatar:
    """The avatar of no embedding at all."""
    if size == 64:
        meta = th_jax.load_pretrained("heads64")
        networks, weights = meta.networks, meta.weights
    else:
        networks = Networks(image_size=size)
        weights = MetaWeights(*networks.init(jax.random.key(0)))
    avatar = avatar_from_embedding(networks, weights, np.zeros(networks.plan.embedding, np.float32))
    description = {"kind": "full", "provenance": Provenance(kind=Kind.GENERATED).to_dict()}
    return LoadedAvatar(networks=networks, avatar=avatar, description=description, digest="0" * 64, landmarks=None)


def rate(frames: int, work: Callable[[], object]) -> float:
    """Frames a second of the second run."""
    work()
    start = time.perf_counter()
    work()
    return frames / (time.perf_counter() - start)


def exhaust(frames: Iterable[object]) -> None:
    """Take all of them."""
    for _ in frames:
        pass


def measure(size: int, folder: Path) -> None:
    """Print a line of the table."""
    loaded, path = avatar_at(size), driver(folder)
    with open_video(path) as video:
        images = [frame for _, frame in video.frames()]
    count = len(images)
    with track_driver(path) as driving:
        points = np.array(driving.landmarks)
    made = list(itertools.islice(render_stream(loaded.networks, loaded.avatar, points), count))

    def decode() -> None:
        with open_video(path) as video:
            exhaust(video.frames())

    def follow() -> None:
        with track_driver(path):
            pass

    stages: dict[str, Callable[[], object]] = {
        "decode": decode,
        "decode and follow": follow,
        "draw": lambda: exhaust(draw_stream(points, networks=loaded.networks)),
        "draw and generate": lambda: exhaust(render_stream(loaded.networks, loaded.avatar, points)),
        "encode": lambda: write_video(folder / "encoded.mp4", made, fps=_FPS, provenance=_RECORD),
        "all of it": lambda: animate(loaded, path, folder / "out.mp4"),
    }
    print(f"{size:>6}" + "".join(f"{rate(count, work):>20.0f}" for work in stages.values()), flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.driving")
    parser.add_argument("--image_sizes", default="64,256")
    options = parser.parse_args()
    names = ("decode", "decode and follow", "draw", "draw and generate", "encode", "all of it")
    print(f"frames/s on {os.cpu_count()} cores\n{'px':>6}" + "".join(f"{name:>20}" for name in names), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for size in map(int, options.image_sizes.split(",")):
            measure(size, Path(folder))


if __name__ == "__main__":
    main()

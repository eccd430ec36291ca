"""How many episodes a second the reader gives, what each of its stages costs, and what that means for a 16-core host.

    python -m benchmarks.reader [--image_size 256] [--sources 8] [--videos 64] [--threads 1,2,4] [--batch_size 8]

The data are made for it: 32 frames a video of smooth noise, about 12 KB a JPEG, as photographs of faces have at 256 px.
"""

import argparse
import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator

import cv2
import numpy as np

from data_prep.build.shard_writer import write_data_set
from th_jax.data.episodes import Episodes, decode_frame
from th_jax.data.records import VideoRecords
from th_jax.data.schema import FRAMES_PER_VIDEO, VideoRecord, parse
from th_jax.data.tfrecord import masked_crc

STORED_SIZE = 256
GOAL = 200.0
"""Episodes a second at 256 px with 8 sources on 2 cores."""


def main() -> None:
    """Write the data, time the stages one by one and the reader as a whole, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--image_size", type=int, default=STORED_SIZE)
    parser.add_argument("--sources", type=int, default=8)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--videos", type=int, default=64)
    parser.add_argument("--threads", default="1,2,4")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = os.path.join(folder, "noise")
        write_data_set(data, {"train": map(noise_video, range(options.videos))}, name="noise", records_per_shard=16)
        records = VideoRecords(data)
        frames = [frame for number in range(4) for frame in records.read(number).frames]
        print(f"{len(records)} videos, {sum(map(len, frames)) / len(frames) / 1e3:.1f} KB a frame, ", end="")
        print(f"{os.cpu_count()} cores, batch {options.batch_size}, K = {options.sources}, {options.image_size} px\n")
        decoding = print_stages(
            records, image_size=options.image_size, sources=options.sources, seconds=options.seconds
        )
        episodes = Episodes(
            records, image_size=options.image_size, batch_size=options.batch_size, sources=options.sources, seed=0
        )
        whole = milliseconds(episodes.batch, seconds=options.seconds) / options.batch_size
        print(f"{'whole episode':>14} {whole:7.3f} ms, on one thread: {1e3 / whole:.0f} episodes/s\n")
        best = 0.0
        for threads in map(int, options.threads.split(",")):
            rate = episode_rate(episodes, threads=threads, seconds=options.seconds)
            best = max(best, rate)
            print(f"reader, {threads:2d} threads: {rate:.0f} episodes/s, {rate * (options.sources + 1):.0f} frames/s")
        print(f"\ngoal {GOAL:.0f} episodes/s (256 px, K = 8, 2 cores): {best / GOAL:.2f} of it")
        cores = os.cpu_count() or 1
        print(
            f"a 16-core host at the same rate a core: {best / cores * 16:.0f} episodes/s; a step of batch 8 would wait "
            f"for data only if it took less than {8e3 / (best / cores * 16):.1f} ms.\n"
            f"Only decoding and resizing run beside other Python threads: one process gives at most about "
            f"{1e3 / (whole - decoding):.0f} episodes/s,\nso that more than {whole / (whole - decoding):.0f} threads "
            "want worker processes"
        )


def print_stages(records: VideoRecords, *, image_size: int, sources: int, seconds: float) -> float:
    """Print the milliseconds that each stage costs an episode, on one thread; give those of decoding and resizing."""
    data = [records.read_bytes(number) for number in range(8)]
    jpegs = [frame for serialised in data for frame in parse(serialised).frames]
    images = [decode_frame(jpeg, size=STORED_SIZE) for jpeg in jpegs[:32]]
    out = np.empty((sources + 1, image_size, image_size, 3), np.uint8)
    small = np.zeros((image_size, image_size, 3), np.uint8)
    count = sources + 1

    def resize(turn: int) -> None:
        for k in range(count):
            cv2.resize(images[(turn + k) % 32], (image_size, image_size), interpolation=cv2.INTER_AREA)

    def copy(turn: int) -> None:
        for k in range(count):
            out[k] = small

    def decode(turn: int) -> None:
        for k in range(count):
            decode_frame(jpegs[(turn * count + k) % len(jpegs)], size=STORED_SIZE)

    stages: dict[str, Callable[[int], object]] = {
        "read": lambda turn: records.read_bytes(turn % len(records)),
        "of it CRC": lambda turn: masked_crc(data[turn % 8]),
        "parse": lambda turn: parse(data[turn % 8]),
        "decode": decode,
        "copy to batch": copy,
    }
    if image_size != STORED_SIZE:
        stages["resize"] = resize
    costs = {name: milliseconds(stage, seconds=seconds / 4) for name, stage in stages.items()}
    for name, cost in costs.items():
        print(f"{name:>14} {cost:7.3f} ms an episode")
    return costs["decode"] + costs.get("resize", 0.0)


def milliseconds(stage: Callable[[int], object], *, seconds: float) -> float:
    """Median time of one call over the given seconds."""
    stage(0)
    times: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        stage(len(times))
        times.append(time.perf_counter() - start)
    return float(np.median(times)) * 1e3


def episode_rate(episodes: Episodes, *, threads: int, seconds: float) -> float:
    """Episodes a second of the whole reader, after a warm-up."""
    batches: Iterator = episodes.iterate(threads=threads, ahead=2 * threads)
    for _ in range(2 * threads + 2):
        next(batches)
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        count += len(next(batches).video_index)
    return count / (time.perf_counter() - start)


def noise_video(number: int) -> VideoRecord:
    """A video of smooth noise."""
    rng = np.random.default_rng(number)
    return VideoRecord(
        frames=tuple(_noise_jpeg(rng) for _ in range(FRAMES_PER_VIDEO)),
        landmarks=rng.random((FRAMES_PER_VIDEO, 70, 2), np.float32),
        true_landmarks=None,
        times=np.arange(FRAMES_PER_VIDEO, dtype=np.float32),
        clips=np.zeros(FRAMES_PER_VIDEO, np.int64),
        crops=np.tile(np.array([0, 0, STORED_SIZE], np.float32), (FRAMES_PER_VIDEO, 1)),
        minimum_gap=1.0,
        identity=f"noise{number}",
        video_id=f"noise{number}",
        source_sha256=hashlib.sha256(str(number).encode()).hexdigest(),
        licence="CC0-1.0",
    )


def _noise_jpeg(rng: np.random.Generator) -> bytes:
    coarse = rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)
    smooth = cv2.resize(coarse, (STORED_SIZE, STORED_SIZE), interpolation=cv2.INTER_CUBIC).astype(np.int16)
    grain = rng.integers(-4, 5, smooth.shape, dtype=np.int16)
    frame = np.clip(smooth + grain, 0, 255).astype(np.uint8)
    encoded, jpeg = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, 85])
    assert encoded
    return jpeg.tobytes()


if __name__ == "__main__":
    main()

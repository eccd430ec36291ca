"""Where the time of preparing videos goes, by stage, and from it the hours for VoxCeleb2 on a machine of many cores.

python -m benchmarks.preparation runs/clips/package/examples/media/*.mp4

One worker process with one thread, seconds of CPU time; of several rounds the fastest counts. The estimate multiplies
what a look, a second of video, a clip and a kept frame cost here by their numbers in VoxCeleb2; its frames of 224 px are
smaller than those of most clips. Writing shards is done by one process, so that its time is not divided by the cores.
"""

import argparse
import contextlib
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from data_prep.build import prepare_video as preparation
from data_prep.build import sample_frames
from data_prep.build.prepare_video import Settings, prepare_video
from data_prep.build.sample_frames import seconds_between_looks
from data_prep.build.sources import SourceVideo
from data_prep.workers import Died, InvalidAnswer, run_in_processes
from th_jax.data.schema import VideoRecord
from th_jax.faces import track
from th_jax.media import Video, open_video

VIDEOS, CLIPS, SECONDS, FPS = 150_480, 1_128_246, 2_442 * 3600.0, 25.0
"""Of VoxCeleb2, as its authors state them."""

COPIES = 32
"""Records in the shard that is written for its time."""

OTHER = "choosing, tracking, the rest"

# A stage, what its costs go with, and the functions that belong to it.
STAGES: dict[str, tuple[str, list[tuple[Any, str]]]] = {
    "opening": ("clip", [(Video, "__init__")]),
    "decoding": ("second", [(Video, "frames_at"), (Video, "frames")]),
    "detection": ("look", [(sample_frames, "detect_faces"), (track, "detect_faces"), (track, "detect_in_region")]),
    "landmarks": (
        "look",
        [
            *((sample_frames, name) for name in ("settled_landmarks", "landmarks_in_box")),
            *((track, name) for name in ("settled_landmarks", "landmarks_in_box")),
        ],
    ),
    "judging": ("look", [(sample_frames, "_judged")]),
    "identity (not for crops)": ("video", [(sample_frames, "face_descriptor")]),
    "cropping, JPEG": ("frame", [(preparation, "crop_segment"), (preparation, "_jpeg")]),
    "hashing": ("second", [(preparation, "_digest")]),
    OTHER: ("look", []),
}
_NOT_FOR_CROPS = "identity (not for crops)"


class Measured(NamedTuple):
    """Of one video: CPU seconds by stage, and how much was done."""

    stages: dict[str, float]
    units: dict[str, float]
    size: tuple[int, int]
    video_frames: float
    shard_checks: float
    """CPU seconds to decode the kept frames once more, which is spread over the cores."""
    shard_serial: float
    """CPU seconds of everything else in writing the record to a shard."""


class Clock:
    """CPU time by stage; what a stage calls in another stage is the other's."""

    def __init__(self) -> None:
        """Nothing is measured yet."""
        self.seconds: Counter[str] = Counter()
        self.looks = 0
        self._stack = [OTHER]
        self._since = time.process_time()

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count what happens inside for a stage."""
        self._turn()
        self._stack.append(name)
        try:
            yield
        finally:
            self._turn()
            self._stack.pop()

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, its time counted for a stage; also that of the generator it may give."""

        def call(*arguments: Any, **options: Any) -> Any:
            self.looks += name == "judging"
            with self.stage(name):
                result = function(*arguments, **options)
            return self._each(name, result) if isinstance(result, Iterator) else result

        return call

    def _each(self, name: str, items: Iterator[Any]) -> Iterator[Any]:
        while True:
            with self.stage(name):
                item = next(items, None)
            if item is None:
                return
            yield item

    def _turn(self) -> None:
        now = time.process_time()
        self.seconds[self._stack[-1]] += now - self._since
        self._since = now


def measure(path: Path) -> Measured:
    """Prepare one video and write its record, in a worker."""
    video, settings = SourceVideo(path.name, path.stem, (path.name,)), Settings()
    with open_video(path) as opened:
        size, video_seconds = opened.size, opened.duration or (opened.frame_count or 0) / float(opened.fps)
        frames = video_seconds * float(opened.fps)
        gap = min(settings.gap, video_seconds / 24)  # short clips too get a record of some frames
    settings = settings._replace(gap=gap)
    prepare_video(path.parent, video, settings)  # models are loaded, the file is in the page cache
    clock = Clock()
    with contextlib.ExitStack() as patches:
        for stage, (_, functions) in STAGES.items():
            for owner, name in functions:
                patches.enter_context(mock.patch.object(owner, name, clock.timed(stage, getattr(owner, name))))
        with clock.stage(OTHER):
            record, _ = prepare_video(path.parent, video, settings)
    if record is None:
        raise ValueError(f"{path} gives no record: name a video of one face")
    units = {"look": clock.looks, "second": video_seconds, "clip": 1, "frame": len(record.frames), "video": 1}
    return Measured(dict(clock.seconds), units, size, frames, *_shard(record))


def _shard(record: VideoRecord) -> tuple[float, float]:
    from data_prep.build import shard_writer

    records = [record._replace(video_id=f"{record.video_id}/{copy}") for copy in range(COPIES)]
    start = time.process_time()
    for one in records:
        shard_writer._frame_size(one)
    checks = time.process_time() - start
    with tempfile.TemporaryDirectory() as folder:
        shard_writer.write_shard(f"{folder}/warm", records[:1], number=0)
        start = time.process_time()
        shard_writer.write_shard(f"{folder}/shard", records, number=0)
    return checks / COPIES, max(0.0, time.process_time() - start - checks) / COPIES


def hours(measured: list[Measured], cores: int) -> tuple[float, dict[str, float]]:
    """Hours for VoxCeleb2, and CPU seconds by stage for one of its videos."""
    video_seconds, clips = SECONDS / VIDEOS, CLIPS / VIDEOS
    settings = Settings()
    step = seconds_between_looks(video_seconds, fps=FPS, gap=settings.gap, frames=settings.frames)
    theirs = {
        "look": video_seconds / step,
        "second": video_seconds,
        "clip": clips,
        "frame": settings.frames,
        "video": 1.0,
    }
    stages: dict[str, float] = {}
    for stage, (unit, _) in STAGES.items():
        ours = sum(m.stages.get(stage, 0.0) for m in measured) / sum(m.units[unit] for m in measured)
        stages[stage] = 0.0 if stage == _NOT_FOR_CROPS else ours * theirs[unit]
    kept = sum(m.units["frame"] for m in measured)
    stages["shards: frames checked"] = sum(m.shard_checks for m in measured) / kept * settings.frames
    serial = sum(m.shard_serial for m in measured) / kept * settings.frames
    total = sum(stages.values()) / cores + serial
    return total * VIDEOS / 3600, {**stages, "shards: one process": serial}


def main() -> None:
    """Print what each clip cost, the stages, and the estimate."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.preparation", description=__doc__)
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cores", type=int, default=64)
    options = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    best: dict[int, Measured] = {}
    tasks = [clip.absolute() for clip in options.clips] * options.rounds
    from benchmarks import preparation  # workers import functions by name, which the one that runs as a script has not

    for number, told in run_in_processes(preparation.measure, tasks, workers=1):
        if isinstance(told, Died | InvalidAnswer):
            raise SystemExit(f"the worker failed: {told}")
        result = Measured(*told)
        clip = number % len(options.clips)
        if clip not in best or sum(result.stages.values()) < sum(best[clip].stages.values()):
            best[clip] = result
    measured = [best[clip] for clip in range(len(options.clips))]
    print(f"{'clip':28}{'video s':>8}{'CPU s':>8}{'frames/s':>15}{'looks/s':>9}{'kept':>6}{'videos/s a core':>17}")
    for path, m in zip(options.clips, measured, strict=True):
        cpu = sum(m.stages.values())
        print(
            f"{path.name[:26]:28}{m.units['second']:>8.1f}{cpu:>8.2f}{m.video_frames / cpu:>15.0f}"
            f"{m.units['look'] / cpu:>9.1f}{m.units['frame']:>6.0f}{1 / (cpu + m.shard_checks + m.shard_serial):>17.3f}"
        )
    everything = sum(sum(m.stages.values()) for m in measured)
    total, theirs = hours(measured, options.cores)
    print(f"\n{'stage':28}{'share':>8}{'CPU s a video of VoxCeleb2':>30}")
    for stage, seconds in theirs.items():
        share = sum(m.stages.get(stage, 0.0) for m in measured) / everything if stage in STAGES else None
        print(f"{stage:28}{'' if share is None else f'{share:.0%}':>8}{seconds:>30.3f}")
    print(f"\nVoxCeleb2, {VIDEOS} videos, on {options.cores} cores: {total:.1f} hours")


if __name__ == "__main__":
    main()

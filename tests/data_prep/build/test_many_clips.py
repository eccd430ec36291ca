"""Two thousand clips go from a folder to a data set that is read again, and no process needs more memory than for a hundred.

TH_JAX_MANY_CLIPS sets another number of clips.
"""

import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from data_prep.build.drop_report import read_drop_report
from data_prep.build.quality import Reason
from tests.data_prep.clips_of_people import talk, write_frames
from th_jax.data.records import read_videos

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[3]
MANY = int(os.environ.get("TH_JAX_MANY_CLIPS", "2000"))
FEW = 100
BAD = 25
"""Each so many-th file is no video."""


def write_clips(folder, count):
    """Clips of eight people, no two alike: other moments, mirrored, darker, shifted."""
    folder.mkdir(parents=True)
    for number in range(count):
        path = folder / f"person{number % 8}" / f"{number:05d}.mp4"
        if number % BAD == 0:
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"no video")
            continue
        chance = np.random.default_rng(number)
        start = chance.integers(0, 9)
        frames = talk(1 + number % 8).frames[start : start + 8].astype(np.float32)
        frames = frames[:, :, ::-1] if chance.random() < 0.5 else frames
        frames = np.roll(frames, chance.integers(-4, 5, 2), axis=(1, 2)) * chance.uniform(0.8, 1.0)
        write_frames(path, frames.astype(np.uint8))


def peak(pid):
    """The most memory that a process has had, in MB; 0 if it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return next((int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM")), 0)
    except (FileNotFoundError, ProcessLookupError):
        return 0


def build(source, out):
    """Run the program; the greatest memory of its process, and of its workers, in MB."""
    options = ["--size", "64", "--frames", "3", "--gap", "0.2", "--min-frames", "2", "--workers", "1"]
    command = [sys.executable, "-m", "th_jax.cli.main", "prepare", "build", "--source", str(source), "--out", str(out)]
    run = subprocess.Popen([*command, *options], cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    own = workers = 0
    while run.poll() is None:
        own = max(own, peak(run.pid))
        children = Path(f"/proc/{run.pid}/task/{run.pid}/children")
        workers = max([workers, *map(peak, children.read_text().split() if children.exists() else [])])
        time.sleep(0.25)
    assert run.returncode == 0, run.stderr.read()
    return own, workers


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads memory from /proc")
def test_memory_stays_flat_over_thousands_of_clips(tmp_path):
    write_clips(tmp_path / "few", FEW)
    write_clips(tmp_path / "many", MANY)
    few = build(tmp_path / "few", tmp_path / "out_few")
    many = build(tmp_path / "many", tmp_path / "out_many")
    print(f"peak memory in MB, of the program and of its worker: {FEW} clips {few}, {MANY} clips {many}")
    assert many[0] < few[0] * 1.1
    assert many[1] < few[1] * 1.1
    drops = Counter((drop.level, drop.reason) for drop in read_drop_report(tmp_path / "out_many" / "drops.jsonl"))
    assert drops["video", Reason.UNDECODABLE] == -(-MANY // BAD)
    dropped = sum(count for (level, _), count in drops.items() if level == "video")
    kept = [record.video_id for _, record in read_videos(tmp_path / "out_many", "train")]
    assert kept == sorted(kept)
    assert len(kept) == MANY - dropped
    assert len(kept) > 0.8 * MANY

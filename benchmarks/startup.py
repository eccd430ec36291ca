"""Seconds of whole commands with an empty and a filled compile cache: `python -m benchmarks.startup [--runs 3]`.

`th-jax finetune` of one portrait with one step, and `th-jax animate` of a still from a landmark file and from a video: what
a user waits for before the first step or frame, process start, imports, shots, writing and exit included. Hits are
programs of 0.2 s and more that JAX's compile cache had.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from th_jax.cli.compile_cache import VARIABLE
from th_jax.data import VideoRecords

ROOT = Path(__file__).resolve().parent.parent
PORTRAIT = ROOT / "th_jax/assets/portrait/astronaut.jpg"


class Run(NamedTuple):
    """One run of a command."""

    seconds: float
    hits: int


def run(arguments: list[str], *, cache: Path, count: bool = False) -> Run:
    """Run `th-jax` in a process of its own; counting hits takes time of its own."""
    environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    environment |= {VARIABLE: str(cache), "JAX_LOG_COMPILES": str(int(count)), "TF_CPP_MIN_LOG_LEVEL": "3"}
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "th_jax.cli.main", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - begun
    if done.returncode:
        raise SystemExit(f"th-jax {' '.join(arguments)} ended with {done.returncode}: {done.stderr[-500:]}")
    return Run(seconds, done.stderr.count("compilation cache hit"))


def commands(folder: Path) -> dict[str, list[str]]:
    """The measured commands by name; the second and third drive the avatar of the first."""
    landmarks = folder / "driver.npz"
    video = VideoRecords("bundled", "heldout").read(0)
    np.savez(landmarks, landmarks=np.asarray(video.landmarks, np.float32))
    consent, avatars = folder / "a.consent.json", folder / "avatars"
    made = ["consent", "make", "--subject", "astronaut", "--basis", "public_domain"]
    run([*made, "--shots", str(PORTRAIT), "--out", str(consent)], cache=folder / "unused")
    finetune = ["finetune", "--meta", "heads64", "--shots", str(PORTRAIT), "--consent", str(consent)]
    animate = ["animate", "--avatar", str(avatars / f"{PORTRAIT.stem}.safetensors"), "--out", str(folder / "still.png")]
    return {
        "finetune, one step": [*finetune, "--set", "epochs=1", "--out", str(avatars)],
        "animate, a still, landmarks": [*animate, "--driver", str(landmarks)],
        "animate, a still, video": [*animate, "--driver", str(ROOT / "docs/demo.mp4")],
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.startup")
    parser.add_argument("--runs", type=int, default=3, help="warm runs of each command; their median is printed")
    options = parser.parse_args()
    print(f"{'command':<30}{'cold s':>8}{'warm s':>8}{'hits':>6}", flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for what, arguments in commands(folder).items():
            cache = folder / f"cache-{what.split(',')[0]}"
            runs = []
            for number in range(2 + options.runs):
                for avatar in folder.glob("avatars/*" if what.startswith("finetune") else "still*"):
                    avatar.unlink()
                runs.append(run(arguments, cache=cache, count=number == 1 + options.runs))
            cold, warm = runs[0], sorted(runs[1:-1])[options.runs // 2]
            print(f"{what:<30}{cold.seconds:>8.1f}{warm.seconds:>8.1f}{runs[-1].hits:>6}", flush=True)


if __name__ == "__main__":
    main()

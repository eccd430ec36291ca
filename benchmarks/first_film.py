"""Seconds from `pip install` to the first marked film: `python -m benchmarks.first_film [--runs 5] [--python python3.12]`.

Each run makes a bare environment, installs the built wheel with the extra `video` and without pip's cache, makes a
feed-forward avatar of a bundled person, drives it by a bundled video, and verifies the film; no compile cache is there before.
`--python` is the interpreter of the bare environment, for which pip chooses the packages: by default the one that runs this.
Needs the package index, and two cores without other work.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from th_jax.avatars.examples import write_driver, write_shots

ROOT = Path(__file__).resolve().parent.parent


def measure(wheel: Path, place: Path, *, python: str = sys.executable) -> tuple[float, float, str]:
    """Return the seconds of the installation, those until the film was there, and what `th-jax verify` says of it.

    Args:
        wheel: the built wheel.
        place: empty folder.
        python: the interpreter of the bare environment.
    """
    place.mkdir()
    shots = write_shots("head", place / "shots")
    write_driver(place / "driver.mp4")
    subprocess.run([python, "-m", "venv", str(place / "env")], check=True)
    environment = os.environ | {"HOME": str(place), "XDG_CACHE_HOME": str(place / "cache")}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)

    def run(program: str, *arguments: str) -> str:
        command = [str(place / "env" / "bin" / program), *arguments]
        return subprocess.run(command, cwd=place, env=environment, check=True, capture_output=True, text=True).stdout

    begun = time.perf_counter()
    run("pip", "install", "--quiet", "--no-cache-dir", f"th_jax[video] @ file://{wheel}")
    installed = time.perf_counter()
    consent = ["consent", "make", "--subject", "head", "--basis", "synthetic", "--shots", str(shots)]
    run("th-jax", *consent, "--out", "head.consent.json")
    made = ["finetune", "--meta", "heads", "--shots", str(shots), "--name", "head", "--consent", "head.consent.json"]
    run("th-jax", *made, "--out", "avatars", "--feed-forward")
    run("th-jax", "animate", "--avatar", "avatars/head.safetensors", "--driver", "driver.mp4", "--out", "film.mp4")
    there = time.perf_counter()
    return installed - begun, there - installed, run("th-jax", "verify", "film.mp4").splitlines()[0]


def main() -> None:
    """Print a line of each run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument(
        "--python", default=sys.executable, help="interpreter of the bare environments; default: this one"
    )
    options = parser.parse_args()
    if shutil.which(options.python) is None:
        parser.error(f"--python: there is no program {options.python!r}")
    version = subprocess.run([options.python, "--version"], check=True, capture_output=True, text=True).stdout.strip()
    print(version, end="\n\n")
    print("| run | installation, s | first film, s | both | `th-jax verify` |\n|---|---:|---:|---:|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, str(ROOT)]
        subprocess.run(pip, check=True, stderr=subprocess.DEVNULL)
        (wheel,) = place.glob("*.whl")
        for run in range(options.runs):
            install, film, verdict = measure(wheel, place / str(run), python=options.python)
            print(f"| {run + 1} | {install:.1f} | {film:.1f} | {install + film:.1f} | {verdict} |", flush=True)


if __name__ == "__main__":
    main()

"""Frames a second of an avatar's generator: th_jax, and its ONNX models of floats and of 8-bit integers.

python -m benchmarks.exported [--meta heads64 heads] [--rounds 7]

Batch 1 of landmark images, all cores, in turn: the float model and the integer one, then th_jax and the float model. SSIM is
the integer model's to the float model, for a person whom its ranges were not measured on. Needs the extra "onnx".
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import jax
import numpy as np
import onnxruntime

import th_jax
from benchmarks.alternating import Program, compare
from th_jax.avatars.examples import write_shots
from th_jax.data.records import VideoRecords, bundled_heads
from th_jax.driving.export import avatar_program
from th_jax.driving.int8 import frames_of
from th_jax.evaluation.metrics.similarity import ssim

PERSON = 11
"""Index of the held-out person whose landmarks are drawn."""


def session_program(path: Path, image: np.ndarray) -> Program:
    """Return a program that runs a model once."""
    session = onnxruntime.InferenceSession(path)

    def run() -> None:
        session.run(["frames"], {"landmarks": image})

    return run


def own_program(loaded: Any, image: np.ndarray) -> Program:
    """Return a program that generates a frame with th_jax."""
    generate = jax.jit(avatar_program(loaded, takes="images"))

    def run() -> None:
        jax.block_until_ready(generate(image))

    return run


def exported(avatar: Path, out: Path, *more: str) -> Path:
    """Export as a user does."""
    command = [sys.executable, "-m", "th_jax.cli.main", "export", "--avatar", str(avatar), "--out", str(out), *more]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return out


def measure(name: str, rounds: int, folder: Path) -> None:
    """Print a line of the table."""
    meta = th_jax.load_meta(name)
    loaded = th_jax.finetune(meta, write_shots("head", folder), train=False)
    loaded.save(folder / "avatar.safetensors")
    landmarks = VideoRecords(bundled_heads(), "heldout").read(PERSON).landmarks
    images = np.asarray(meta.networks.landmark_image(jax.numpy.asarray(landmarks)))
    plain = exported(folder / "avatar.safetensors", folder / "float.onnx")
    small = exported(folder / "avatar.safetensors", folder / "int8.onnx", "--int8")
    programs = [session_program(path, images[:1]) for path in (plain, small)]
    integers = compare(programs[1], programs[0], rounds=rounds)
    own = compare(own_program(loaded, images[:1]), programs[0], rounds=rounds)
    rates = [1 / median(times) for times in (own.ours, integers.theirs, integers.ours)]
    likeness = np.mean(ssim(frames_of(plain, images), frames_of(small, images), data_range=2.0))
    sizes = " / ".join(f"{path.stat().st_size / 2**20:.1f}" for path in (plain, small))
    shown = " | ".join(f"{rate:.0f}" for rate in rates)
    gains = f"{1 / integers.ratio:.2f} | {own.ratio / integers.ratio:.2f}"
    print(f"| {name}, {meta.networks.image_size} px | {shown} | {gains} | {likeness:.4f} | {sizes} |", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--meta", nargs="+", default=["heads64", "heads"])
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    print(f"frames/s on {os.cpu_count()} cores, onnxruntime {onnxruntime.__version__}\n")
    print("| weights | th_jax | ONNX | ONNX, int8 | int8 / ONNX | int8 / th_jax | SSIM | MiB |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for name in options.meta:
        with tempfile.TemporaryDirectory() as folder:
            measure(name, options.rounds, Path(folder))


if __name__ == "__main__":
    main()

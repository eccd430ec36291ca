"""`th-jax doctor`: reports what is installed, what is missing, and the command that installs it."""

import argparse
import functools
import importlib.metadata
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from th_jax.cli.compile_cache import VARIABLE, cache_folder
from th_jax.cli.kernels import OUTDATED, kernels_file, outdated
from th_jax.cli.options import DONE, FAILED, new_parser
from th_jax.optional import EXTRA_HINT, install_command
from th_jax.version import __version__

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "flatbuffers", "opencv-python-headless")
_EXTRAS = {
    "video": ("photos and videos", ("dlib-bin", "av", "pillow", "c2pa-python", "cryptography")),
    "prep": ("preparing data sets", ("tensorflow-cpu",)),
    "studio": ("th-jax studio", ("gradio",)),
    "report": ("plots", ("matplotlib",)),
    "study": ("user studies", ("flask",)),
}
_LEAST_FREE = 2 * 2**30
"""Recommended free disk space for avatars and previews, in bytes."""


class Finding(NamedTuple):
    """One line of the report."""

    ok: bool | None
    """None for a missing optional part."""
    text: str


def parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    made = new_parser("doctor", "Checks packages, devices, codecs, weights, folders, and a small computation.")
    made.add_argument("--folder", type=Path, default=Path(), help="output folder to check; default: the current one")
    return made


def run(options: argparse.Namespace) -> int:
    """Print all findings; return 1 if a required part is missing or wrong."""
    wrong = 0
    disk = functools.partial(_disk, options.folder)
    for check in (_packages, _devices, _codecs, _decoding, _weights, disk, _compiled, _computation):
        for finding in check():
            sign = {True: "ok      ", False: "WRONG   ", None: "optional"}[finding.ok]
            print(f"{sign}  {finding.text}", flush=True)
            wrong += finding.ok is False
    print("everything needed works" if not wrong else f"{wrong} things are wrong")
    return FAILED if wrong else DONE


def _packages() -> Iterator[Finding]:
    yield Finding(True, f"th_jax {__version__}, Python {sys.version.split()[0]}")
    for name in _PACKAGES:
        version = _version(name)
        yield Finding(version is not None, f"{name} {version or 'is not installed: pip install th_jax'}")
    for extra, (what, names) in _EXTRAS.items():
        absent = [name for name in names if _version(name) is None]
        text = f"extra {extra}, for {what}" + (
            f" lacks {', '.join(absent)}: {install_command(extra)}" if absent else ""
        )
        yield Finding(None if absent else True, text)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _devices() -> Iterator[Finding]:
    import jax

    try:
        devices = jax.devices()
    except RuntimeError as error:
        yield Finding(False, f"JAX finds no device: {error}")
        return
    yield Finding(True, f"JAX computes on {len(devices)} x {devices[0].device_kind} ({devices[0].platform})")
    stats = devices[0].memory_stats() or {}
    if "bytes_limit" in stats:
        yield Finding(True, f"{stats['bytes_limit'] / 2**30:.1f} GiB of memory on a device")
    if hasattr(os, "sysconf"):
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        yield Finding(memory > 3 * 2**30, f"{memory / 2**30:.1f} GiB of memory, {os.cpu_count()} CPU cores")


def _codecs() -> Iterator[Finding]:
    from th_jax.optional import pyav

    try:
        available = pyav().codecs_available
    except ImportError:
        yield Finding(None, f"videos cannot be read or written: {EXTRA_HINT}")
        return
    for name in ("h264", "hevc", "libx264", "aac"):
        yield Finding(name in available, f"codec {name}")


def _decoding() -> Iterator[Finding]:
    from th_jax.media.isolation import run_limited
    from th_jax.media.restrict import NETWORK, PROGRAMS, in_force

    taken = set(run_limited(in_force))
    for name in (NETWORK, PROGRAMS):
        yield Finding(name in taken or None, f"files are decoded in a process with {name}")


def _weights() -> Iterator[Finding]:
    from th_jax.perceptual.frozen import NETWORKS, WeightsError, weights_file
    from th_jax.weights import bundled_names

    for name in bundled_names():
        yield Finding(True, f"meta weights {name} (bundled)")
    for network in NETWORKS:
        try:
            yield Finding(True, f"perceptual network {network} at {weights_file(network)}")
        except WeightsError:
            yield Finding(
                None, f"perceptual network {network} is not here: th-jax prepare convert-weights {network} FILE"
            )


def _disk(folder: Path) -> Iterator[Finding]:
    if not folder.is_dir():
        yield Finding(False, f"{folder} is not a folder")
        return
    free = shutil.disk_usage(folder).free
    yield Finding(os.access(folder, os.W_OK), f"{folder.absolute()} can be written")
    yield Finding(free >= _LEAST_FREE, f"{free / 2**30:.1f} GiB free there")


def _compiled() -> Iterator[Finding]:
    chosen = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    folder = Path(chosen) if chosen else cache_folder()
    if folder is None:
        yield Finding(None, f"compile cache is off ({VARIABLE}): every run compiles again")
        return
    size = sum(path.stat().st_size for path in folder.glob("*") if path.is_file()) if folder.is_dir() else 0
    yield Finding(True, f"compile cache at {folder}, {size / 2**20:.0f} MiB")
    kernels = kernels_file()
    if kernels is None:
        return
    if kernels.is_file():
        yield Finding(True, f"compiled kernels for bfloat16 products at {kernels}")
    elif outdated(kernels):
        yield Finding(False, f"the kernels in {kernels.parent} {OUTDATED}")


def _computation() -> Iterator[Finding]:
    """Check that small networks with random weights generate the same finite frame twice."""
    import jax
    import jax.numpy as jnp

    from th_jax.models.networks import Networks, group
    from th_jax.types import NetworkState

    began = time.perf_counter()
    networks = Networks(image_size=32, base_width=8)
    weights = networks.init(jax.random.key(0))
    image = jnp.zeros((1, 32, 32, 3))

    @jax.jit
    def frame(synthesis: NetworkState) -> jax.Array:
        embedding = networks.embed(group(synthesis, "embedder"), image, image)
        return networks.generate(
            group(synthesis, "generator"), image, networks.project(group(synthesis, "projection"), embedding)
        )

    one, other = np.asarray(frame(weights.synthesis)), np.asarray(frame(weights.synthesis))
    good = bool(np.isfinite(one).all() and np.array_equal(one, other) and one.shape == (1, 32, 32, 3))
    yield Finding(
        good, f"a generated frame is finite and repeatable ({time.perf_counter() - began:.1f} s with compiling)"
    )

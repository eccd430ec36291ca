"""Files with and without marks, and an in-process stand-in for the sandbox, for tests of verification."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tests.media.signed_files import image
from th_jax.provenance import Kind, Provenance, write_gif, write_image, write_video

GENERATED = Provenance(kind=Kind.GENERATED)
NAMES = ("a.png", "a.jpg", "a.gif", "a.mp4")


class Mark(NamedTuple):
    """A mark, as the watermark detector reports it."""

    message: int = 0x00AF
    bits: int = 16
    left: float = 0.0
    top: float = 0.0
    side: float = 64.0
    log10_chance: float = -12.3
    doubt: float = 0.0


class Findings(NamedTuple):
    """Findings, as the watermark detector returns them."""

    marks: tuple[Mark, ...] = ()


def write(path: Path, *, provenance: Provenance = GENERATED, **options) -> Path:
    if path.suffix == ".mp4":
        return write_video(path, [image(seed=i) for i in range(3)], fps=25, provenance=provenance, **options)
    if path.suffix == ".gif":
        return write_gif(path, [image(seed=i) for i in range(3)], fps=25, provenance=provenance, **options)
    return write_image(path, image(), provenance=provenance, **options)


def here(function: Callable[..., Any], *arguments: Any, within: Any, **options: Any) -> Any:
    """Runs in this process what `run_limited` runs in another, so that tests can patch it."""
    return function(*arguments, **options)


def flipped(path: Path, *, at: int = -20) -> Path:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    return path


def marks_in(count: int = 1) -> tuple[Callable[[np.ndarray], Findings], Callable[[Iterator[np.ndarray]], Findings]]:
    """Detectors that find the given marks in everything."""
    found = Findings((Mark(),) * count)

    def video(frames: Iterator[np.ndarray]) -> Findings:
        assert all(frame.dtype == np.uint8 and frame.ndim == 3 for frame in frames)
        return found

    return lambda frame: found, video

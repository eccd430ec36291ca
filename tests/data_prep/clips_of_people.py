"""Small source folders of rendered people, for the tests of preparation."""

from functools import cache
from pathlib import Path

import numpy as np

from data_prep.heads.people import PersonFrames, render_clip
from th_jax.provenance import Kind, Provenance, write_image, write_video

FPS = 10.0
SIZE = 160
RENDER = Provenance(kind=Kind.SYNTHETIC_RENDER)


@cache
def talk(seed: int, *, take: int = 1, seconds: float = 1.6) -> PersonFrames:
    """A short talk; its face is 55 to 85 px large."""
    return render_clip(seed, seconds=seconds, fps=FPS, size=SIZE, take=take)


def write_talk(path: Path, seed: int, *, take: int = 1) -> Path:
    """The talk as a video."""
    return write_frames(path, talk(seed, take=take).frames)


def write_frames(path: Path, frames: np.ndarray) -> Path:
    """Frames as a video of `FPS` frames a second."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_video(path, frames, fps=FPS, provenance=RENDER, crf=10)


def write_photos(folder: Path, seed: int, *, count: int = 3) -> Path:
    """Frames of the talk as images, far apart."""
    folder.mkdir(parents=True)
    frames = talk(seed).frames
    for number, index in enumerate(np.linspace(0, len(frames) - 1, count).astype(int)):
        write_image(folder / f"{number}.png", frames[index], provenance=RENDER)
    return folder

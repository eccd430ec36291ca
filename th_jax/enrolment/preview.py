"""Pictures of an avatar in the making: the shots, what the generator is shown, and what it makes of them."""

from pathlib import Path

import numpy as np

from th_jax.media import Kind, Provenance, write_image
from th_jax.models.networks import Networks
from th_jax.rendering.figures import landmark_pictures, picture_grid
from th_jax.rendering.render import render
from th_jax.types import Avatar, Shots

PREVIEWS = "previews"
_ROWS = 4


def write_preview(folder: Path, name: str, step: int, networks: Networks, avatar: Avatar, shots: Shots) -> Path:
    """Write FOLDER/previews/NAME/STEP.png: a row for each of up to four shots, with its landmarks and the avatar.

    Raises:
        OSError: if the disk refuses.
    """
    real = np.flatnonzero(np.asarray(shots.mask) > 0)
    shown = real[np.linspace(0, len(real) - 1, min(_ROWS, len(real))).round().astype(int)]
    points, frames = np.asarray(shots.landmarks)[shown], np.asarray(shots.frames)[shown]
    made = render(networks, avatar, points, chunk=_ROWS)
    drawn = landmark_pictures(points, size=networks.image_size)
    path = folder / PREVIEWS / name / f"{step:06d}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    record = Provenance(kind=Kind.TRAINING_GRID, notes=f"{name} after {step} steps of fine-tuning")
    write_image(path, picture_grid(list(zip(frames, drawn, made, strict=True))), provenance=record)
    return path

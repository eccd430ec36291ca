"""Preview images during fine-tuning: the shots, the landmark images, and the avatar's frames."""

import dataclasses
from pathlib import Path

import numpy as np

from th_jax.consent import ConsentFacts, with_consent
from th_jax.figures import image_grid, landmark_images
from th_jax.provenance import Ingredient, Kind, Signer, write_image
from th_jax.provenance.watermark.messages import mark_frames, marking_of
from th_jax.render import FEW, render
from th_jax.types import Avatar, Shots
from th_jax.weights import MetaModel

PREVIEWS = "previews"
_ROWS = 4


def write_preview(
    folder: Path,
    name: str,
    step: int,
    meta: MetaModel,
    avatar: Avatar,
    shots: Shots,
    *,
    consent: ConsentFacts | None,
    ingredients: tuple[Ingredient, ...] = (),
    signer: Signer | None = None,
) -> Path:
    """Write FOLDER/previews/NAME/STEP.png: one row for each of up to four shots, with its landmarks and the avatar.

    A preview shows a real person's generated face. Its provenance therefore records the same facts as the avatar will:
    weights, images and their manifests, consent. The avatar has no digest yet, so the watermark carries the first bits
    of the meta weights' digest. `ingredients` are the C2PA manifests of the shots.

    Raises:
        OSError: if the file cannot be written.
    """
    real = np.flatnonzero(np.asarray(shots.mask) > 0)
    shown = real[np.linspace(0, len(real) - 1, min(_ROWS, len(real))).round().astype(int)]
    points, frames = np.asarray(shots.landmarks)[shown], np.asarray(shots.frames)[shown]
    marking = marking_of(meta.digest, size=meta.networks.image_size, kind="still")
    # Marked in a separate program: unmarked frames share their compiled program with early stopping.
    made = list(render(meta.networks, avatar, points, chunk=FEW))
    made = made if marking is None else list(mark_frames(made, marking.mark))
    drawn = landmark_images(points, size=meta.networks.image_size)
    path = folder / PREVIEWS / name / f"{step:06d}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    notes = f"{name} after {step} fine-tuning steps, next to the source images"
    watermark = None if marking is None else marking.message
    record = dataclasses.replace(meta.provenance.of(shots), kind=Kind.COMPOSITE, notes=notes, watermark=watermark)
    record = with_consent(dataclasses.replace(record, ingredients=ingredients), consent)
    write_image(path, image_grid(list(zip(frames, drawn, made, strict=True))), provenance=record, signer=signer)
    return path

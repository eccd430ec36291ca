"""Pictures of an avatar in the making: the shots, what the generator is shown, and what it makes of them."""

import dataclasses
from pathlib import Path

import numpy as np

from th_jax.consent import ConsentFacts, with_consent
from th_jax.media import Ingredient, Kind, Signer, write_image
from th_jax.pretrained import MetaModel
from th_jax.rendering.figures import landmark_pictures, picture_grid
from th_jax.rendering.render import FEW, render
from th_jax.types import Avatar, Shots
from th_jax.watermark.messages import mark_frames, marking_of

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
    """Write FOLDER/previews/NAME/STEP.png: a row for each of up to four shots, with its landmarks and the avatar.

    It shows a real person's generated face, so its provenance says what the avatar's own will: weights, pictures and their
    manifests, consent. The avatar has no digest yet: the watermark says the first bits of the meta weights'.

    Args:
        folder: of the run.
        name: the person's.
        step: of fine-tuning.
        meta: that the avatar is made from.
        avatar: as it is after so many steps.
        shots: the person's.
        consent: what their record says; None where there is none.
        ingredients: the manifests of the shots.
        signer: signs the manifest; `load_signer` chooses by default.

    Raises:
        OSError: if the disk refuses.
    """
    real = np.flatnonzero(np.asarray(shots.mask) > 0)
    shown = real[np.linspace(0, len(real) - 1, min(_ROWS, len(real))).round().astype(int)]
    points, frames = np.asarray(shots.landmarks)[shown], np.asarray(shots.frames)[shown]
    marking = marking_of(meta.digest, size=meta.networks.image_size, kind="still")
    # Marked in a program of its own: the frames without a mark share theirs with those that early stopping looks at.
    made = list(render(meta.networks, avatar, points, chunk=FEW))
    made = made if marking is None else list(mark_frames(made, marking.mark))
    drawn = landmark_pictures(points, size=meta.networks.image_size)
    path = folder / PREVIEWS / name / f"{step:06d}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    notes = f"{name} after {step} steps of fine-tuning, beside pictures of them"
    watermark = None if marking is None else marking.message
    record = dataclasses.replace(meta.provenance.of(shots), kind=Kind.COMPOSITE, notes=notes, watermark=watermark)
    record = with_consent(dataclasses.replace(record, ingredients=ingredients), consent)
    write_image(path, picture_grid(list(zip(frames, drawn, made, strict=True))), provenance=record, signer=signer)
    return path

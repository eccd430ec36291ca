"""A small enrollment for tests: networks of 16 px, noise images, one compiled program for all."""

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from th_jax.avatars import enroll as enrolling
from th_jax.avatars import person_files
from th_jax.avatars.enroll import Finetuning, enroll
from th_jax.avatars.output import Outcome, Report, Saving
from th_jax.avatars.requests import PersonRequest
from th_jax.consent.checks import image_files
from th_jax.data.shots import ImageOutcomes, LeftOut
from th_jax.losses import LossWeights
from th_jax.media import MediaError, MediaFault
from th_jax.models.networks import Networks
from th_jax.training import finetune_people as many
from th_jax.training.optimizers import AdamSettings, Optimizers
from th_jax.types import Shots
from th_jax.weights import MetaModel

HOW = Finetuning(
    epochs=3,
    loss_weights=LossWeights({}, pixel=1.0),
    optimizers=Optimizers(AdamSettings(1e-3), AdamSettings(1e-3)),
    chunk_steps=2,
)


@functools.cache
def meta() -> MetaModel:
    networks = Networks(image_size=16, base_width=4)
    return MetaModel(
        networks=networks,
        weights=networks.init(jax.random.key(0)),
        perceptual={},
        description={"name": "tiny"},
        digest="0" * 64,
    )


def noise(path: Path, *, size: int, shots: int | None, **options: Any) -> tuple[Shots, ImageOutcomes]:
    """Replaces `shots_and_images`: noise that depends on the person; some people have unusable images."""
    if path.name == "faceless":
        raise ValueError(f"no face was found in {path}")
    if path.name == "broken":
        raise MediaError(MediaFault.UNDECODABLE, "this is no image")
    for photo in image_files(path) if path.is_dir() else ():
        options["look"](photo, copies=False)
    rng = np.random.default_rng(list(path.name.encode()))
    points = rng.uniform(0.2, 0.8, (8, 70 if options["pupils"] else 68, 2)).astype(np.float32)
    frames = rng.integers(0, 256, (8, size, size, 3), dtype=np.uint8)
    if path.name == "unlucky":
        points[:] = np.inf
    mask = (np.arange(8) < (shots or 3)).astype(np.float32)
    return Shots(frames, points, mask), ImageOutcomes(5, 1, (LeftOut("c.jpg", "is damaged"),))


@pytest.fixture(scope="module", autouse=True)
def images(quickly_compiled: None) -> Iterator[None]:
    """Noise images, no dlib, and the programs of `HOW` cached between enrollments, with little optimization."""
    compiled: dict[str, Any] = {}
    original = many._programs

    def kept(begin: Any, chunk: Any, mesh: Any, width: int, *, key: str, like: Any) -> Any:
        if key not in compiled:  # networks, losses and settings
            compiled[key] = original(begin, chunk, mesh, width, key=key, like=like)
        return compiled[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(person_files, "shots_and_outcomes", noise)
        patch.setattr(person_files, "run_limited", lambda *photo, **options: ("no face", "", None, None))
        patch.setattr(enrolling, "check_face_models", lambda: None)
        patch.setattr(many, "_programs", kept)
        yield


def people(*names: str) -> list[PersonRequest]:
    return [PersonRequest(name, Path(name)) for name in names]


def make(
    folder: Path, *names: str, finetuning: Finetuning | None = HOW, weights: MetaModel | None = None, **settings: Any
) -> dict[str, Outcome]:
    """Enroll people by name."""
    done = enroll(
        weights or meta(), people(*names), Saving(folder, **settings), finetuning=finetuning, report=Report(folder)
    )
    return {outcome.name: outcome for outcome in done}

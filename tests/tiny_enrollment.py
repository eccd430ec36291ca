"""A small enrollment for tests: networks of 16 px, noise images, one compiled program for all."""

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from th_jax.avatars import enroll as enrolling
from th_jax.avatars.enroll import Finetuning, enroll
from th_jax.avatars.output import Outcome, Report, Saving
from th_jax.avatars.requests import PersonRequest
from th_jax.data.shots import LeftOut, Pictures
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


def noise(path: Path, *, size: int, shots: int | None, landmarks: Path | None) -> tuple[Shots, Pictures]:
    """Replaces `read_shots`: noise that depends on the person; some people have unusable images."""
    if path.name == "faceless":
        raise ValueError(f"no face was found in {path}")
    if path.name == "broken":
        raise MediaError(MediaFault.UNDECODABLE, "this is no picture")
    rng = np.random.default_rng(list(path.name.encode()))
    points = rng.uniform(0.2, 0.8, (8, 68, 2)).astype(np.float32)
    frames = rng.integers(0, 256, (8, size, size, 3), dtype=np.uint8)
    if path.name == "unlucky":
        points[:] = np.inf
    mask = (np.arange(8) < (shots or 3)).astype(np.float32)
    return Shots(frames, points, mask), Pictures(5, 1, (LeftOut("c.jpg", "is damaged"),))


@pytest.fixture(scope="module", autouse=True)
def pictures(quickly_compiled: None) -> Iterator[None]:
    """Noise images, no dlib, and the programs of `HOW` cached between enrollments, with little optimization."""
    compiled: dict[Any, Any] = {}
    original = many._programs

    def kept(networks: Networks, chunk: Any, optimizers: Optimizers, mesh: Any, width: int, **key: str) -> Any:
        assert (networks, optimizers, width) == (meta().networks, HOW.optimizers, HOW.vmap_width)
        if not compiled:
            compiled["HOW"] = original(networks, chunk, optimizers, mesh, width, **key)
        return compiled["HOW"]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(enrolling, "read_shots", noise)
        patch.setattr(enrolling, "check_face_models", lambda: None)
        patch.setattr(many, "_programs", kept)
        yield


def people(*names: str) -> list[PersonRequest]:
    return [PersonRequest(name, Path(name)) for name in names]


def make(folder: Path, *names: str, finetuning: Finetuning | None = HOW, **settings: Any) -> dict[str, Outcome]:
    """Enroll people by name."""
    done = enroll(meta(), people(*names), Saving(folder, **settings), finetuning=finetuning, report=Report(folder))
    return {outcome.name: outcome for outcome in done}

"""Fine-tuning of one person's avatar in a single call, for programs that import the library (paper, section 3.3)."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from th_jax.avatars.file import LoadedAvatar, described_avatar, networks_for
from th_jax.avatars.person_files import read_shots
from th_jax.consent import FACTS, ConsentFacts, with_consent
from th_jax.consent.checks import valid_consent
from th_jax.provenance import Ingredient
from th_jax.training.finetune import feed_forward
from th_jax.training.finetune_people import fit_shots, make_finetune
from th_jax.training.presets import finetune_preset, finetune_settings, preset_of
from th_jax.types import Shots
from th_jax.weights import MetaModel


def finetune(
    meta: MetaModel,
    shots: Shots | str | Path,
    *,
    consent: str | Path | None = None,
    face: int | None = None,
    train: bool = True,
    key: PRNGKeyArray | None = None,
    **settings: Any,
) -> LoadedAvatar:
    """Fine-tune an avatar of one person, using the preset for these meta weights.

    Compiles once for each padded number of shots. For many people, use `th_jax.finetune_many`, which compiles once for
    all. Matrix products have the preset's precision, as in `th-jax finetune`, whatever the caller's is.

    Args:
        meta: meta weights to fine-tune from, as returned by `load_meta`.
        shots: 1 to 32 images of the person: the result of `load_shots`, or the path of a photo, a folder of photos or a
            video.
        consent: path of the person's consent record; requires `shots` to be a path, so that the files can be compared.
            Without a record, the avatar and its outputs state that no consent was recorded.
        face: number of the face if `shots` is the path of a photo or video of several people (`inspect_shots`).
        train: if False, skip training and use the embedder's AdaIN parameters from one forward pass.
        key: random key for the order of the shots.
        settings: overrides of the preset: arguments of `make_finetune`, such as `epochs`, and `matmul_precision`.

    Returns:
        The avatar, with `save`, `render` and `provenance`.

    Raises:
        ValueError: if the shots or settings are invalid.
        ConsentError: if the consent record is invalid or does not cover these images.
        AvatarError: if the resulting parameters are not finite.
    """
    facts = None
    ingredients: tuple[Ingredient, ...] = ()
    if not isinstance(shots, Shots):
        record = None if consent is None else valid_consent(consent)
        facts = None if record is None else ConsentFacts.of(record)
        shots, _, _, ingredients = read_shots(
            Path(shots), size=meta.networks.image_size, face=face, consent=record, pupils=meta.pupils
        )
    elif consent is not None or face is not None:
        what = "a consent record covers files" if consent is not None else "a face is chosen in a file"
        raise ValueError(f"{what}: pass the path of the images as `shots`")
    shots = fit_shots(meta.networks, shots)
    preset = finetune_preset(preset_of(meta.description))
    with jax.default_matmul_precision(settings.pop("matmul_precision", preset["matmul_precision"])):
        if train:
            run = make_finetune(meta.networks, **(finetune_settings(meta) | settings))
            avatar, metrics = run(meta.weights, meta.perceptual, shots, key=key)
            steps = len(metrics["loss/generator"])
        else:
            avatar, steps = jax.jit(feed_forward, static_argnums=0)(meta.networks, meta.weights, shots), 0
    real = np.asarray(shots.mask) > 0
    return described_avatar(
        avatar,
        networks=networks_for(meta.networks, shots),
        provenance=with_consent(dataclasses.replace(meta.provenance.of(shots), ingredients=ingredients), facts),
        meta=meta,
        landmarks=np.asarray(shots.landmarks)[real],
        notes={"shots": int(real.sum()), "steps": steps, FACTS: None if facts is None else facts.to_dict()},
    )

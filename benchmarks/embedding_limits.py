"""How much better could feed-forward avatars be if E, or E and P, found better parameters that G has for a person?

    python -m benchmarks.embedding_limits --meta heads --data runs/heads_photo --people 8

For each held-out person, first ê and then ψ alone is optimized on 8 shots by the content and pixel losses, with all networks
frozen. Printed is the identity cosine of four other frames, by dlib's network and centered at the mean person, as E and P give
it, and after optimizing each for some steps. What ê gains, a better E could give; what ψ gains beyond it suggests that P, or
the width of ê, limits too. Neither is the best that there is.
"""

import argparse
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from th_jax.data import VideoRecords
from th_jax.evaluation.metrics import centred_cosine
from th_jax.evaluation.people import HeldOut, load_heldout
from th_jax.faces import face_descriptor
from th_jax.images import to_uint8
from th_jax.losses import loss_preset, pixel_loss
from th_jax.models.networks import Networks, group
from th_jax.perceptual.frozen import PerceptualWeights
from th_jax.training.finetune import embed_shots
from th_jax.training.finetune_objectives import Frames
from th_jax.training.optimizers import AdamSettings
from th_jax.training.views import view_pyramids, views_content_loss
from th_jax.types import MetaWeights, Shots
from th_jax.weights import MetaModel, load_meta

SHOTS, TARGETS = 8, 4
LOSSES = loss_preset("heads", pixel=200.0, content_size=64, face_content=0.5, face_size=64)
STEPS = {"ê": (60, 0.02), "ψ": (100, 0.01)}
"""Steps and Adam's rate for each of the two."""


class Person(NamedTuple):
    """A held-out person: the shots, and the landmarks and the descriptors of other frames."""

    shots: Shots
    landmarks: np.ndarray
    descriptors: np.ndarray


def main() -> None:
    """Print a row for each person, and the means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--meta", default="heads", help="weights: a file, a run's workdir, or a bundled name")
    parser.add_argument("--data", default="bundled", help="data set with the split heldout")
    parser.add_argument("--people", type=int, default=8)
    options = parser.parse_args()
    jax.config.update("jax_default_matmul_precision", "bfloat16")
    meta = load_meta(options.meta)
    records = VideoRecords(options.data, "heldout")
    held = load_heldout(
        records, image_size=meta.networks.image_size, people=options.people, sources=SHOTS, targets=TARGETS
    )
    people = [person_of(held, number) for number in range(options.people)]
    center = np.mean([person.descriptors.mean(0) for person in people], axis=0)
    programs = {name: optimizer_of(meta, name) for name in STEPS}
    table = []
    print("person  as it is  best ê  best ψ")
    for number, person in enumerate(people):
        embedding = embed_shots(meta.networks, meta.weights, person.shots)
        adain = project(meta.networks, meta.weights, embedding)
        best = project(meta.networks, meta.weights, programs["ê"](embedding, person.shots))
        found = (adain, best, programs["ψ"](adain, person.shots))
        row = [identity(meta, each, person, center) for each in found]
        table.append(row)
        print(f"{number:6}  {row[0]:8.3f}  {row[1]:6.3f}  {row[2]:6.3f}", flush=True)
    mean = np.mean(table, axis=0)
    print(f"  mean  {mean[0]:8.3f}  {mean[1]:6.3f}  {mean[2]:6.3f}")


def person_of(held: HeldOut, number: int) -> Person:
    """Collect one person's arrays; target frames without landmarks are left out."""
    known = np.isfinite(held.target_landmarks[number]).all((1, 2))
    points, frames = (np.asarray(part[number])[known] for part in (held.target_landmarks, held.target_frames))
    shots = Shots(held.source_frames[number], held.source_landmarks[number], np.ones(SHOTS, np.float32))
    return Person(shots, points, descriptors(frames, points))


def descriptors(frames: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Compute dlib's descriptors at known landmarks."""
    side = frames.shape[1]
    return np.stack([face_descriptor(frame, p[:68] * side) for frame, p in zip(frames, points, strict=True)])


def project(networks: Networks, weights: MetaWeights, embedding: Array) -> Array:
    """Compute ψ̂ = P ê."""
    return networks.project(group(weights.synthesis, "projection"), embedding[None])[0]


def identity(meta: MetaModel, adain: Array, person: Person, center: np.ndarray) -> float:
    """Compute the mean centered cosine between generated and real frames."""
    networks, count = meta.networks, len(person.landmarks)
    drawn = networks.landmark_image(jnp.asarray(person.landmarks))
    repeated = jnp.broadcast_to(adain[None], (count, adain.shape[0]))
    made = np.asarray(to_uint8(networks.generate(group(meta.weights.synthesis, "generator"), drawn, repeated)))
    return float(np.mean(centred_cosine(descriptors(made, person.landmarks), person.descriptors, mean=center)))


def optimizer_of(meta: MetaModel, name: str) -> Callable[[Array, Shots], Array]:
    """Return the compiled optimization of "ê" or "ψ" from a start."""
    networks = meta.networks
    steps, rate = STEPS[name]
    adam = AdamSettings(rate, beta1=0.9, eps=1e-8).optimizer()

    def loss(latent: Array, frames: Frames, weights: MetaWeights, perceptual: PerceptualWeights) -> Array:
        adain = project(networks, weights, latent) if name == "ê" else latent
        fake = networks.generate(
            group(weights.synthesis, "generator"),
            frames.landmarks,
            jnp.broadcast_to(adain[None], (SHOTS, adain.shape[0])),
        )
        real_views, views = (
            view_pyramids(perceptual, images, frames.face, loss_weights=LOSSES) for images in (frames.real, fake)
        )
        content = views_content_loss(views, jax.lax.stop_gradient(real_views), loss_weights=LOSSES)
        return content + LOSSES.pixel * pixel_loss(fake, frames.real, emphasis=frames.emphasis)

    @jax.jit
    def optimize(latent: Array, shots: Shots, weights: MetaWeights, perceptual: PerceptualWeights) -> Array:
        weight = jnp.full(SHOTS, 1.0 / SHOTS)
        frames = Frames.of(networks, shots, jnp.arange(SHOTS), weight, landmark_box=LOSSES.landmark_box)

        def step(carry: tuple[Array, Any], _: None) -> tuple[tuple[Array, Any], None]:
            now, moments = carry
            changes, moments = adam.update(jax.grad(loss)(now, frames, weights, perceptual), moments)
            return (now + changes, moments), None

        return jax.lax.scan(step, (latent, adam.init(latent)), length=steps)[0][0]

    return lambda latent, shots: optimize(latent, shots, meta.weights, meta.perceptual)


if __name__ == "__main__":
    main()

"""Evaluation of a run on held-out people: frames generated feed-forward, and baselines of copied and mean frames.

`python -m benchmarks.baselines` prints the baselines' scores on the bundled held-out people.
"""

import functools

import jax
import numpy as np
from jax import Array
from jaxtyping import UInt8

from th_jax.evaluation.chunks import CHUNK, in_chunks, joined
from th_jax.evaluation.people import HeldOut
from th_jax.figures import image_grid, landmark_images
from th_jax.images import to_network_range, to_uint8
from th_jax.models.networks import Networks, group
from th_jax.types import NetworkState

BASELINES = ("nearest_copy", "random_copy", "mean_frame", "real")
"""Frames that need no networks: see `baseline_frames`."""


def generate_heldout(
    networks: Networks, synthesis: NetworkState, held: HeldOut, *, chunk: int = CHUNK
) -> UInt8[np.ndarray, "I S H W 3"]:
    """Generate feed-forward frames, without fine-tuning (paper, section 3.3).

    ê is the mean of E over the K sources, and x̂ = G(y, P ê). Two compiled programs process `chunk` frames at a time,
    in memory that does not grow with the number of people. u and v in `synthesis` must match their kernels (averaged
    weights: `training.state.refreshed`).

    Raises:
        ValueError: if frames have another size, or `chunk` is below 1.
    """
    size = networks.image_size
    if held.source_frames.shape[-3:] != (size, size, 3):
        raise ValueError(f"networks of {size} px cannot reenact frames of {held.source_frames.shape[-3]} px")
    people, sources = held.source_frames.shape[:2]
    targets = held.target_frames.shape[1]
    embedded = in_chunks(
        functools.partial(_embed, networks, group(synthesis, "embedder")),
        (joined(held.source_frames, content=3), joined(held.source_landmarks, content=2)),
        chunk=chunk,
    )
    embedding = embedded.reshape(people, sources, -1).mean(1)
    frames = in_chunks(
        functools.partial(_redraw, networks, group(synthesis, "projection"), group(synthesis, "generator")),
        (np.repeat(embedding, targets, axis=0), joined(held.target_landmarks, content=2)),
        chunk=chunk,
    )
    return frames.reshape(held.target_frames.shape)


def baseline_frames(held: HeldOut, kind: str, *, seed: int = 0) -> UInt8[np.ndarray, "I S H W 3"]:
    """Make frames without networks, in place of the targets.

    The kind is "nearest_copy", the source whose landmarks are closest to the target's (mean distance of the points
    known in both, without alignment); "random_copy", a random source for each target; "mean_frame", the mean of the
    person's sources; or "real", the targets themselves: the lower bound due to the detector's own error.

    Raises:
        ValueError: if the kind is unknown.
    """
    sources, targets = np.asarray(held.source_frames), np.asarray(held.target_frames)
    people, count = targets.shape[:2]
    if kind == "real":
        return targets
    if kind == "mean_frame":
        mean = np.rint(sources.mean(1, dtype=np.float64)).astype(np.uint8)
        return np.repeat(mean[:, None], count, axis=1)
    if kind == "random_copy":
        chosen = np.random.default_rng(seed).integers(0, sources.shape[1], (people, count))
    elif kind == "nearest_copy":
        offsets = np.asarray(held.target_landmarks)[:, :, None] - np.asarray(held.source_landmarks)[:, None]
        distances = np.linalg.norm(offsets, axis=-1)
        known = np.isfinite(distances)
        total = np.where(known, distances, 0.0).sum(-1)
        chosen = np.where(known.any(-1), total / np.maximum(known.sum(-1), 1), np.inf).argmin(-1)
    else:
        raise ValueError(f"unknown baseline {kind!r}; expected one of {', '.join(BASELINES)}")
    return sources[np.arange(people)[:, None], chosen]


def sample_grid(
    held: HeldOut, frames: UInt8[np.ndarray, "I S H W 3"], *, people: int = 8, target: int = 0
) -> UInt8[np.ndarray, "Y X 3"]:
    """Draw a grid with one row for each of the first people.

    Columns are a source, the target's landmarks, the real target, and the generated frame.

    Raises:
        ValueError: if there are no people, or no such target.
    """
    count, targets = frames.shape[:2]
    if people < 1 or not 0 <= target < targets:
        raise ValueError(
            f"a grid needs at least one person and a target below {targets}, got {people} and target {target}"
        )
    shown = range(min(people, count))
    drawn = landmark_images(np.asarray(held.target_landmarks)[list(shown), target], size=frames.shape[2])
    sources, real = np.asarray(held.source_frames), np.asarray(held.target_frames)
    return image_grid([[sources[i, 0], drawn[i], real[i, target], frames[i, target]] for i in shown])


@functools.partial(jax.jit, static_argnums=0)
def _embed(networks: Networks, embedder: NetworkState, frames: Array, points: Array) -> Array:
    return networks.embed(embedder, to_network_range(frames), networks.landmark_image(points))


@functools.partial(jax.jit, static_argnums=0)
def _redraw(
    networks: Networks, projection: NetworkState, generator: NetworkState, embedding: Array, points: Array
) -> Array:
    adain = networks.project(projection, embedding)
    return to_uint8(networks.generate(generator, networks.landmark_image(points), adain))

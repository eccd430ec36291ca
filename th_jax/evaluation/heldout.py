"""How a run does on people it never saw: frames generated feed-forward, scored beside copied and mean frames.

`python -m th_jax.evaluation.heldout` prints what the baselines reach on the bundled held-out people.
"""

import argparse
import functools
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np
from jax import Array
from jaxtyping import UInt8

from th_jax.console import forgiving_output
from th_jax.data.bundled import bundled_heads
from th_jax.data.records import VideoRecords
from th_jax.evaluation.chunks import CHUNK, in_chunks, joined
from th_jax.evaluation.people import LANDMARKS, ChosenFrames, HeldOut, choose_frames, load_heldout
from th_jax.evaluation.scores import RealFaces, heldout_scores, heldout_table, real_faces, table_means
from th_jax.images import to_network_range, to_uint8
from th_jax.models.networks import Networks, group
from th_jax.perceptual.weights import load_perceptual
from th_jax.rendering.figures import landmark_pictures, picture_grid
from th_jax.types import NetworkState

__all__ = [
    "BASELINES",
    "ChosenFrames",
    "HeldOut",
    "RealFaces",
    "baseline_frames",
    "choose_frames",
    "generate_heldout",
    "heldout_scores",
    "heldout_table",
    "load_heldout",
    "real_faces",
    "sample_grid",
    "scores_markdown",
    "table_means",
]

BASELINES = ("nearest_copy", "random_copy", "mean_frame", "real")
"""Kinds of frames that need no networks: see `baseline_frames`."""


def generate_heldout(
    networks: Networks, synthesis: NetworkState, held: HeldOut, *, chunk: int = CHUNK
) -> UInt8[np.ndarray, "I S H W 3"]:
    """Feed-forward frames (paper, section 3.3, without fine-tuning): ê is the mean of E over the K sources, x̂ = G(y, P ê).

    Runs `chunk` frames after `chunk` frames through two compiled programs, whose memory does not grow with the people.

    Args:
        synthesis: E, P and G; their u and v must be those of their kernels (averaged weights: `training.state.refreshed`).
        held: frames of the networks' size.

    Raises:
        ValueError: for frames of another size, or a chunk below 1.
    """
    size = networks.image_size
    if held.source_frames.shape[-3:] != (size, size, 3):
        raise ValueError(f"networks of {size} px cannot redraw frames of {held.source_frames.shape[-3]} px")
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
    """Frames that need no networks, in place of the targets.

    Args:
        kind: "nearest_copy", the source whose landmarks are nearest to the target's (mean distance of the points known in
            both, where they lie); "random_copy", a source drawn for each target; "mean_frame", the mean of the person's
            sources; "real", the targets themselves: the floor that the detector's own error sets.
        seed: of the random copies.

    Raises:
        ValueError: for another kind.
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
        raise ValueError(f"there is no baseline called {kind!r}; there are {', '.join(BASELINES)}")
    return sources[np.arange(people)[:, None], chosen]


def sample_grid(
    held: HeldOut, frames: UInt8[np.ndarray, "I S H W 3"], *, people: int = 8, target: int = 0
) -> UInt8[np.ndarray, "Y X 3"]:
    """The first people, one a row: a source, the target's landmarks, the real target, the generated one.

    Raises:
        ValueError: if there are no people, or no such target.
    """
    count, targets = frames.shape[:2]
    if people < 1 or not 0 <= target < targets:
        raise ValueError(f"a grid needs people and one of {targets} targets, but {people} and target {target} came")
    shown = range(min(people, count))
    drawn = landmark_pictures(np.asarray(held.target_landmarks)[list(shown), target], size=frames.shape[2])
    sources, real = np.asarray(held.source_frames), np.asarray(held.target_frames)
    return picture_grid([[sources[i, 0], drawn[i], real[i, target], frames[i, target]] for i in shown])


@functools.partial(jax.jit, static_argnums=0)
def _embed(networks: Networks, embedder: NetworkState, frames: Array, points: Array) -> Array:
    return networks.embed(embedder, to_network_range(frames), networks.landmark_image(points))


@functools.partial(jax.jit, static_argnums=0)
def _redraw(
    networks: Networks, projection: NetworkState, generator: NetworkState, embedding: Array, points: Array
) -> Array:
    adain = networks.project(projection, embedding)
    return to_uint8(networks.generate(generator, networks.landmark_image(points), adain))


def scores_markdown(scores: Mapping[str, Mapping[str, float]]) -> str:
    """Scores of several systems as a Markdown table: a measure a row, a system a column."""
    systems = list(scores)
    measures = list(dict.fromkeys(measure for column in scores.values() for measure in column))
    rows = [["measure", *systems], ["---", *("---:" for _ in systems)]]
    rows += [[name, *(f"{scores[system].get(name, np.nan):.4f}" for system in systems)] for name in measures]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


@forgiving_output()
def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m th_jax.evaluation.heldout", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help='data set with a split "heldout" (default: the bundled heads)')
    parser.add_argument("--size", type=int, default=64, help="side of the frames in pixels")
    parser.add_argument("--people", type=int, help="only the first so many people")
    parser.add_argument("--landmarks", choices=LANDMARKS, default="true", help="which landmarks are taken for true")
    parser.add_argument("--no_faces", action="store_true", help="measure pixels and features alone, without dlib")
    options = parser.parse_args(arguments)
    try:
        records = VideoRecords(options.data or bundled_heads(), "heldout")
        held = load_heldout(records, image_size=options.size, people=options.people, landmarks=options.landmarks)
        real = None if options.no_faces else real_faces(held)
        perceptual = load_perceptual(["vgg16"])
        scores = {}
        for kind in BASELINES:
            frames = baseline_frames(held, kind)
            scores[kind] = heldout_scores(held, frames, perceptual=perceptual, faces=not options.no_faces, real=real)
    except (ValueError, OSError, ImportError) as error:
        parser.error(str(error))
    people, targets = held.target_frames.shape[:2]
    print(f"{people} people of {records.videos.name!r} at {options.size} px: {targets} targets from", end=" ")
    print(f"{held.source_frames.shape[1]} sources each\n\n{scores_markdown(scores)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

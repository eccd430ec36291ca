"""A first look on the bundled heads: draws landmarks, builds the paper's networks, counts them, and pushes a person through.

python -m benchmarks.first_look --out out
"""

import argparse
import itertools
import time
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8

from th_jax.console import forgiving_output
from th_jax.data.episodes import decode_frame
from th_jax.data.records import FRAME_SIZE, bundled_heads, read_videos
from th_jax.data.schema import VideoRecord
from th_jax.figures import image_grid, landmark_images
from th_jax.images import to_network_range, to_uint8
from th_jax.models.networks import Networks, group
from th_jax.models.summary import flop_counts, millions, parameter_counts
from th_jax.provenance.record import Kind, Provenance
from th_jax.provenance.write import write_image
from th_jax.types import MetaWeights

FIRST_LOOK = "first_look.png"
_PEOPLE = 6
_FRAMES = 3


def first_look_grid(people: Sequence[VideoRecord]) -> UInt8[np.ndarray, "Y X 3"]:
    """A person a row: frames with their landmark images beside them."""
    rows = []
    for person in people:
        chosen = range(0, len(person.frames), max(1, len(person.frames) // _FRAMES))[:_FRAMES]
        points = person.landmarks if person.true_landmarks is None else person.true_landmarks
        drawn = landmark_images(points[list(chosen)], size=FRAME_SIZE)
        pairs = [(decode_frame(person.frames[t], size=FRAME_SIZE), drawn[i]) for i, t in enumerate(chosen)]
        rows.append([shown_image for pair in pairs for shown_image in pair])
    return image_grid(rows)


def push_through(
    networks: Networks, weights: MetaWeights, person: VideoRecord
) -> tuple[UInt8[np.ndarray, "H W 3"], float]:
    """One person through E, P, G and D: the generated frame and the discriminator's score of it."""
    assert person.true_landmarks is not None, "the bundled heads know their true landmarks"
    frames = np.stack([decode_frame(jpeg, size=FRAME_SIZE) for jpeg in person.frames[:_FRAMES]])
    size = networks.image_size
    source = to_network_range(jnp.asarray(frames))
    source = jnp.clip(jax.image.resize(source, (len(frames), size, size, 3), "bicubic"), -1.0, 1.0)
    landmark_image = networks.landmark_image(jnp.asarray(person.true_landmarks[:_FRAMES]))
    embedding = networks.embed(group(weights.synthesis, "embedder"), source, landmark_image).mean(0, keepdims=True)
    adain = networks.project(group(weights.synthesis, "projection"), embedding)
    target = landmark_image[:1]
    fake = networks.generate(group(weights.synthesis, "generator"), target, adain)
    score, _ = networks.discriminate(weights.discriminator, fake, target, jnp.zeros_like(embedding))
    return np.asarray(to_uint8(fake))[0], float(score[0])


@forgiving_output()
def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.first_look", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder to write to")
    parser.add_argument("--image-size", type=int, default=256, help="size of the networks' frames in pixels")
    options = parser.parse_args(arguments)
    try:
        networks = Networks(image_size=options.image_size)
        people = [record for _, record in itertools.islice(read_videos(bundled_heads(), "heldout"), _PEOPLE)]
        options.out.mkdir(parents=True, exist_ok=True)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    path = options.out / FIRST_LOOK
    write_image(path, first_look_grid(people), provenance=Provenance(kind=Kind.FIGURE, notes="rendered CC0 heads"))
    print(f"{path}: {len(people)} rendered people beside their landmark images")

    start = time.perf_counter()
    weights = networks.init(jax.random.key(0))
    made = time.perf_counter() - start
    counts, flop = parameter_counts(networks), flop_counts(networks)
    print(f"networks of the paper at {networks.image_size} px, weights made in {made:.1f} s:")
    print(f"  E {millions(counts['embedder'])} parameters, {flop['E'] / 1e9:.0f} GFLOP a frame")
    generator = counts["generator"] + counts["projection"]
    print(f"  G with P {millions(generator)} parameters, {flop['G'] / 1e9:.0f} GFLOP a frame")
    print(f"  D {millions(counts['discriminator'])} parameters, {flop['D'] / 1e9:.0f} GFLOP a frame")
    start = time.perf_counter()
    frame, score = push_through(networks, weights, people[0])
    print(f"one person through E, P, G and D in {time.perf_counter() - start:.1f} s, compilation included:")
    low, high = int(frame.min()), int(frame.max())
    print(
        f"  a frame of {frame.shape[0]}x{frame.shape[1]} in {low}..{high}, score {score:+.3f}; untrained, so it is noise"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

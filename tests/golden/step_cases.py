"""Inputs and settings of the golden steps, numpy only: tiny networks, two batches with duplicates, shots with padding."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8

from tests.golden import network_shapes
from tests.golden.seeded import random_state, seeded_array, seeded_parameters, seeded_stats

SEED = 8233
SIZE, BASE_WIDTH, SOURCES = 16, 4, 2
STEPS = 2
FILE = "steps"

ROWS = 6
VIDEO_INDEX = ((1, 4, 1, 0), (4, 2, 2, 5))
"""Of each step's episodes: a video twice in either batch, one in both, one in none."""

LOSSES: dict[str, Any] = {
    "content": {"vgg16": 1e-2},
    "feature_matching": 10.0,
    "matching": 10.0,
    "pixel": 10.0,
    "landmark_box": 3.0,
}
# Adam divides a gradient by its size plus eps. A large eps keeps the rounding of small gradients from becoming steps.
SYNTHESIS: dict[str, Any] = {"learning_rate": 2e-3, "beta2": 0.99, "eps": 1e-3, "warmup": 3, "halve_at": (1,)}
DISCRIMINATOR: dict[str, Any] = {"learning_rate": 2e-3, "beta2": 0.99, "eps": 1e-3, "warmup": 4, "halve_at": (3,)}
AVERAGING = 0.9
RAMP_STEPS = 4
FINETUNE_ADVERSARY = 0.5
REAL_SHOTS, PADDED_SHOTS = 5, 8

VGG_CHANNELS = (2, 3, 4, 5, 6)

NETWORKS = {
    "embedder": network_shapes.embedder_shapes(SIZE, BASE_WIDTH),
    "projection": network_shapes.projection_shapes(SIZE, BASE_WIDTH),
    "generator": network_shapes.generator_shapes(SIZE, BASE_WIDTH),
    "discriminator": network_shapes.discriminator_shapes(SIZE, BASE_WIDTH),
}


class ImageOutcomes(NamedTuple):
    """Frames, and landmarks in [0, 1], some of which are unknown."""

    frames: UInt8[np.ndarray, "*B H W 3"]
    landmarks: Float[np.ndarray, "*B 68 2"]


def images(name: str, *shape: int) -> ImageOutcomes:
    """Noise; the seventh point is unknown everywhere."""
    state = random_state(f"steps/{name}", SEED)
    frames = state.randint(0, 256, (*shape, SIZE, SIZE, 3)).astype(np.uint8)
    landmarks = state.uniform(0.2, 0.8, (*shape, 68, 2)).astype(np.float32)
    landmarks[..., 6, :] = np.nan
    return ImageOutcomes(frames, landmarks)


def sources(step: int) -> ImageOutcomes:
    """Of a step's episodes."""
    return images(f"sources/{step}", len(VIDEO_INDEX[step]), SOURCES)


def targets(step: int) -> ImageOutcomes:
    """Of a step's episodes."""
    return images(f"targets/{step}", len(VIDEO_INDEX[step]))


def shots() -> ImageOutcomes:
    """Of one person; what pads them has no landmarks at all."""
    frames, landmarks = images("shots", PADDED_SHOTS)
    landmarks[REAL_SHOTS:] = np.nan
    return ImageOutcomes(frames, landmarks)


def parameters() -> dict[str, dict[str, np.ndarray]]:
    """Of each network."""
    return {name: seeded_parameters(f"steps/{name}", shapes, seed=SEED) for name, shapes in NETWORKS.items()}


def stats(weights: dict[str, dict[str, np.ndarray]]) -> dict[str, dict[str, np.ndarray]]:
    """u and v of each network."""
    return {name: seeded_stats(f"steps/{name}", own, seed=SEED) for name, own in weights.items()}


def perceptual() -> dict[str, np.ndarray]:
    """A VGG16 of few channels."""
    shapes: network_shapes.Shapes = {}
    wide = 3
    for block, (convolutions, channels) in enumerate(zip((2, 2, 3, 3, 1), VGG_CHANNELS, strict=True), start=1):
        for number in range(1, convolutions + 1):
            shapes |= network_shapes.convolution_shapes(f"block{block}_conv{number}", 3, wide, channels, bias=True)
            wide = channels
    return seeded_parameters("steps/vgg16", shapes, seed=SEED)


def rows() -> Float[np.ndarray, "V N"]:
    """W."""
    return seeded_array("steps/rows", (ROWS, 8 * BASE_WIDTH), seed=SEED, scale=0.5)


def chosen(path: str, size: int, *, most: int = 48) -> Int[np.ndarray, " n"]:
    """The places of an array of this size that are kept."""
    return np.sort(random_state(f"steps/chosen/{path}", SEED).permutation(size)[:most])

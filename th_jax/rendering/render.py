"""Avatar and landmarks to frames, in chunks of one size: one program serves clips of any length (paper, section 3.1)."""

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Float32, UInt8

from th_jax.images import to_uint8
from th_jax.models.networks import Networks
from th_jax.topology import check_point_count
from th_jax.types import AnyArray, Avatar, NetworkState
from th_jax.watermark.embed import Mark, embed

CHUNK = 16
"""Frames that are generated together."""

FEW = 4
"""Those where few are wanted at a time: one size, so that they all share one compiled program."""


def generate_frames(
    networks: Networks, avatar: Avatar, landmarks: Float[AnyArray, "B P 2"]
) -> UInt8[Array, "B {networks.image_size} {networks.image_size} 3"]:
    """G(y, ψ') of a batch, as a pure function: for use inside somebody's jit, vmap or shard_map.

    Landmarks lie in [0, 1], NaN where unknown. The avatar's arrays may be tracers.
    """
    landmark_images = networks.landmark_image(jnp.asarray(landmarks))
    adain = jnp.broadcast_to(jnp.asarray(avatar.adain)[None], (len(landmarks), networks.plan.adain_size))
    generator = NetworkState(avatar.generator_params, avatar.spectral_stats)
    return to_uint8(networks.generate(generator, landmark_images, adain))


def render(
    networks: Networks,
    avatar: Avatar,
    landmarks: Float[AnyArray, "S P 2"],
    *,
    chunk: int = CHUNK,
    mark: Mark | None = None,
) -> UInt8[np.ndarray, "S {networks.image_size} {networks.image_size} 3"]:
    """One frame for each set of landmarks.

    Args:
        networks: that the avatar belongs to; equal ones share one compiled program.
        avatar: feed-forward or fine-tuned.
        landmarks: any number of sets of 68 or 70 points in [0, 1], NaN where unknown.
        chunk: frames that are generated together; the last chunk is padded, so that nothing is compiled again.
        mark: a watermark that the same program puts into every frame. Without one they are as the networks made them;
            `th_jax.media` then marks what it writes.

    Raises:
        ValueError: for landmarks of another shape, or a chunk below 1.
    """
    points = np.asarray(landmarks, np.float32)
    frames = render_stream(networks, avatar, points, chunk=chunk, mark=mark)
    size = networks.image_size
    return np.stack(list(frames)) if len(points) else np.zeros((0, size, size, 3), np.uint8)


def render_stream(
    networks: Networks,
    avatar: Avatar,
    landmarks: Iterable[Float[AnyArray, "P 2"]],
    *,
    chunk: int = CHUNK,
    mark: Mark | None = None,
) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """The frames of `render`, one after the other, with memory for two chunks: for clips of any length.

    The next chunk is generated while the caller is busy with the last one.

    Raises:
        ValueError: for landmarks of another shape than the first ones, or a chunk below 1.
    """
    avatar, mark = jax.device_put((avatar, mark))
    if isinstance(avatar.adain, Array) and len(devices := avatar.adain.devices()) == 1:
        # Bound to their device: JAX compiles anew for arrays that are and arrays that are not.
        avatar, mark = jax.device_put((avatar, mark), *devices)
    return _in_chunks(functools.partial(_rendered, networks, avatar, mark), landmarks, chunk)


def draw_stream(
    landmarks: Iterable[Float[AnyArray, "P 2"]], *, networks: Networks, chunk: int = CHUNK
) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """What the generator is shown: the landmark images as pictures to look at, as `render_stream`.

    Raises:
        ValueError: as `render_stream`.
    """
    return _in_chunks(functools.partial(_drawn, networks), landmarks, chunk)


@functools.partial(jax.jit, static_argnums=0)
def _rendered(
    networks: Networks, avatar: Avatar, mark: Mark | None, points: Float32[Array, "B P 2"]
) -> UInt8[Array, "B H W 3"]:
    frames = generate_frames(networks, avatar, points)
    return frames if mark is None else embed(frames, mark)


@functools.partial(jax.jit, static_argnums=0)
def _drawn(networks: Networks, points: Float32[Array, "B P 2"]) -> UInt8[Array, "B H W 3"]:
    return to_uint8(networks.landmark_image(points))


def _in_chunks(
    program: Callable[[Float32[np.ndarray, "B P 2"]], Array], landmarks: Iterable[AnyArray], chunk: int
) -> Iterator[np.ndarray]:
    if chunk < 1:
        raise ValueError(f"a chunk needs at least 1 frame, but chunk is {chunk}")
    return _generated(program, _padded(landmarks, chunk))


def _generated(
    program: Callable[[np.ndarray], Array], chunks: Iterator[tuple[np.ndarray, int]]
) -> Iterator[np.ndarray]:
    waiting: tuple[Array, int] | None = None
    for points, count in chunks:
        coming = (program(points), count)
        if waiting is not None:
            yield from np.asarray(waiting[0])[: waiting[1]]
        waiting = coming
    if waiting is not None:
        yield from np.asarray(waiting[0])[: waiting[1]]


def _padded(landmarks: Iterable[AnyArray], chunk: int) -> Iterator[tuple[np.ndarray, int]]:
    """Chunks of one size, the last one filled up with its last landmarks, and how many of each are real."""
    shape: tuple[int, ...] | None = None
    rest = iter(landmarks)
    while taken := [np.asarray(points, np.float32) for points in itertools.islice(rest, chunk)]:
        for points in taken:
            if points.ndim != 2 or points.shape[1] != 2:
                raise ValueError(f"landmarks of a frame must be [P, 2], but have the shape {list(points.shape)}")
            check_point_count(len(points))
            shape = shape or points.shape
            if points.shape != shape:
                raise ValueError(f"a clip has one number of landmarks, but {shape[0]} and {len(points)} came")
        yield np.stack(taken + taken[-1:] * (chunk - len(taken))), len(taken)

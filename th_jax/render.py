"""Rendering of an avatar's frames from landmarks, in chunks of one size, so that one program serves clips of any length."""

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Float32, UInt8

from th_jax.images import to_uint8
from th_jax.landmarks.scheme import check_point_count
from th_jax.models.networks import Networks
from th_jax.program_cache import cached_jit
from th_jax.provenance.watermark.embed import Mark, embed
from th_jax.types import AnyArray, Avatar, NetworkState

CHUNK = 16
"""Frames that are generated together."""

FEW = 4
"""Chunk size where few frames are wanted at a time; shared by all such callers, so that they share one compiled program."""


def generate_frames(
    networks: Networks, avatar: Avatar, landmarks: Float[AnyArray, "B P 2"]
) -> UInt8[Array, "B {networks.image_size} {networks.image_size} 3"]:
    """Compute G(y, ψ') of a batch as a pure function, for use inside a caller's jit, vmap or shard_map (paper, section 3.1).

    Args:
        networks: networks that the avatar belongs to.
        avatar: the person's avatar; its arrays may be tracers.
        landmarks: landmarks in [0, 1], NaN where unknown.

    Returns:
        RGB frames in 0..255.
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
    """Render one frame for each set of landmarks.

    Args:
        networks: networks that the avatar belongs to; equal ones share one compiled program.
        avatar: a feed-forward or fine-tuned avatar.
        landmarks: any number of sets of 68 or 70 points in [0, 1], NaN where unknown.
        chunk: frames that are generated together; the last chunk is padded, so that nothing is compiled again.
        mark: a watermark that the same program embeds in every frame. Without one, frames are unmarked; `th_jax.media` then
            marks what it writes.

    Returns:
        RGB frames in 0..255.

    Raises:
        ValueError: if landmarks have another shape, or `chunk` is below 1.
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
    """Render the frames of `render` one after another, with memory for two chunks, for clips of any length.

    The next chunk is generated while the caller processes the previous one.

    Raises:
        ValueError: if landmarks differ in shape from the first ones, or `chunk` is below 1.
    """
    avatar, mark = jax.device_put((avatar, mark))
    if isinstance(avatar.adain, Array) and len(devices := avatar.adain.devices()) == 1:
        # Committed to their device, because JAX compiles separately for committed and uncommitted arrays.
        avatar, mark = jax.device_put((avatar, mark), *devices)
    return _in_chunks(functools.partial(_renderer(networks), avatar, mark), landmarks, chunk)


_compiled: set[tuple[Networks, int, int, bool]] = set()


def compile_render(
    networks: Networks, avatar: Avatar, points: int, *, chunk: int = CHUNK, mark: Mark | None = None
) -> None:
    """Compile the program of `render_stream`, unless this process has: call it in a thread while landmarks are still unknown.

    Args:
        networks: networks that the avatar belongs to.
        avatar: any avatar of theirs.
        points: number of landmarks, 68 or 70.
        chunk: frames that will be generated together.
        mark: a watermark, or None, as will be given.
    """
    kind = (networks, points, chunk, mark is None)
    if kind not in _compiled:
        next(render_stream(networks, avatar, np.zeros((1, points, 2)), chunk=chunk, mark=mark))
        _compiled.add(kind)


def draw_stream(
    landmarks: Iterable[Float[AnyArray, "P 2"]], *, networks: Networks, chunk: int = CHUNK
) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """Draw the landmark images that the generator sees, as RGB frames, in the same way as `render_stream`.

    Raises:
        ValueError: as `render_stream`.
    """
    return _in_chunks(functools.partial(_drawn, networks), landmarks, chunk)


@functools.cache
def _renderer(networks: Networks) -> Callable[[Avatar, Mark | None, AnyArray], Array]:
    def rendered(avatar: Avatar, mark: Mark | None, points: Float32[Array, "B P 2"]) -> UInt8[Array, "B H W 3"]:
        frames = generate_frames(networks, avatar, points)
        return frames if mark is None else embed(frames, mark)

    return cached_jit(rendered, key=f"render {networks}")


@functools.partial(jax.jit, static_argnums=0)
def _drawn(networks: Networks, points: Float32[Array, "B P 2"]) -> UInt8[Array, "B H W 3"]:
    return to_uint8(networks.landmark_image(points))


def _in_chunks(
    program: Callable[[Float32[np.ndarray, "B P 2"]], Array], landmarks: Iterable[AnyArray], chunk: int
) -> Iterator[np.ndarray]:
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1 frame, got {chunk}")
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
    """Yield chunks of one size, the last one padded with its last landmarks, and the number of real frames in each."""
    shape: tuple[int, ...] | None = None
    rest = iter(landmarks)
    while taken := [np.asarray(points, np.float32) for points in itertools.islice(rest, chunk)]:
        for points in taken:
            if points.ndim != 2 or points.shape[1] != 2:
                raise ValueError(f"landmarks of a frame must be [P, 2], got {list(points.shape)}")
            check_point_count(len(points))
            shape = shape or points.shape
            if points.shape != shape:
                raise ValueError(
                    f"all frames of a clip need the same number of landmarks, got {shape[0]} and {len(points)}"
                )
        yield np.stack(taken + taken[-1:] * (chunk - len(taken))), len(taken)

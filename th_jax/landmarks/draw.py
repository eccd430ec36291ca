"""Landmark images: points drawn as colored, anti-aliased strokes on the device, within the training step, in pure jnp."""

import functools
import math
from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from th_jax.landmarks.scheme import IBUG_POINTS, LINE_WIDTH, PUPIL_COLOR, PUPIL_RADIUS, check_point_count, segments

Pupils = Literal["soft", "area"]
"""Drawing of pupils: "soft" as strokes of length zero, whose area depends on their place in a pixel, or "area" as disks that
cover exactly the share of each pixel that they overlap."""


def draw_landmarks(
    points: Float[Array, "*batch P 2"], *, size: int, line_width: float = LINE_WIDTH, pupils: Pupils = "soft"
) -> Float[Array, "*batch {size} {size} 3"]:
    """Draw the paper's landmark images y (section 3.1), with colors in [0, 1] on black (docs/paper-map.md).

    Strokes are drawn over each other in the order of `th_jax.landmarks.scheme.segments`. A pixel's coverage falls from one to
    zero over one pixel at a stroke's edge, so that the image is differentiable in the points.

    Args:
        points: 68 iBUG points, or 70 with the pupils: x then y, in [0, 1] from the left and the top edge. A stroke with a NaN
            or infinite end is not drawn and passes no gradient; strokes that reach outside of [0, 1] are clipped to the image.
        size: side of the image in pixels.
        line_width: width of the strokes in 256ths of the side. Lines are max(1, size * line_width / 256) pixels wide.
        pupils: drawing of pupils, whose radius is PUPIL_RADIUS line widths.

    Raises:
        ValueError: if the number of points is not 68 or 70, `size` is below 1, or `line_width` is not above 0.
        TypeError: if the points are not floating point.

    The loop over strokes holds one image and fuses the distance into its update. On two CPU cores this takes 1.3 to 3 ms per
    frame at 256 px; one reduction over all strokes takes 15 to 50 ms. On accelerators the batch dimensions fill the device.
    """
    points = jnp.asarray(points)
    if points.ndim < 2 or points.shape[-1] != 2:
        raise ValueError(f"points must have the shape [..., P, 2], but have {points.shape}")
    check_point_count(points.shape[-2])
    if not jnp.issubdtype(points.dtype, jnp.floating):
        raise TypeError(f"points must be floating point in [0, 1], got {points.dtype}")
    if size < 1:
        raise ValueError(f"size must be at least 1 pixel, but is {size}")
    if not 0 < line_width < math.inf:
        raise ValueError(f"line_width must be above 0, but is {line_width}")
    batch = points.shape[:-2]
    flat = points.astype(jnp.float32).reshape((-1, *points.shape[-2:]))
    pictures = _draw_batch(flat, size=size, width=max(1.0, size * line_width / 256), pupils=pupils)
    return pictures.reshape((*batch, size, size, 3))


@functools.partial(jax.jit, static_argnames=("size", "width", "pupils"))  # traced once for all programs that draw
def _draw_batch(
    points: Float[Array, "B P 2"], *, size: int, width: float, pupils: Pupils
) -> Float[Array, "B {size} {size} 3"]:
    return jax.vmap(lambda one: _draw(one, size, width, pupils))(points)


def _draw(points: Float[Array, "P 2"], size: int, width: float, pupils: Pupils) -> Float[Array, "{size} {size} 3"]:
    strokes = segments(points.shape[0] if pupils == "soft" else IBUG_POINTS)
    known = jnp.isfinite(points).all(-1)
    # Unknown points are replaced before any arithmetic, because a NaN that is masked only afterwards would spoil gradients.
    pixels = jnp.where(known[:, None], points, 0.0) * size
    start, end = pixels[strokes.start], pixels[strokes.end]
    drawn = (known[strokes.start] & known[strokes.end]).astype(jnp.float32)
    radius = jnp.asarray(strokes.radius) * width
    color = jnp.asarray(strokes.color)
    centers = jnp.arange(size, dtype=jnp.float32) + 0.5
    x, y = centers[None, :], centers[:, None]

    def lay(stroke: Int[Array, ""], planes: tuple[Array, ...]) -> tuple[Array, ...]:
        distance = _distance_to_segment(x, y, start[stroke], end[stroke])
        coverage = jnp.clip(radius[stroke] + 0.5 - distance, 0.0, 1.0) * drawn[stroke]
        return tuple(plane + coverage * (color[stroke, channel] - plane) for channel, plane in enumerate(planes))

    # Three planes rather than one image, because vector units are inefficient for a channel dimension of 3.
    black = tuple(jnp.zeros((size, size), jnp.float32) for _ in range(3))
    planes = jax.lax.fori_loop(0, len(strokes.start), lay, black)
    if pupils == "area":
        edges = jnp.arange(size + 1, dtype=jnp.float32)
        for pupil in range(IBUG_POINTS, points.shape[0]):
            coverage = _disk_coverage(edges, pixels[pupil], PUPIL_RADIUS * width) * known[pupil]
            planes = tuple(p + coverage * (c - p) for p, c in zip(planes, PUPIL_COLOR, strict=True))
    return jnp.stack(planes, axis=-1)


def _disk_coverage(edges: Float[Array, " E"], center: Float[Array, "2"], radius: float) -> Float[Array, "S S"]:
    """Compute the share of each pixel that a disk covers, from the areas of the disk left of and above the pixels' corners."""
    x, y = (jnp.clip(edges - middle, -radius, radius) for middle in center)
    x, y = x[None, :], y[:, None]
    # Up to half the width of the disk's slice at this y; its derivative has no influence, where the pieces below meet.
    half = jax.lax.stop_gradient(jnp.sqrt(radius**2 - y**2))
    within, area = jnp.clip(x, -half, half), functools.partial(_half_area, radius=radius)
    inner = jnp.abs(y) * (within + half)
    middle = area(within) - area(-half)
    below = 2 * area(jnp.minimum(x, -half)) + middle + inner + 2 * (area(jnp.maximum(x, half)) - area(half))
    covered = jnp.where(y >= 0, below, middle - inner)
    return jnp.clip(jnp.diff(jnp.diff(covered, axis=0), axis=1), 0.0, 1.0)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _half_area(x: Array, radius: float) -> Array:
    """Compute the area of the upper half of a disk left of x, from -radius to radius."""
    share = jnp.clip(x / radius, -1.0, 1.0)
    return radius**2 / 2 * (share * jnp.sqrt(1 - share**2) + jnp.arcsin(share) + math.pi / 2)


@_half_area.defjvp
def _half_area_jvp(radius: float, primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (x,), (step,) = primals, tangents  # written out, because the derivatives of the terms are infinite at the ends
    return _half_area(x, radius), jnp.sqrt(jnp.maximum(radius**2 - x**2, 0.0)) * step


def _distance_to_segment(
    x: Float[Array, "1 W"], y: Float[Array, "H 1"], start: Float[Array, "2"], end: Float[Array, "2"]
) -> Float[Array, "H W"]:
    along = end - start
    length_squared = jnp.maximum(jnp.sum(along * along), 1e-12)  # a pupil is a segment of length zero
    share = jnp.clip(((x - start[0]) * along[0] + (y - start[1]) * along[1]) / length_squared, 0.0, 1.0)
    dx = x - start[0] - share * along[0]
    dy = y - start[1] - share * along[1]
    return jnp.sqrt(dx * dx + dy * dy + 1e-12)  # the square root has no gradient at zero

"""Conversions between uint8 images and the networks' range [-1, 1]; the only module that defines the value range."""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, UInt8

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in the brightness of a gray image (BT.601)."""


def to_network_range(frames: UInt8[Array, "*batch H W 3"]) -> Float[Array, "*batch H W 3"]:
    """Convert uint8 RGB, 0..255, to float32 in [-1, 1].

    Raises:
        TypeError: if the frames are not uint8 (the range of a floating-point image is unknown).
    """
    if frames.dtype != jnp.uint8:
        raise TypeError(
            f"frames must be uint8 RGB in 0..255, got {frames.dtype}; convert float images with `np.rint(255 * "
            "image).astype(np.uint8)` first"
        )
    return frames.astype(jnp.float32) * (2.0 / 255.0) - 1.0


def to_uint8(images: Float[Array, "*batch H W 3"]) -> UInt8[Array, "*batch H W 3"]:
    """Convert network images in [-1, 1] to uint8 RGB, rounded to the nearest value and clipped."""
    return jnp.clip(jnp.rint((images.astype(jnp.float32) + 1.0) * 127.5), 0.0, 255.0).astype(jnp.uint8)


def unit_to_network_range(images: Float[Array, "*batch H W C"]) -> Float[Array, "*batch H W C"]:
    """Convert images in [0, 1], such as drawn landmarks, to [-1, 1]."""
    return images * 2.0 - 1.0


def box_downsample(images: Float[Array, "B H W C"], *, size: int) -> Float[Array, "B {size} {size} C"]:
    """Downsample square images; each pixel is the mean of the block of pixels it covers.

    Args:
        images: square images whose side is a multiple of `size`.
        size: new side in pixels; images of this size are returned unchanged.
    """
    batch, side, _, channels = images.shape
    if side == size:
        return images
    factor = side // size
    return images.reshape(batch, size, factor, size, factor, channels).mean((2, 4))


def to_byte_scale(images: Float[Array, "*batch H W 3"]) -> Float[Array, "*batch H W 3"]:
    """Convert network images in [-1, 1] to floats in [0, 255], the scale of Caffe's networks; differentiable."""
    return (images.astype(jnp.float32) + 1.0) * 127.5


def without_color(images: Float[Array, "*batch H W 3"]) -> Float[Array, "*batch H W 3"]:
    """Replace the colors of network images by their luma (BT.601), in all three channels."""
    luma = images @ jnp.array(LUMA, images.dtype)
    return jnp.broadcast_to(luma[..., None], images.shape)

"""The value range: exact round trips, and an error for images of unknown range."""

import jax.numpy as jnp
import numpy as np
import pytest

from th_jax import images


def test_every_byte_survives_the_round_trip() -> None:
    frames = jnp.arange(256, dtype=jnp.uint8).reshape(1, 16, 16, 1).repeat(3, -1)
    values = images.to_network_range(frames)
    assert (float(values.min()), float(values.max())) == (-1.0, 1.0)
    np.testing.assert_array_equal(images.to_uint8(values), frames)
    np.testing.assert_allclose(images.to_byte_scale(values), frames.astype(jnp.float32), atol=1e-4)


def test_out_of_range_values_are_clipped() -> None:
    extremes = jnp.array([-2.0, 2.0]).reshape(1, 1, 2, 1).repeat(3, -1)
    assert images.to_uint8(extremes)[0, 0, :, 0].tolist() == [0, 255]


def test_unit_range() -> None:
    unit = jnp.array([0.0, 0.5, 1.0]).reshape(1, 1, 3, 1)
    assert images.unit_to_network_range(unit).ravel().tolist() == [-1.0, 0.0, 1.0]


def test_float_frames_are_rejected() -> None:
    with pytest.raises(TypeError, match=r"uint8 RGB in 0\.\.255, got float32"):
        images.to_network_range.__wrapped__(jnp.zeros((1, 4, 4, 3)))

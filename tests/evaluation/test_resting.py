"""The background's flicker: where the background is, in closed form, and a generator that sees noise."""

import jax
import numpy as np
import pytest

from th_jax.evaluation.resting import background, flicker, resting_flicker, resting_report
from th_jax.landmarks.scheme import IBUG_POINTS
from th_jax.models.networks import Networks
from th_jax.training.finetune import feed_forward
from th_jax.types import Shots


def test_background_is_beside_and_above_the_head() -> None:
    turn = np.linspace(0, 2 * np.pi, IBUG_POINTS)
    face = 0.5 + 0.15 * np.stack([np.cos(turn), np.sin(turn)], -1)
    where = background(face, size=64)
    assert where[2, 2]
    assert where[2, 32]
    assert not where[32, 32]
    assert not where[16, 32]  # hair
    assert not where[60].any()  # shoulders


def test_flicker_in_closed_form() -> None:
    frames = np.zeros((3, 4, 4, 3), np.uint8)
    frames[1], where = 10, np.ones((4, 4), bool)
    assert flicker(frames, where) == 10
    frames[1:, 0] = 0
    assert flicker(frames[:2], where) == 7.5
    assert np.isnan(flicker(frames, ~where))


def test_smoothing_makes_a_resting_background_stiller() -> None:
    networks, rng = Networks(image_size=16, base_width=4), np.random.default_rng(0)
    points = (0.5 + 0.2 * rng.uniform(-1, 1, (68, 2))).astype(np.float32)
    shots = Shots(rng.integers(0, 256, (1, 16, 16, 3), dtype=np.uint8), points[None], np.ones(1, np.float32))
    avatar = jax.jit(feed_forward, static_argnums=0)(networks, networks.init(jax.random.key(0)), shots)
    measured = resting_flicker(networks, [avatar], [points])
    assert 0 < measured["smoothed"] < measured["detected"]
    assert f"| smoothed landmarks | {measured['smoothed']:.2f} |" in resting_report(measured)
    assert measured["detected"] == pytest.approx(resting_flicker(networks, [avatar], [points])["detected"])

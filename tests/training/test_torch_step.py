"""The step in PyTorch that the benchmarks time ours against does the same thing: losses, weights, averages, rows of W."""

from typing import Any

import numpy as np
import pytest
from tiny_runs import VIDEOS, networks, optimizers

pytestmark = pytest.mark.oracle
EPISODES, SOURCES, RATE = 4, 3, 1e-3


@pytest.fixture
def step(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Our step of tiny networks with both frozen networks and Adam at `RATE`."""
    from benchmarks import compiled_step
    from th_jax.perceptual import vgg

    monkeypatch.setattr(vgg, "CHANNELS", (4, 6, 8, 8, 8))
    monkeypatch.setattr(compiled_step, "Optimizers", lambda: optimizers("adam"))
    return compiled_step.CompiledStep(networks(), episodes=EPISODES, sources=SOURCES, videos=VIDEOS)


def test_equal_to_ours(step: Any) -> None:
    """Three steps: the second and third see what the updates of both players and of W left, and the vectors u and v."""
    from benchmarks.compiled_step import random_batch
    from benchmarks.networks import to_torch
    from benchmarks.torch_meta_step import DISCRIMINATOR, TorchMetaStep, torch_batch
    from tests.golden.torch_layers import to_torch_layout
    from th_jax.losses import LossWeights
    from th_jax.models.networks import SYNTHESIS

    theirs = TorchMetaStep(step.state, step.perceptual, loss_weights=LossWeights(), optimizers=optimizers("adam"))
    for seed in range(3):
        batch = random_batch(
            step.batch, seed=seed
        )  # always of the same videos: PyTorch's sparse Adam lets no other decay
        losses = theirs(torch_batch(networks(), batch))
        step.advance(batch)
        assert len(losses) == 9
        for name, value in losses.items():
            np.testing.assert_allclose(float(step.metrics[name]), float(value), rtol=1e-4, atol=1e-4, err_msg=name)

    # Adam turns a gradient's rounding into a step where the gradient is nearly zero, but never into a whole one.
    averages = iter(theirs.averaged)
    weights, averaged = step.state.weights, step.state.averaged.params
    for name, tree in {**weights.synthesis.params, DISCRIMINATOR: weights.discriminator.params}.items():
        for path, value in to_torch_layout(to_torch(tree)).items():
            assert float((value - theirs.params[name][path].detach()).abs().max()) < 0.2 * RATE, f"{name}/{path}"
    for name in SYNTHESIS:
        ours = to_torch_layout(to_torch(averaged[name]))
        for path in theirs.params[name]:
            assert float((ours[path] - next(averages)).abs().max()) < 0.2 * RATE, f"average of {name}/{path}"
    np.testing.assert_allclose(theirs.rows.detach().numpy(), step.state.table.rows, rtol=0, atol=0.2 * RATE)

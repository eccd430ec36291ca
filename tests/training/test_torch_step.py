"""The step in PyTorch that the benchmarks time ours against does the same thing: losses, weights, averages, rows of W."""

from typing import Any

import numpy as np
import pytest
from tiny_runs import VIDEOS, networks, optimizers

pytestmark = pytest.mark.oracle
EPISODES, SOURCES, RATE = 4, 3, 1e-3


@pytest.fixture
def step(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Our step of tiny networks with both frozen networks, compiled."""
    from benchmarks import compiled_step
    from th_jax.perceptual import vgg

    monkeypatch.setattr(vgg, "CHANNELS", (4, 6, 8, 8, 8))
    monkeypatch.setattr(compiled_step, "Optimizers", lambda: optimizers("adam"))
    return compiled_step.CompiledStep(networks(), episodes=EPISODES, sources=SOURCES, videos=VIDEOS)


def test_equal_to_ours(step: Any) -> None:
    """Three steps: the second and third see what the updates of both players and of W left, and the vectors u and v."""
    from benchmarks.compiled_step import random_batch
    from benchmarks.networks import to_torch
    from benchmarks.torch_meta_step import TorchMetaStep, torch_batch
    from tests.golden.torch_layers import to_torch_layout
    from th_jax.losses import LossWeights

    theirs = TorchMetaStep(step.state, step.perceptual, loss_weights=LossWeights(), optimizers=optimizers("adam"))
    for seed in range(3):
        batch = random_batch(step.batch, seed=seed)  # always of the same videos: PyTorch's sparse Adam lets no others decay
        losses = theirs(torch_batch(networks(), batch))
        step.advance(batch)
        assert len(losses) == 9
        for name, value in losses.items():
            np.testing.assert_allclose(float(step.metrics[name]), float(value), rtol=1e-4, atol=1e-5, err_msg=name)

    ours = {**step.state.weights.synthesis.params, "discriminator": step.state.weights.discriminator.params}
    for name, tree in ours.items():
        for path, value in to_torch_layout(to_torch(tree)).items():
            difference = float((value - theirs.params[name][path]).abs().max())
            print(name, path, difference)
    rows = theirs.rows.detach().numpy()
    print(np.abs(rows - np.asarray(step.state.table.rows)).max())
    assert 0

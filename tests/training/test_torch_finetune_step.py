"""The fine-tuning step in PyTorch that the benchmarks time ours against does the same thing: losses, ψ', ψ, w' and θ."""

from typing import Any

import jax
import numpy as np
import pytest
from tiny_runs import networks, optimizers

pytestmark = pytest.mark.oracle
RATE = 1e-3


@pytest.fixture
def ours(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Our chunk of one step of tiny networks with both frozen networks and Adam at `RATE`."""
    from benchmarks import finetune_step
    from th_jax.perceptual import vgg

    monkeypatch.setattr(vgg, "CHANNELS", (4, 6, 8, 8, 8))
    monkeypatch.setattr(finetune_step, "Optimizers", lambda: optimizers("adam"))
    return finetune_step.CompiledChunk(networks(), shots=3, steps=1)


def test_equal_to_ours(ours: Any) -> None:
    """Three steps: the second and third see what the updates of both players left, and the vectors u and v."""
    from benchmarks.networks import to_torch
    from benchmarks.torch_finetune_step import TorchFinetuneStep
    from tests.golden.torch_layers import to_torch_layout
    from th_jax.losses import LossWeights

    theirs = TorchFinetuneStep(
        networks(), ours.state, ours.perceptual, ours.shots, loss_weights=LossWeights(), optimizers=optimizers("adam")
    )
    for _ in range(3):
        losses = theirs()
        ours.state, metrics = ours._program(ours.state, ours.perceptual, ours.shots, ours._end)
        assert len(losses) == 7
        # Sums of scores that cancel: rounding is relative to the scores, not to what is left of them.
        atol = 1e-4 + 1e-5 * abs(float(losses["score/real"]))
        for name, value in losses.items():
            np.testing.assert_allclose(float(metrics[name][0]), float(value), rtol=1e-4, atol=atol, err_msg=name)
    # Adam turns the rounding of a gradient of zero into a step: of biases before a normalization, which have no effect.
    state = jax.device_get(ours.state)
    np.testing.assert_allclose(theirs.adain.detach().numpy(), state.adain, rtol=0, atol=0.3 * RATE)
    players = (
        (state.generator, theirs.generator, theirs._synthesis_adam),
        (state.discriminator, theirs.discriminator, theirs._discriminator_adam),
    )
    for mine, own, adam in players:
        squares = {path: adam.state[parameter]["exp_avg_sq"] for path, parameter in own.items()}
        greatest = max(float(square.max()) for square in squares.values())
        compared = 0
        for path, value in to_torch_layout(to_torch(mine.params)).items():
            difference, certain = (value - own[path].detach()).abs(), squares[path] > 1e-12 * greatest
            assert float((difference * certain).max()) < 0.3 * RATE, path
            compared += int(certain.sum())
        assert compared > 0.9 * sum(parameter.numel() for parameter in own.values())

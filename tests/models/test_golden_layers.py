"""Every layer and block against golden arrays from an independent PyTorch implementation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.golden.compare import assert_golden
from th_jax.models import layers
from th_jax.models.layers import AdaptiveResidualBlock, DownBlock, ResidualBlock, UpBlock
from th_jax.models.spectral import normalized_kernel, power_iterate


def apply(module, params, stats, *arguments):
    return {"x": module.apply({"params": params, "spectral_stats": stats}, *arguments)}


@pytest.mark.parametrize("case", ["spectral_norm_convolution", "spectral_norm_dense", "spectral_norm_zero"])
def test_spectral_norm_over_three_updates(case: str) -> None:
    def run(params, stats, inputs):
        vectors = {"u": inputs["u"], "v": inputs["v"]}
        outputs = {}
        for update in range(3):
            kernel = inputs[f"kernel_{update}"]
            vectors = power_iterate({"kernel": kernel}, vectors)
            outputs[f"u_{update}"], outputs[f"v_{update}"] = vectors["u"], vectors["v"]
            outputs[f"sigma_{update}"] = vectors["v"] @ kernel.reshape(-1, kernel.shape[-1]) @ vectors["u"]
            outputs[f"divided_{update}"] = normalized_kernel(kernel, vectors["u"], vectors["v"])
        return outputs

    assert_golden("layers", case, run)


def test_instance_norm() -> None:
    def run(params, stats, inputs):
        return {"x": layers.InstanceNorm().apply({"params": params["norm"]}, inputs["x"])}

    assert_golden("layers", "instance_norm", run)


def test_adaptive_instance_norm() -> None:
    def run(params, stats, inputs):
        return {"x": layers.adaptive_instance_norm(inputs["x"], inputs["scale"], inputs["shift"])}

    assert_golden("layers", "adaptive_instance_norm", run)


def test_attention() -> None:
    assert_golden("layers", "attention", lambda p, s, i: apply(layers.SelfAttention(), p, s, i["x"]))


@pytest.mark.parametrize("pool", ["sum", "mean"])
@pytest.mark.parametrize("pool_order", ["sum_relu", "relu_sum"])
def test_global_pool(pool: str, pool_order: str) -> None:
    def run(params, stats, inputs):
        return {"x": layers.global_pool(inputs["x"], pool=pool, pool_order=pool_order)}

    assert_golden("layers", f"global_pool_{pool}_{pool_order}", run)


@pytest.mark.parametrize(
    ("case", "module"),
    [
        ("down_first", DownBlock(8, first=True)),
        ("down", DownBlock(8)),
        ("down_norm", DownBlock(8, normalize=True)),
        ("residual", ResidualBlock()),
    ],
)
def test_plain_blocks(case: str, module) -> None:
    assert_golden("blocks", case, lambda p, s, i: apply(module, p, s, i["x"]))


@pytest.mark.parametrize(("case", "module"), [("residual_adain", AdaptiveResidualBlock()), ("up", UpBlock(8))])
def test_adaptive_blocks(case: str, module) -> None:
    def run(params, stats, inputs):
        norms = [
            lambda x, n=n: layers.adaptive_instance_norm(x, inputs[f"scale_{n}"], inputs[f"shift_{n}"])
            for n in range(2)
        ]
        return apply(module, params, stats, inputs["x"], *norms)

    assert_golden("blocks", case, run)


def test_a_zero_kernel_passes_zeros_and_a_finite_gradient() -> None:
    kernel = jnp.zeros((3, 3, 2, 4))
    stats = power_iterate({"kernel": kernel}, {"u": jnp.full(4, 0.5), "v": jnp.full(18, 18**-0.5)})
    divided, pull = jax.vjp(lambda k: normalized_kernel(k, stats["u"], stats["v"]), kernel)
    assert not np.any(divided)
    assert np.isfinite(np.asarray(pull(jnp.ones_like(divided))[0])).all()

"""What every test runs under: one CPU backend, exact products, ranks that must match."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import jax
import numpy as np
import pytest

jax.config.update("jax_default_matmul_precision", "highest")
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def small_vgg16(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, np.ndarray]]:
    """Layers of VGG16 with a few channels, blue first, so that files stay small."""
    from th_jax.perceptual import vgg  # here: imported with this file, it would escape the check of shapes

    monkeypatch.setattr(vgg, "CHANNELS", (2, 3, 4, 5, 6))
    rng = np.random.default_rng(0)
    return {
        name: {
            "kernel": rng.normal(size=shape).astype(np.float32),
            "bias": rng.normal(size=shape[-1:]).astype(np.float32),
        }
        for name, shape in vgg.layer_shapes("vgg16").items()
    }

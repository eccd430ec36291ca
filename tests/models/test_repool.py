"""Mean instead of sum pooling: embeddings a sixteenth as large, AdaIN parameters the same."""

import jax
import numpy as np
import pytest

from th_jax.models.networks import Networks, group
from th_jax.weights import with_mean_pooling


@pytest.mark.parametrize("spectral", [True, False])
def test_adain_parameters_stay(spectral: bool) -> None:
    networks = Networks(image_size=16, base_width=4, projection_spectral_norm=spectral)
    weights = networks.init(jax.random.key(0))
    repooled, means = with_mean_pooling(networks, weights)
    frame, landmarks = jax.random.uniform(jax.random.key(1), (2, 3, 16, 16, 3), minval=-1.0)
    before = networks.embed(group(weights.synthesis, "embedder"), frame, landmarks)
    after = repooled.embed(group(means.synthesis, "embedder"), frame, landmarks)
    np.testing.assert_allclose(after, before / 16, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        repooled.project(group(means.synthesis, "projection"), after),
        networks.project(group(weights.synthesis, "projection"), before),
        rtol=1e-4,
        atol=1e-5,
    )
    assert not np.any(means.discriminator.params["shared"])
    assert jax.tree.structure(means) == jax.tree.structure(repooled.shapes())


def test_means_stay_means() -> None:
    networks = Networks(image_size=16, base_width=4, pool="mean")
    with pytest.raises(ValueError, match="already use mean pooling"):
        with_mean_pooling(networks, networks.init(jax.random.key(0)))

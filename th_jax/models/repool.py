"""The same E, P and G with embeddings that are means instead of sums: for an adversary whose scores keep a small scale."""

from dataclasses import replace

import jax.numpy as jnp

from th_jax.models.networks import Networks
from th_jax.models.spectral import normalized_kernel
from th_jax.types import MetaWeights, NetworkState

POSITIONS = 16
"""Of the last feature map of E and D, which is 4x4 at every size."""


def with_mean_pooling(networks: Networks, weights: MetaWeights) -> tuple[Networks, MetaWeights]:
    """Networks whose ê is 16 times smaller, and a P without spectral norm that is 16 times larger: P·ê stays what it was.

    With sums, ê and D's V are so long that the first scores are in the hundreds and the hinge is saturated
    (docs/learning.md). D pools by mean too, which shrinks its scores by 256; w0 becomes zero. It is meant for weights
    whose discriminator is yet to be trained.

    Raises:
        ValueError: if they pool by mean already.
    """
    if networks.pool == "mean":
        raise ValueError("these networks pool by mean already")
    synthesis, discriminator = weights
    dense = dict(synthesis.params["projection"]["dense"])
    kernel = dense["kernel"]
    if networks.projection_spectral_norm:
        stats = synthesis.spectral_stats["projection"]["dense"]
        kernel = normalized_kernel(kernel, stats["u"], stats["v"])
    dense["kernel"] = POSITIONS * kernel
    params = {**synthesis.params, "projection": {"dense": dense}}
    spectral_stats = {**synthesis.spectral_stats, "projection": {}}
    judge = {**discriminator.params, "shared": jnp.zeros_like(discriminator.params["shared"])}
    return (
        replace(networks, pool="mean", projection_spectral_norm=False),
        MetaWeights(NetworkState(params, spectral_stats), NetworkState(judge, discriminator.spectral_stats)),
    )

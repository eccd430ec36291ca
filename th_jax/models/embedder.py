"""The embedder E: a frame and its landmark image to an identity embedding that pose does not move (paper, section 3.1)."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jaxtyping import Float

from th_jax.models.blocks import DownBlock
from th_jax.models.layers import SelfAttention, global_pool
from th_jax.models.plan import plan


class Embedder(nn.Module):
    """E(x, y): residual down blocks to 4x4 with self-attention on the way, no normalisation, global pooling, ReLU."""

    image_size: int = 256
    base_width: int = 64
    pool: str = "sum"
    pool_order: str = "sum_relu"
    spectral_norm: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, frame: Float[Array, "B H W 3"], landmark_image: Float[Array, "B H W 3"]) -> Float[Array, "B N"]:
        """One embedding a frame, in float32; both pictures in [-1, 1]. The mean over K frames is ê (paper, section 3.2)."""
        layout = plan(image_size=self.image_size, base_width=self.base_width)
        h = jnp.concatenate([frame, landmark_image], axis=-1)
        for level, features in enumerate(layout.encoder):
            h = DownBlock(
                features,
                first=level == 0,
                spectral_norm=self.spectral_norm,
                dtype=self.dtype,
                name=f"down_{level}",
            )(h)
            if h.shape[1] == layout.encoder_attention:
                h = SelfAttention(spectral_norm=self.spectral_norm, dtype=self.dtype, name="attention")(h)
        return global_pool(h, pool=self.pool, pool_order=self.pool_order)

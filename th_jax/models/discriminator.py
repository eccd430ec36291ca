"""The discriminator D: how real a frame is, how well it fits its landmarks and its person (paper, sections 3.1 and 3.2)."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jaxtyping import Float

from th_jax.models import starts
from th_jax.models.blocks import DownBlock, ResidualBlock
from th_jax.models.layers import SelfAttention, global_pool
from th_jax.models.plan import plan


class Discriminator(nn.Module):
    """D(x, y, i) = V(x, y)ᵀ (W_i + w0) + b, with the row W_i as an argument: zero for a fine-tuned person."""

    image_size: int = 256
    base_width: int = 64
    pool: str = "sum"
    pool_order: str = "sum_relu"
    spectral_norm: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        frame: Float[Array, "B H W 3"],
        landmark_image: Float[Array, "B H W 3"],
        identity: Float[Array, "B N"],
    ) -> tuple[Float[Array, " B"], tuple[Float[Array, "B _ _ _"], ...]]:
        """Realism scores in float32, and the output of each residual block for feature matching.

        Args:
            frame: in [-1, 1].
            landmark_image: in [-1, 1].
            identity: W_i, the video's row of the table; zeros once w0 holds the person (paper, section 3.3).
        """
        layout = plan(image_size=self.image_size, base_width=self.base_width)
        settings = {"spectral_norm": self.spectral_norm, "dtype": self.dtype}
        features = []
        h = jnp.concatenate([frame, landmark_image], axis=-1)
        for level, channels in enumerate(layout.encoder):
            h = DownBlock(channels, first=level == 0, name=f"down_{level}", **settings)(h)
            features.append(h)
            if h.shape[1] == layout.encoder_attention:
                h = SelfAttention(name="attention", **settings)(h)
        h = ResidualBlock(name="residual", **settings)(h)
        features.append(h)
        pooled = global_pool(h, pool=self.pool, pool_order=self.pool_order)
        shared = self.param("shared", starts.SHARED, (layout.embedding,))
        bias = self.param("bias", starts.BIAS, ())
        score = jnp.sum(pooled * (identity.astype(jnp.float32) + shared[None, :]), axis=-1) + bias
        return score, tuple(features)

"""Embedder, generator, AdaIN projection, discriminator and the losses in plain PyTorch.

Written from the published description alone, as the other side of every comparison: golden arrays and benchmarks.
Images go in and out as [B H W 3] with values in [-1, 1]. `weights` are parameters in torch's layout whose kernels are
already divided: `divide_by_sigma(to_torch_layout(parameters), stats)`.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from tests.golden.network_shapes import DEPTHS, RESIDUAL_BLOCKS, adain_widths
from tests.golden.torch_layers import (
    Parameters,
    adaptive_instance_norm,
    adaptive_residual_block,
    attention,
    channels_first,
    convolution,
    down_block,
    plain_residual_block,
    up_block,
)

Image = Float[Tensor, "B H W 3"]


def trunk(weights: Parameters, frame: Image, landmark_image: Image) -> tuple[Tensor, list[Tensor]]:
    """The down blocks of E and D with their attention: the last activation and every block's own output."""
    depths = DEPTHS[frame.shape[1]]
    x = channels_first(torch.cat([frame, landmark_image], dim=-1))
    features = []
    for block in range(depths.trunk_blocks):
        x = down_block(weights, f"down_{block}", x, first=block == 0)
        features.append(x)
        if x.shape[2] == depths.trunk_attention:
            x = attention(weights, "attention", x)
    return x, features


def global_pool(x: Float[Tensor, "B C H W"], *, pool: str, pool_order: str) -> Float[Tensor, "B C"]:
    """Sum or mean over all positions, and ReLU after ("sum_relu", the paper) or before it ("relu_sum")."""
    reduce = {"sum": torch.sum, "mean": torch.mean}[pool]
    if pool_order == "sum_relu":
        return F.relu(reduce(x, dim=(2, 3)))
    if pool_order == "relu_sum":
        return reduce(F.relu(x), dim=(2, 3))
    raise ValueError(f"pool_order must be 'sum_relu' or 'relu_sum', not {pool_order!r}")


def embedder(
    weights: Parameters, frame: Image, landmark_image: Image, *, pool: str = "sum", pool_order: str = "sum_relu"
) -> Float[Tensor, "B N"]:
    """E: the identity embedding of one frame and its landmark image."""
    x, _ = trunk(weights, frame, landmark_image)
    return global_pool(x, pool=pool, pool_order=pool_order)


def adain_projection(weights: Parameters, embedding: Float[Tensor, "B N"]) -> Float[Tensor, "B A"]:
    """P: the AdaIN parameters of an identity embedding."""
    return F.linear(embedding, weights["dense/kernel"], weights["dense/bias"])


def generator(weights: Parameters, landmark_image: Image, adain: Float[Tensor, "B A"]) -> Image:
    """G: the frame of these landmarks, with the identity that the AdaIN parameters hold."""
    image_size = landmark_image.shape[1]
    depths = DEPTHS[image_size]
    widths = adain_widths(image_size, weights["to_rgb/kernel"].shape[1])
    parts = iter(adain.split([width for width in widths for _ in ("scale", "shift")], dim=1))
    norms = list(zip(parts, parts, strict=True))
    pairs = iter(zip(norms[0:-1:2], norms[1:-1:2], strict=True))

    x = channels_first(landmark_image)
    for block in range(depths.generator_blocks):
        x = down_block(weights, f"down_{block}", x, first=block == 0)
        if x.shape[2] == depths.trunk_attention:
            x = attention(weights, "attention_down", x)
    for block in range(RESIDUAL_BLOCKS):
        x = adaptive_residual_block(weights, f"residual_{block}", x, next(pairs))
    for block in range(depths.generator_blocks):
        x = up_block(weights, f"up_{block}", x, next(pairs))
        if x.shape[2] == depths.up_attention:
            x = attention(weights, "attention_up", x)
    x = F.relu(adaptive_instance_norm(x, *norms[-1]))
    return torch.tanh(convolution(weights, "to_rgb", x)).permute(0, 2, 3, 1)


def discriminator(
    weights: Parameters,
    frame: Image,
    landmark_image: Image,
    identity: Float[Tensor, "B N"],
    *,
    pool: str = "sum",
    pool_order: str = "sum_relu",
) -> tuple[Float[Tensor, " B"], list[Float[Tensor, "B h w c"]]]:
    """D: the realism score r = V^T (W_i + w0) + b, and the output of each of its blocks."""
    x, features = trunk(weights, frame, landmark_image)
    x = plain_residual_block(weights, "residual", x)
    pooled = global_pool(x, pool=pool, pool_order=pool_order)
    score = (pooled * (identity + weights["shared"])).sum(dim=1) + weights["bias"]
    return score, [feature.permute(0, 2, 3, 1) for feature in [*features, x]]


def mean_distance(first: Tensor, second: Tensor) -> Float[Tensor, ""]:
    """L1: the mean over everything."""
    return (first - second).abs().mean()


def content_loss(
    generated: Mapping[str, Sequence[Tensor]], real: Mapping[str, Sequence[Tensor]], weights: Mapping[str, float]
) -> Float[Tensor, ""]:
    """L_CNT: for each frozen network its weight times the L1 of its layers, summed over layers and networks."""
    total = torch.zeros(())
    for network, weight in weights.items():
        for a, b in zip(generated[network], real[network], strict=True):
            total = total + weight * mean_distance(a, b)
    return total


def discriminator_loss(real_score: Float[Tensor, " B"], fake_score: Float[Tensor, " B"]) -> Float[Tensor, ""]:
    """The hinge: max(0, 1 + D(fake)) + max(0, 1 - D(real))."""
    return F.relu(1 + fake_score).mean() + F.relu(1 - real_score).mean()


def adversarial_loss(fake_score: Float[Tensor, " B"]) -> Float[Tensor, ""]:
    """The generator's side of the game: -D(fake)."""
    return -fake_score.mean()


def feature_matching_loss(fake: Sequence[Tensor], real: Sequence[Tensor]) -> Float[Tensor, ""]:
    """L_FM without its weight: L1 after each block, mean over blocks; the real side has no gradient."""
    distances = [mean_distance(a, b.detach()) for a, b in zip(fake, real, strict=True)]
    return torch.stack(distances).mean()


def matching_loss(embedding: Float[Tensor, "B N"], video_vector: Float[Tensor, "B N"]) -> Float[Tensor, ""]:
    """L_MCH without its weight: L1 between the identity embedding and the video's row of W."""
    return mean_distance(embedding, video_vector)

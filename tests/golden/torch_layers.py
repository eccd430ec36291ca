"""Layers and residual blocks of the paper's networks in plain PyTorch, written from the published description alone.

Parameters are a flat dict from path to tensor in torch's own layout (see `to_torch_layout`), so that a forward pass
copies no kernel. Spectral norm is a function from one such dict to another: layers see kernels already divided.
Inside the blocks images are [B C H W] in channels-last memory.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Parameters = dict[str, Tensor]
SPECTRAL_EPSILON = 1e-4
NORM_EPSILON = 1e-4


def to_torch_layout(parameters: Parameters) -> Parameters:
    """Kernels (h, w, in, out) to (out, in, h, w) in channels-last memory, (in, out) to (out, in); differentiable."""
    converted = dict(parameters)
    for path, value in parameters.items():
        if path.endswith("/kernel") and value.ndim == 4:
            converted[path] = value.permute(3, 2, 0, 1).contiguous(memory_format=torch.channels_last)
        elif path.endswith("/kernel"):
            converted[path] = value.T.contiguous()
    return converted


def kernel_rows(kernel: Float[Tensor, "out ..."]) -> Float[Tensor, "out rest"]:
    """A kernel in torch's layout as the matrix of its outputs by (height, width, in)."""
    return kernel.permute(0, 2, 3, 1).reshape(len(kernel), -1) if kernel.ndim == 4 else kernel


def normalise(vector: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """The vector at length 1, or shorter if it was nearly zero."""
    return vector / vector.norm().clamp(min=SPECTRAL_EPSILON)


@torch.no_grad()
def power_iteration(parameters: Parameters, stats: Parameters) -> Parameters:
    """One power iteration for every kernel: the `u` and `v` that the next forward passes shall use."""
    updated: Parameters = {}
    for path, kernel in parameters.items():
        if path.endswith("/kernel"):
            layer = path.removesuffix("/kernel")
            rows = kernel_rows(kernel)
            updated[f"{layer}/v"] = v = normalise(stats[f"{layer}/u"] @ rows)
            updated[f"{layer}/u"] = normalise(rows @ v)
    return updated


def divide_by_sigma(parameters: Parameters, stats: Parameters) -> Parameters:
    """The parameters with every kernel divided by its spectral norm; gradients pass through sigma, not through u, v."""
    divided = dict(parameters)
    for path, kernel in parameters.items():
        if path.endswith("/kernel"):
            layer = path.removesuffix("/kernel")
            sigma = stats[f"{layer}/u"] @ (kernel_rows(kernel) @ stats[f"{layer}/v"])
            divided[path] = kernel / sigma.clamp(min=SPECTRAL_EPSILON)
    return divided


def channels_first(image: Float[Tensor, "B H W C"]) -> Float[Tensor, "B C H W"]:
    """The same memory seen in torch's order of axes."""
    return image.permute(0, 3, 1, 2)


def convolution(weights: Parameters, path: str, x: Float[Tensor, "B in H W"]) -> Float[Tensor, "B out H W"]:
    """A 3x3 or 1x1 convolution that keeps the size, with a bias if the layer has one."""
    kernel = weights[f"{path}/kernel"]
    return F.conv2d(x, kernel, weights.get(f"{path}/bias"), padding=kernel.shape[-1] // 2)


def instance_norm(
    x: Float[Tensor, "B C H W"], scale: Float[Tensor, " C"] | None = None, bias: Float[Tensor, " C"] | None = None
) -> Float[Tensor, "B C H W"]:
    """Each channel of each image at mean 0 and variance 1 over its positions, then scaled and shifted."""
    # A group norm with groups of one channel is the same thing, and the one that keeps channels-last memory on a CPU.
    return F.group_norm(x, x.shape[1], scale, bias, eps=NORM_EPSILON)


def adaptive_instance_norm(
    x: Float[Tensor, "B C H W"], scale: Float[Tensor, "B C"], shift: Float[Tensor, "B C"]
) -> Float[Tensor, "B C H W"]:
    """Instance norm with a scale and a shift of its own for each image."""
    return torch.addcmul(shift[:, :, None, None], instance_norm(x), scale[:, :, None, None])


def average_pool(x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H//2 W//2"]:
    """Means of 2x2 squares."""
    return F.avg_pool2d(x, 2)


def upsample(x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C 2*H 2*W"]:
    """Every pixel twice in both directions."""
    return F.interpolate(x, scale_factor=2, mode="nearest")


def attention(weights: Parameters, path: str, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
    """Self-attention over all positions, with keys and values at half the resolution, added at strength gamma."""

    def positions(h: Tensor) -> Tensor:
        return h.permute(0, 2, 3, 1).flatten(1, 2)

    query = positions(convolution(weights, f"{path}/query", x))
    key = positions(F.max_pool2d(convolution(weights, f"{path}/key", x), 2))
    value = positions(F.max_pool2d(convolution(weights, f"{path}/value", x), 2))
    attended = torch.softmax(query @ key.mT, dim=-1) @ value
    attended = attended.unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)
    return torch.addcmul(x, weights[f"{path}/gamma"], convolution(weights, f"{path}/out", attended))


def down_block(
    weights: Parameters, path: str, x: Float[Tensor, "B in H W"], *, first: bool
) -> Float[Tensor, "B out H//2 W//2"]:
    """Half the size: [norm], ReLU, convolution, twice; the first block of a network starts with its convolution."""

    def norm(name: str, h: Tensor) -> Tensor:
        scale = weights.get(f"{path}/{name}/scale")
        return h if scale is None else instance_norm(h, scale, weights[f"{path}/{name}/bias"])

    h = x if first else F.relu(norm("norm_0", x))
    h = F.relu(norm("norm_1", convolution(weights, f"{path}/conv_0", h)))
    h = average_pool(convolution(weights, f"{path}/conv_1", h))
    # A 1x1 convolution and an average over squares commute: the smaller image goes through the convolution.
    return h + convolution(weights, f"{path}/skip", average_pool(x))


def plain_residual_block(weights: Parameters, path: str, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
    """D's block at the lowest resolution: ReLU, convolution, twice, added to the input."""
    h = convolution(weights, f"{path}/conv_0", F.relu(x))
    return x + convolution(weights, f"{path}/conv_1", F.relu(h))


AdainPair = tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]


def adaptive_residual_block(
    weights: Parameters, path: str, x: Float[Tensor, "B C H W"], adain: AdainPair
) -> Float[Tensor, "B C H W"]:
    """G's block in the middle: AdaIN, ReLU, convolution, twice, added to the input."""
    h = convolution(weights, f"{path}/conv_0", F.relu(adaptive_instance_norm(x, *adain[0])))
    return x + convolution(weights, f"{path}/conv_1", F.relu(adaptive_instance_norm(h, *adain[1])))


def up_block(
    weights: Parameters, path: str, x: Float[Tensor, "B in H W"], adain: AdainPair
) -> Float[Tensor, "B out 2*H 2*W"]:
    """Twice the size: AdaIN, ReLU, upsampling, convolution, AdaIN, ReLU, convolution."""
    h = convolution(weights, f"{path}/conv_0", upsample(F.relu(adaptive_instance_norm(x, *adain[0]))))
    h = convolution(weights, f"{path}/conv_1", F.relu(adaptive_instance_norm(h, *adain[1])))
    # A 1x1 convolution and nearest upsampling commute, as above.
    return h + upsample(convolution(weights, f"{path}/skip", x))

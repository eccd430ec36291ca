"""Feature pyramids of VGG16 and VGG19 (relu1_1 to relu5_1, at Caffe scale) in plain PyTorch."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from tests.golden.network_shapes import Shapes, convolution_shapes
from tests.golden.torch_layers import Parameters, channels_first, convolution

# Convolutions in each of the first four blocks; of the fifth only the first is ever used.
CONVOLUTIONS = {"vgg16": (2, 2, 3, 3), "vgg19": (2, 2, 4, 4)}
FULL_CHANNELS = (64, 128, 256, 512, 512)
IMAGENET_MEAN_BGR = (103.939, 116.779, 123.68)
VGGFACE_MEAN_BGR = (93.594, 104.762, 129.186)


def pyramid_shapes(network: str, channels: tuple[int, ...] = FULL_CHANNELS) -> Shapes:
    """Names and JAX shapes of the weights that a pyramid needs, `block{n}_conv{m}/{kernel,bias}`, n and m from 1."""
    shapes: Shapes = {}
    channels_in = 3
    for block, (convolutions, width) in enumerate(zip((*CONVOLUTIONS[network], 1), channels, strict=True), start=1):
        for index in range(1, convolutions + 1):
            shapes |= convolution_shapes(f"block{block}_conv{index}", 3, channels_in, width, bias=True)
            channels_in = width
    return shapes


def pyramid(
    weights: Parameters, frame: Float[Tensor, "B H W 3"], *, network: str, mean_bgr: tuple[float, float, float]
) -> list[Float[Tensor, "B h w c"]]:
    """The activations after the first ReLU of each block for RGB frames in [-1, 1]; weights in torch's layout."""
    caffe = (frame.flip(-1) + 1) * 127.5 - torch.tensor(mean_bgr, dtype=frame.dtype)
    x = channels_first(caffe)
    features = []
    for block, convolutions in enumerate((*CONVOLUTIONS[network], 1), start=1):
        for index in range(1, convolutions + 1):
            x = F.relu(convolution(weights, f"block{block}_conv{index}", x))
            if index == 1:
                features.append(x.permute(0, 2, 3, 1))
        if block < 5:
            x = F.max_pool2d(x, 2)
    return features

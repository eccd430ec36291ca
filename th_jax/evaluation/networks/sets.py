"""How far a set of generated frames lies from the real ones in the features of a network: Fréchet distance and KID, named."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array
from jaxtyping import Float, UInt8

from th_jax.evaluation import metrics
from th_jax.evaluation.chunks import in_chunks
from th_jax.evaluation.networks.network_file import load_network
from th_jax.evaluation.networks.network_input import NetworkFileError, NetworkInput
from th_jax.images import to_network_range
from th_jax.perceptual.vgg import VggWeights, feature_pyramid
from th_jax.perceptual.weights import load_perceptual
from th_jax.tensor_file import tensors_digest

VGG16 = "vgg16"
INCEPTION = "inception"
INCEPTION_WIDTH = 2048
VGG16_SCALE = 100.0
"""VGG16's features at Caffe scale are divided by this: their mean square then is about 0.5, as Inception's is, for which the
kernel of KID was chosen."""
INCEPTION_INPUT = NetworkInput(299)
"""Of the original: RGB in [-1, 1] at 299 px."""


class SetNetwork(NamedTuple):
    """A network whose features two sets of frames are compared by."""

    name: str
    features: Callable[[UInt8[np.ndarray, "N H W 3"]], Float[np.ndarray, "N D"]]
    width: int
    about: dict[str, Any]
    """What the numbers depend on, JSON values; "sha256" is of the weights."""

    @property
    def frechet(self) -> str:
        """The Fréchet distance's name: "FID" is that of the original Inception alone."""
        return "FID" if self.name == INCEPTION else f"Fréchet({self.name})"

    @property
    def kid(self) -> str:
        """The kernel distance's name."""
        return "KID" if self.name == INCEPTION else f"KID({self.name})"


class SetDistance(NamedTuple):
    """One number over a whole set of frames; it has no interval.

    People drawn anew come more than once, which makes a set look narrower than it is: a bootstrapped Fréchet distance lies
    above the one that it should surround.
    """

    value: float
    frames: int
    real_frames: int
    dimensions: int
    biased: bool
    """Whether the estimate lies too high for few frames, badly so with fewer frames than dimensions; KID's does not."""


def set_distances(
    network: SetNetwork, made: Float[np.ndarray, "N D"], real: Float[np.ndarray, "M D"]
) -> dict[str, SetDistance]:
    """Fréchet distance and KID of two sets of features under their names; none for sets of fewer than two frames.

    KID is the unbiased estimate over all frames (the published one is the mean of such estimates over random subsets).

    Raises:
        ValueError: for features that are not finite.
    """
    if min(len(made), len(real)) < 2:
        return {}
    sizes = len(made), len(real), made.shape[1]
    return {
        network.frechet: SetDistance(metrics.frechet_distance(made, real), *sizes, biased=True),
        network.kid: SetDistance(metrics.polynomial_mmd(made, real), *sizes, biased=False),
    }


def vgg16_network() -> SetNetwork:
    """VGG16's relu5_1, the mean over positions, of frames at their own size: 512 numbers, divided by `VGG16_SCALE`.

    Raises:
        WeightsError: if weights were converted and are damaged (a ValueError).
    """
    weights = load_perceptual([VGG16])[VGG16]
    tensors = {f"{layer}/{part}": np.asarray(x) for layer, parts in weights.items() for part, x in parts.items()}

    def features(frames: UInt8[np.ndarray, "N H W 3"]) -> Float[np.ndarray, "N D"]:
        return in_chunks(functools.partial(_pooled, weights), (frames,))

    width = int(weights["block5_conv1"]["bias"].shape[0])
    what = f"relu5_1, mean over positions, / {VGG16_SCALE:g}"
    about = {"sha256": tensors_digest(tensors), "dimensions": width, "features": what}
    return SetNetwork(VGG16, features, width, about)


def set_network(name: str, path: Path) -> SetNetwork:
    """Any feature network from a file, with FILE.json beside it.

    Raises:
        NetworkFileError, ImportError: as `load_network`.
    """
    network = load_network(name, path)
    return SetNetwork(name, network.features, network.width, network.about)


def inception_network(path: Path, *, sha256: str) -> SetNetwork:
    """The Inception that FID is defined on, as the user vouches for it by the checksum of their export.

    Args:
        path: an ONNX export of pt_inception-2015-12-05 up to its last pooling: 2048 numbers a picture.
        sha256: of the export, hexadecimal. A checksum says that this is the file that was vouched for; where its weights come
            from, nobody but its maker can say.

    Raises:
        NetworkFileError, ImportError: as `load_network`; also if it does not give 2048 numbers.
    """
    network = load_network(INCEPTION, path, default=INCEPTION_INPUT, sha256=sha256)
    if network.width != INCEPTION_WIDTH:
        raise NetworkFileError(
            f"{path} gives {network.width} features, but the Inception of FID gives {INCEPTION_WIDTH}: "
            "another network is given by --features, and its distance is not called FID"
        )
    return SetNetwork(INCEPTION, network.features, network.width, network.about)


@jax.jit
def _pooled(weights: VggWeights, frames: Array) -> Array:
    return feature_pyramid(weights, to_network_range(frames), network=VGG16)[-1].mean((1, 2)) / VGG16_SCALE

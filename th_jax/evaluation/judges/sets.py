"""Distances between sets of generated and real frames in a network's features: Fréchet distance and KID, by name."""

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
from th_jax.evaluation.judges.network_file import load_network
from th_jax.evaluation.judges.network_input import NetworkFileError, NetworkInput
from th_jax.images import to_network_range
from th_jax.perceptual.frozen import load_perceptual
from th_jax.perceptual.vgg import VggWeights, feature_pyramid
from th_jax.storage.tensors import tensors_digest

VGG16 = "vgg16"
INCEPTION = "inception"
INCEPTION_WIDTH = 2048
VGG16_SCALE = 100.0
"""VGG16's features at Caffe scale are divided by this. Their mean square is then about 0.5, like that of Inception, for
which the kernel of KID was chosen."""
INCEPTION_INPUT = NetworkInput(299)
"""Input of the original Inception: RGB in [-1, 1] at 299 px."""


class SetNetwork(NamedTuple):
    """A network whose features are used to compare sets of frames."""

    name: str
    features: Callable[[UInt8[np.ndarray, "N H W 3"]], Float[np.ndarray, "N D"]]
    width: int
    about: dict[str, Any]
    """What the distances depend on, as JSON values; "sha256" is that of the weights."""

    @property
    def frechet(self) -> str:
        """Name of the Fréchet distance: "FID" only for the original Inception."""
        return "FID" if self.name == INCEPTION else f"Fréchet({self.name})"

    @property
    def kid(self) -> str:
        """Name of the kernel distance."""
        return "KID" if self.name == INCEPTION else f"KID({self.name})"


class SetDistance(NamedTuple):
    """A distance of a whole set of frames; it has no interval.

    Resampled people occur repeatedly, which makes a set look narrower than it is: a bootstrapped Fréchet distance lies
    above the one that its interval should contain.
    """

    value: float
    frames: int
    real_frames: int
    dimensions: int
    biased: bool
    """Whether the estimate is too high for few frames, especially for fewer frames than dimensions; KID is unbiased."""


def set_distances(
    network: SetNetwork, made: Float[np.ndarray, "N D"], real: Float[np.ndarray, "M D"]
) -> dict[str, SetDistance]:
    """Compute Fréchet distance and KID of two sets of features, by name; empty for sets of fewer than two frames.

    KID is the unbiased estimate over all frames (the published one is the mean of such estimates over random subsets).

    Raises:
        ValueError: if features are not finite.
    """
    if min(len(made), len(real)) < 2:
        return {}
    sizes = len(made), len(real), made.shape[1]
    return {
        network.frechet: SetDistance(metrics.frechet_distance(made, real), *sizes, biased=True),
        network.kid: SetDistance(metrics.polynomial_mmd(made, real), *sizes, biased=False),
    }


def vgg16_network() -> SetNetwork:
    """Make a network from VGG16's relu5_1, averaged over positions, at the frames' own size: 512 features over `VGG16_SCALE`.

    Raises:
        WeightsError: a ValueError, if weights were converted and are damaged.
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
    """Load any feature network from a file, with FILE.json beside it.

    Raises:
        NetworkFileError, ImportError: as `load_network`.
    """
    network = load_network(name, path)
    return SetNetwork(name, network.features, network.width, network.about)


def inception_network(path: Path, *, sha256: str) -> SetNetwork:
    """Load the Inception on which FID is defined; the user vouches for it with the checksum of their export.

    Args:
        path: ONNX export of pt_inception-2015-12-05 up to its last pooling: 2048 features per image.
        sha256: SHA-256 digest of the export, in hexadecimal. The checksum identifies the file; only its author knows
            where the weights are from.

    Raises:
        NetworkFileError, ImportError: as `load_network`, or if the network does not return 2048 features.
    """
    network = load_network(INCEPTION, path, default=INCEPTION_INPUT, sha256=sha256)
    if network.width != INCEPTION_WIDTH:
        raise NetworkFileError(
            f"{path} returns {network.width} features, but the Inception network of FID returns {INCEPTION_WIDTH}: "
            "give another network with --features; its distance is not an FID"
        )
    return SetNetwork(INCEPTION, network.features, network.width, network.about)


@jax.jit
def _pooled(weights: VggWeights, frames: Array) -> Array:
    return feature_pyramid(weights, to_network_range(frames), network=VGG16)[-1].mean((1, 2)) / VGG16_SCALE

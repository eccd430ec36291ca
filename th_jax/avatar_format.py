"""The bytes of an avatar's file: tensors with a description and a checksum over both, written whole or not at all."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from th_jax.leaf_names import leaves_by_name
from th_jax.models.boundary import check_same_tree
from th_jax.models.networks import Networks, group
from th_jax.tensor_file import AlteredError, TensorFileError, read_described, write_described
from th_jax.tensor_file import read_description as read_file_description
from th_jax.types import Avatar

FORMAT = "th_jax.avatar/1"


class AvatarError(ValueError):
    """An avatar's file is missing, damaged, altered, or of other networks or weights; the message says which."""


def write_tensors(path: Path, tensors: Mapping[str, np.ndarray], description: Mapping[str, Any]) -> str:
    """Write the file, whole or not at all, and return the digest of the tensors.

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
    return write_described(path, tensors, text, file_format=FORMAT)


def read_tensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any], str]:
    """Tensors, description and digest of a file whose every byte is as it was written.

    Raises:
        AvatarError: if it is missing, truncated, altered, or of another format.
    """
    if not path.is_file():
        raise AvatarError(f"{path} is a folder, not an avatar" if path.is_dir() else f"there is no avatar at {path}")
    try:
        return read_described(path, file_format=FORMAT)
    except AlteredError as error:
        raise AvatarError(f"{error}; take another copy of it") from error
    except TensorFileError as error:
        raise AvatarError(str(error)) from error


def read_description(path: Path) -> dict[str, Any]:
    """What an avatar's file says of itself, without reading its tensors: to go through thousands of them.

    Raises:
        AvatarError: if it is missing, truncated, or of another format.
    """
    try:
        return read_file_description(path, file_format=FORMAT)
    except TensorFileError as error:
        raise AvatarError(str(error)) from error


def meta_reference(avatar: str | Path, description: Mapping[str, Any]) -> tuple[str, str] | None:
    """Name and digest of the meta weights that an avatar says it was made from; None if it says that there are none.

    Raises:
        AvatarError: if it says neither.
    """
    match description.get("meta", ...):
        case None:
            return None
        case {"name": str(name), "digest": str(digest)} if re.fullmatch(r"[0-9a-f]{64}", digest):
            return name, digest
    raise AvatarError(f"{avatar} does not name the meta weights that it needs or was made from: it was changed")


def named_leaves(avatar: Any) -> dict[str, np.ndarray]:
    """The arrays of an avatar, on the host, by their paths such as "generator_params/down_0/conv/kernel"."""
    return {name: np.asarray(leaf) for name, leaf in leaves_by_name(avatar).items()}


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
        check_same_tree(f"{networks}", leaves_by_name(avatar_shapes(networks)), named)
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
    leaves = [jnp.asarray(named[name], jnp.float32) for name in leaves_by_name(shapes)]
    avatar: Avatar = jax.tree.unflatten(jax.tree.structure(shapes), leaves)
    return avatar

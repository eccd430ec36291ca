"""Description of a checkpoint: versions, config, and the name, shape, dtype and fingerprint of every leaf.

A fingerprint is an exact integer that does not depend on how the leaf is sharded; a large leaf costs one pass on its devices,
and only four bytes are transferred. This module handles JSON and arrays only; `th_jax.storage.checkpoints` writes them to
disk.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from th_jax.storage.tensors import leaves_by_name
from th_jax.version import __version__

FORMAT = "th_jax.checkpoint"
SCHEMA = 1
"""Version of the description; readers reject any other version."""

_OWN_KEYS = ("format", "schema", "version", "step", "leaves", "sha256")
_SMALL = 2**20  # bytes
_WORDS = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint32}


class CheckpointError(ValueError):
    """A checkpoint is missing, damaged or belongs to another state; the message states which, and the remedy."""


def describe(step: int, leaves: Mapping[str, Array | np.ndarray], extra: Mapping[str, Any]) -> dict[str, Any]:
    """Build the description of a state, with its own checksum.

    Args:
        step: number of the step that produced the state.
        leaves: the state's leaves by name, from `named_leaves`.
        extra: JSON values to store with it, such as "config" and "video_list".

    Raises:
        CheckpointError: if `extra` is not JSON or uses a reserved name.
    """
    try:
        extra = json.loads(json.dumps(dict(extra), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"a checkpoint's description must be JSON values: {error}") from error
    if taken := sorted(set(extra) & set(_OWN_KEYS)):
        raise CheckpointError(f"reserved keys in a checkpoint's description: {', '.join(taken)}; rename them")
    found = fingerprints(leaves)
    record = {"format": FORMAT, "schema": SCHEMA, "version": __version__, "step": step, **extra} | {
        "leaves": {
            name: {"shape": list(leaf.shape), "dtype": jnp.dtype(leaf.dtype).name, "fingerprint": found[name]}
            for name, leaf in leaves.items()
        }
    }
    return record | {"sha256": _digest(record)}


def check(record: Any) -> dict[str, Any]:
    """Verify a description; returns it without its checksum.

    Raises:
        CheckpointError: if the format or the schema is not the current one.
        ValueError: if the description is damaged.
    """
    if not isinstance(record, dict):
        raise ValueError("its description is not a JSON object")
    record = dict(record)
    if record.pop("sha256", None) != _digest(record):
        raise ValueError("its description does not match its checksum")
    if (record["format"], record["schema"]) != (FORMAT, SCHEMA):
        raise CheckpointError(
            f"it is {record['format']!r} with schema {record['schema']}, but th_jax {__version__} reads {FORMAT!r} with "
            f"schema {SCHEMA}: use the version of th_jax that wrote it, {record['version']}"
        )
    return record


def check_same_leaves(wanted: Mapping[str, Any], record: Mapping[str, Any]) -> None:
    """Check that the leaves of a run match the saved ones.

    Args:
        wanted: leaves or shapes of this run by name.
        record: description of the checkpoint.

    Raises:
        CheckpointError: naming the first leaf that differs and the probable reason.
    """
    saved = record["leaves"]
    for name in [*wanted, *saved]:
        now = _shape_text(wanted[name].shape, wanted[name].dtype) if name in wanted else "missing"
        then = _shape_text(saved[name]["shape"], saved[name]["dtype"]) if name in saved else "missing"
        if now != then:
            config = record.get("config")
            networks = config.get("networks", "not recorded") if isinstance(config, dict) else "not recorded"
            raise CheckpointError(
                f"it belongs to a different state: its leaf {name} is {then}, but this run's is {now}; probably "
                "networks.base_width, networks.image_size, the optimizers or the number of training videos differ "
                f"(its networks were: {networks})"
            )


def check_video_list(description: Mapping[str, Any], digest: str) -> None:
    """Check that the list of training videos is the one that the saved rows of W belong to.

    Args:
        description: description of the checkpoint.
        digest: digest of the list of training videos of this run.

    Raises:
        CheckpointError: if the digests differ, or none was saved.
    """
    saved = description.get("video_list")
    if saved != digest:
        raise CheckpointError(
            f"the checkpoint's video table belongs to another list of training videos (digest {str(saved)[:12]}; "
            f"the data set's is {digest[:12]}): its rows would refer to other people; train on the data set it was "
            "saved with, or start a new run"
        )


def named_leaves(tree: Any) -> dict[str, Any]:
    """Return the leaves of a tree by their paths, such as "weights/synthesis/params/embedder/...", in the tree's order.

    Raises:
        CheckpointError: if a leaf is not a plain numeric array, or names are not unique.
    """
    named = {name or "state": leaf for name, leaf in leaves_by_name(tree).items()}
    if len(named) != len(jax.tree.leaves(tree)):
        raise CheckpointError("the names of a state's leaves must be unique: does a key contain a slash?")
    for name, leaf in named.items():
        if not isinstance(leaf, Array | np.ndarray | jax.ShapeDtypeStruct):
            raise CheckpointError(f"a state must be a tree of arrays, but its leaf {name} is a {type(leaf).__name__}")
        if jnp.issubdtype(leaf.dtype, jax.dtypes.extended):
            raise CheckpointError(f"the leaf {name} is a typed key: store its jax.random.key_data instead")
        if np.dtype(leaf.dtype).kind in "OSU":
            raise CheckpointError(f"a state must hold numbers, but its leaf {name} has the type {leaf.dtype}")
    return named


def check_fingerprints(leaves: Mapping[str, Array | np.ndarray], record: Mapping[str, Any]) -> None:
    """Check that every leaf is bit-for-bit identical to the saved one.

    Raises:
        ValueError: naming the first leaf that differs.
    """
    found = fingerprints(leaves)
    altered = [name for name, value in found.items() if record["leaves"][name]["fingerprint"] != value]
    if altered:
        raise ValueError(
            f"its leaf {altered[0]} does not match its checksum ({len(altered)} of {len(found)} leaves do not)"
        )


def fingerprints(leaves: Mapping[str, Array | np.ndarray]) -> dict[str, int]:
    """Compute an exact 32-bit fingerprint of every leaf, independent of device and sharding.

    Any change within one four-byte word is detected; a wider change is missed with a probability of 2^-32. Large leaves are
    read in place; small ones are copied to the host, which avoids compiling a program for each of their many shapes.
    """
    large = {name: _on_device(leaf) for name, leaf in leaves.items() if not _is_small(leaf)}
    small = {name: leaf for name, leaf in leaves.items() if name not in large}
    found = jax.device_get(large) | {name: _on_host(leaf) for name, leaf in jax.device_get(small).items()}
    return {name: int(found[name]) for name in leaves}


def _is_small(leaf: Array | np.ndarray) -> bool:
    if isinstance(leaf, np.ndarray):
        return True
    return leaf.nbytes <= _SMALL and (leaf.is_fully_addressable or leaf.is_fully_replicated)


def _fingerprint(bits: Any, xp: ModuleType) -> Any:
    """Sum, over all positions, a mix of word and position that is one-to-one in the word (murmur3's finalizer)."""
    mixed = bits.astype(np.uint32) * np.uint32(0x9E3779B1)
    stride = 1
    for axis in reversed(range(bits.ndim)):  # axis by axis, because flattening would gather a sharded leaf
        size = bits.shape[axis]
        along = xp.arange(size, dtype=np.uint32) * np.uint32(stride * 0x85EBCA77 % 2**32)
        mixed = mixed + along.reshape([size if a == axis else 1 for a in range(bits.ndim)])
        stride *= size
    mixed = (mixed ^ (mixed >> 16)) * np.uint32(0x85EBCA6B)
    mixed = (mixed ^ (mixed >> 13)) * np.uint32(0xC2B2AE35)
    return xp.sum(mixed ^ (mixed >> 16), dtype=np.uint32)


@jax.jit
def _on_device(leaf: Array) -> Array:
    plain = leaf.astype(jnp.uint8) if leaf.dtype == bool else leaf
    return _fingerprint(jax.lax.bitcast_convert_type(plain, _WORDS[plain.dtype.itemsize]), jnp)


def _on_host(leaf: np.ndarray) -> Any:
    words = np.ascontiguousarray(leaf).reshape(*leaf.shape, 1).view(_WORDS[leaf.dtype.itemsize])
    return _fingerprint(words, np)


def _digest(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def _shape_text(shape: Sequence[int], dtype: Any) -> str:
    return f"{jnp.dtype(dtype).name}{list(shape)}"

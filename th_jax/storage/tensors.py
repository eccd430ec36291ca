"""Safetensors files with metadata and checksums, written atomically and verified when read.

This module contains what all such files share; the owner of a file defines the name of its format and any further checks.
"""

import hashlib
import json
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from th_jax.storage.files import whole_path
from th_jax.storage.strict_json import parse_json
from th_jax.version import __version__


def leaf_name(path: tuple[Any, ...]) -> str:
    """Return the name of a leaf for its path in `jax.tree_util.tree_map_with_path`; "" if the tree is a single leaf."""
    import jax  # here: files of tensors are also read where JAX is not loaded

    return jax.tree_util.keystr(path, simple=True, separator="/")


def leaves_by_name(tree: Any) -> dict[str, Any]:
    """Return the leaves of a tree, arrays or shapes, by name and in the tree's order."""
    import jax

    return {leaf_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


MAX_FILE_BYTES = 8 * 2**30
"""Ten times the size of the networks at paper size and the largest video table in float32."""

MAX_DESCRIPTION_BYTES = 100 * 2**20
"""The limit of safetensors itself for a file's header."""

# Errors for damaged files differ between versions of safetensors; a tensor type unknown to NumPy is a KeyError.
_DAMAGE = (SafetensorError, OSError, ValueError, TypeError, KeyError, AttributeError, MemoryError, RecursionError)


class TensorFileError(ValueError):
    """A file cannot be read as tensors; the message names the file and the reason."""


class OtherFormatError(TensorFileError):
    """A file has another format than the requested one."""


class AlteredError(TensorFileError):
    """A file does not match its own checksum."""


def write_tensors(path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Write a file atomically, readable by all users; its folder is created.

    Raises:
        OSError: if the file cannot be written; no partial file remains.
    """
    # ascontiguousarray would turn a scalar into a vector
    ordered = {name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with whole_path(path) as temporary:
            save_file(ordered, temporary, metadata=dict(metadata))
            temporary.chmod(0o644)  # safetensors creates private files
            with temporary.open("rb+") as file:
                _sort_metadata(file)
    except SafetensorError as error:  # raised by safetensors if the disk is full
        raise OSError(f"cannot write {path}: {error}") from error


def _sort_metadata(file: BinaryIO) -> None:
    """Rewrite the header with sorted metadata, which safetensors writes in random order: equal contents are equal bytes."""
    size = int.from_bytes(file.read(8), "little")
    header = json.loads(file.read(size))
    header |= {"__metadata__": dict(sorted(header.get("__metadata__", {}).items()))}
    written = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    assert len(written) <= size, "the header has the same characters in another order"
    file.seek(8)
    file.write(written.ljust(size))


def read_tensors(path: Path, *, file_format: str) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read the tensors and metadata of a file, whose "format" must be the requested one.

    Raises:
        OtherFormatError: if the file has another format.
        TensorFileError: if the file is missing, truncated, larger than `MAX_FILE_BYTES`, or not a safetensors file.
    """
    _check_file(path)
    try:
        with safe_open(path, framework="numpy") as file:
            metadata: dict[str, str] = file.metadata() or {}
            names = list(file.keys()) if metadata.get("format") == file_format else []
            tensors = {name: file.get_tensor(name) for name in names}
    except _DAMAGE as error:
        raise _damaged(path, error) from error
    if (found := metadata.get("format")) != file_format:
        raise OtherFormatError(f"{path} has the format {found!r}, but th_jax {__version__} expects {file_format!r}")
    return tensors, metadata


def write_described(path: Path, tensors: Mapping[str, np.ndarray], description: str, *, file_format: str) -> str:
    """Write tensors with a description and a checksum over both.

    Args:
        path: path of the file to write.
        tensors: tensors by name.
        description: JSON text.
        file_format: name of the format.

    Returns:
        The digest of the tensors.

    Raises:
        OSError: if the file cannot be written; no partial file remains.
    """
    digest = tensors_digest(tensors)
    sealed = checksum(file_format, description, digest)
    write_tensors(path, tensors, {"format": file_format, "description": description, "sha256": sealed})
    return digest


def read_described(path: Path, *, file_format: str) -> tuple[dict[str, np.ndarray], dict[str, Any], str]:
    """Read a file that `write_described` wrote, and verify its checksum.

    Returns:
        The tensors, the description and the digest of the tensors.

    Raises:
        AlteredError: if the tensors or the description do not match the checksum.
        TensorFileError: as `read_tensors`; also if the description is not a JSON object, even with a valid checksum.
    """
    tensors, metadata = read_tensors(path, file_format=file_format)
    digest, text = tensors_digest(tensors), metadata.get("description", "")
    if metadata.get("sha256") != checksum(file_format, text, digest):
        raise AlteredError(f"{path} does not match its checksum: the file was modified")
    return tensors, _description(path, text), digest


def read_description(path: Path, *, file_format: str) -> dict[str, Any]:
    """Read only the description, without the tensors and therefore without verifying the checksum.

    Raises:
        OtherFormatError, TensorFileError: as `read_tensors`; also if the description is not a JSON object.
    """
    _check_file(path)
    try:
        with safe_open(path, framework="numpy") as file:
            metadata: dict[str, str] = file.metadata() or {}
    except _DAMAGE as error:
        raise _damaged(path, error) from error
    if (found := metadata.get("format")) != file_format:
        raise OtherFormatError(f"{path} has the format {found!r}, but th_jax {__version__} expects {file_format!r}")
    return _description(path, metadata.get("description", ""))


def tensors_digest(tensors: Mapping[str, np.ndarray]) -> str:
    """Compute the SHA-256 of names, types, shapes and bytes, in the order of the names; in hexadecimal."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = np.ascontiguousarray(tensors[name])
        digest.update(f"{name} {tensor.dtype.name} {tensor.shape}\n".encode())
        digest.update(tensor.tobytes())
    return digest.hexdigest()


def checksum(file_format: str, description: str, digest: str) -> str:
    """Compute the SHA-256 of the format, the description and the digest of the tensors, in hexadecimal."""
    return hashlib.sha256(f"{file_format}\n{description}\n{digest}".encode()).hexdigest()


def _check_file(path: Path) -> None:
    """Reject files that safetensors would wait for or map entirely: it opens pipes, and accepts any size."""
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from error
    if not stat.S_ISREG(status.st_mode):
        raise TensorFileError(f"{path} is not a readable safetensors file: it is a folder, a device or a pipe")
    if status.st_size > MAX_FILE_BYTES:
        raise TensorFileError(f"{path} has {status.st_size} bytes, over the limit of {MAX_FILE_BYTES} for tensors")


def _damaged(path: Path, error: Exception) -> TensorFileError:
    return TensorFileError(f"{path} is not a readable safetensors file; it may be truncated ({error})")


def _description(path: Path, text: str) -> dict[str, Any]:
    description = parse_json(
        text, name=f"{path}: its description", max_bytes=MAX_DESCRIPTION_BYTES, error=TensorFileError
    )
    if not isinstance(description, dict):
        raise TensorFileError(f"{path} has no description")
    return description

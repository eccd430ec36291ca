"""A checked safetensors file: tensors with words about them, written whole or not at all, and read as they were written.

Whose file it is decides its format's name and what else must hold; here is what all such files share.
"""

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from th_jax.version import __version__

MAX_FILE_BYTES = 8 * 2**30
"""Ten times what the networks at paper size and the largest video table have in float32."""

# What safetensors raises for damage differs by its version; a tensor of a type that numpy lacks is a KeyError.
_DAMAGE = (SafetensorError, OSError, ValueError, TypeError, KeyError, AttributeError, MemoryError, RecursionError)


class TensorFileError(ValueError):
    """A file cannot be read as tensors; the message names it and says why."""


class OtherFormatError(TensorFileError):
    """It calls itself another format than the one asked for."""


class AlteredError(TensorFileError):
    """It does not match its own checksum."""


def write_tensors(path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Write under a temporary name and put the file, readable by all, in place; its folder is made.

    Raises:
        OSError: if the disk refuses; nothing is left behind.
    """
    # ascontiguousarray would make a scalar a vector
    ordered = {name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        save_file(ordered, temporary, metadata=dict(metadata))
        temporary.chmod(0o644)  # safetensors makes private files
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())  # else a crash of the machine could leave the name without the bytes
        temporary.replace(path)
    except SafetensorError as error:  # how safetensors says that the disk is full
        raise OSError(f"{path} cannot be written: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def read_tensors(path: Path, *, file_format: str) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Tensors and metadata of a file, whose "format" must be the one asked for.

    Raises:
        OtherFormatError: if it is another one.
        TensorFileError: if the file is missing, truncated, larger than `MAX_FILE_BYTES`, or no safetensors file.
    """
    _check_file(path)
    try:
        with safe_open(path, framework="numpy") as file:
            metadata: dict[str, str] = file.metadata() or {}
            names = list(file.keys()) if metadata.get("format") == file_format else []
            tensors = {name: file.get_tensor(name) for name in names}
    except _DAMAGE as error:
        raise _damaged(path, error) from error
    if (came := metadata.get("format")) != file_format:
        raise OtherFormatError(f"{path} is of the format {came!r}, but th_jax {__version__} opens {file_format!r}")
    return tensors, metadata


def write_described(path: Path, tensors: Mapping[str, np.ndarray], description: str, *, file_format: str) -> str:
    """Write tensors with a description, JSON as text, and a checksum over both; returns the digest of the tensors.

    Raises:
        OSError: if the disk refuses; nothing is left behind.
    """
    digest = tensors_digest(tensors)
    sealed = checksum(file_format, description, digest)
    write_tensors(path, tensors, {"format": file_format, "description": description, "sha256": sealed})
    return digest


def read_described(path: Path, *, file_format: str) -> tuple[dict[str, np.ndarray], dict[str, Any], str]:
    """Tensors, description and digest of a file whose every byte is as `write_described` left it.

    Raises:
        AlteredError: if tensors or description are not those of the checksum.
        TensorFileError: as `read_tensors`; also if the description is no JSON object, whoever made the checksum.
    """
    tensors, metadata = read_tensors(path, file_format=file_format)
    digest, text = tensors_digest(tensors), metadata.get("description", "")
    if metadata.get("sha256") != checksum(file_format, text, digest):
        raise AlteredError(f"{path} does not match its checksum: it was altered")
    return tensors, _description(path, text), digest


def read_description(path: Path, *, file_format: str) -> dict[str, Any]:
    """The description alone, without reading tensors: nothing of it is checked against the checksum.

    Raises:
        OtherFormatError, TensorFileError: as `read_tensors`; also if the description is no JSON object.
    """
    _check_file(path)
    try:
        with safe_open(path, framework="numpy") as file:
            metadata: dict[str, str] = file.metadata() or {}
    except _DAMAGE as error:
        raise _damaged(path, error) from error
    if (came := metadata.get("format")) != file_format:
        raise OtherFormatError(f"{path} is of the format {came!r}, but th_jax {__version__} opens {file_format!r}")
    return _description(path, metadata.get("description", ""))


def tensors_digest(tensors: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over names, types, shapes and bytes, in the order of the names; in hexadecimal."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = np.ascontiguousarray(tensors[name])
        digest.update(f"{name} {tensor.dtype.name} {tensor.shape}\n".encode())
        digest.update(tensor.tobytes())
    return digest.hexdigest()


def checksum(file_format: str, description: str, digest: str) -> str:
    """SHA-256 over the format, the description and the digest of the tensors, in hexadecimal."""
    return hashlib.sha256(f"{file_format}\n{description}\n{digest}".encode()).hexdigest()


def _check_file(path: Path) -> None:
    """Refuse what safetensors would wait for or map whole: it opens pipes, and believes any size."""
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from error
    if not stat.S_ISREG(status.st_mode):
        raise TensorFileError(f"{path} is no readable safetensors file: it is a folder, a device or a pipe")
    if status.st_size > MAX_FILE_BYTES:
        raise TensorFileError(f"{path} has {status.st_size} bytes, over the limit of {MAX_FILE_BYTES} for tensors")


def _damaged(path: Path, error: Exception) -> TensorFileError:
    return TensorFileError(f"{path} is no readable safetensors file, perhaps truncated ({error})")


def _description(path: Path, text: str) -> dict[str, Any]:
    try:
        description = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TensorFileError(
            f"{path} is no readable safetensors file: its description is no JSON ({error})"
        ) from error
    if not isinstance(description, dict):
        raise TensorFileError(f"{path} has no description")
    return description

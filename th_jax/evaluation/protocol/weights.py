"""Digests of everything that made or measured a frame: numbers of two evaluations compare only if these are equal."""

import hashlib
from pathlib import Path

import numpy as np

from th_jax.faces import detect
from th_jax.pretrained import MetaModel
from th_jax.tensor_file import tensors_digest


def weight_digests(meta: MetaModel, *, faces: bool) -> dict[str, str]:
    """SHA-256 in hexadecimal by name: the meta weights, each frozen network, and dlib's two models.

    Args:
        meta: that people are learned with.
        faces: whether dlib measures.

    Raises:
        FileNotFoundError: if dlib's models are asked for and not installed.
    """
    digests = {str(meta.description["name"]): meta.digest}
    for network, layers in sorted(meta.perceptual.items()):
        tensors = {f"{layer}/{part}": np.asarray(x) for layer, parts in layers.items() for part, x in parts.items()}
        digests[network] = tensors_digest(tensors)
    if faces:
        digests["dlib_landmarks"] = _file_digest(Path(detect._landmark_model_path(None)))
        digests["dlib_identity"] = _file_digest(Path(detect._model_path(detect._IDENTITY_FILE)))
    return digests


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

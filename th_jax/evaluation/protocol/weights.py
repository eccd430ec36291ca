"""Digests of all weights that generate or measure frames: two evaluations are only comparable if these are equal."""

import numpy as np

from th_jax.faces import detect
from th_jax.faces.landmark_cascade import CASCADE_FILE
from th_jax.storage.files import file_sha256
from th_jax.storage.tensors import tensors_digest
from th_jax.weights import MetaModel


def weight_digests(meta: MetaModel, *, faces: bool) -> dict[str, str]:
    """Compute SHA-256 digests in hexadecimal by name: the meta weights, each frozen network, and the models of faces.

    The landmark model and dlib's identity model are included if `faces`, that is, if it measures faces.

    Raises:
        FileNotFoundError: if these models are needed and not installed.
    """
    digests = {str(meta.description["name"]): meta.digest}
    for network, layers in sorted(meta.perceptual.items()):
        tensors = {f"{layer}/{part}": np.asarray(x) for layer, parts in layers.items() for part, x in parts.items()}
        digests[network] = tensors_digest(tensors)
    if faces:
        landmarks = detect.landmark_model_file()
        digests["heads_landmarks" if landmarks == CASCADE_FILE else "dlib_landmarks"] = file_sha256(landmarks)
        digests["dlib_identity"] = file_sha256(detect._model_path(detect._IDENTITY_FILE))
    return digests

"""All that decides what a record holds, beside the video's own files: settings, models, versions and the code itself."""

import functools
import hashlib
import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

import cv2
import numpy as np

import th_jax.data.schema
import th_jax.faces
import th_jax.landmarks.scheme
import th_jax.media
from data_prep import prepare_video, quality, sample_frames
from th_jax.faces.detect import LANDMARK_MODEL_VARIABLE, MODELS_PACKAGE


def decisive(settings: prepare_video.Settings) -> dict[str, Any]:
    """Plain JSON; equal for two runs whose records of a video may be mixed.

    Raises:
        ImportError: without the extra `prep`.
        FileNotFoundError: if the landmark model that the environment names does not exist.
    """
    return {
        **_plain(settings),
        "landmark_model": _landmark_model(),
        "software": _versions(),
        "schema": th_jax.data.schema.SCHEMA_VERSION,
        "code": _code(),
    }


def _plain(value: Any) -> Any:
    """Named tuples as dictionaries."""
    return {name: _plain(field) for name, field in value._asdict().items()} if hasattr(value, "_asdict") else value


def _landmark_model() -> str:
    named = os.environ.get(LANDMARK_MODEL_VARIABLE)
    if not named:
        return f"{MODELS_PACKAGE} {importlib.metadata.version(MODELS_PACKAGE)}"
    try:
        with open(named, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise FileNotFoundError(f"the landmark model {named} does not exist, or cannot be read") from error


def _versions() -> dict[str, str]:
    packages = ("av", "dlib-bin", "pillow")
    found = {package: importlib.metadata.version(package) for package in packages}
    return {**found, "opencv": cv2.__version__, "numpy": np.__version__, "machine": platform.machine()}


@functools.cache
def _code() -> str:
    files = [prepare_video.__file__, quality.__file__, sample_frames.__file__]
    files += [th_jax.data.schema.__file__, th_jax.landmarks.scheme.__file__]
    for package in (th_jax.faces, th_jax.media):
        files += sorted(map(str, Path(package.__path__[0]).glob("*.py")))
    return hashlib.sha256(b"".join(Path(file).read_bytes() for file in files)).hexdigest()[:16]

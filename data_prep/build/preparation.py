"""The description of a preparation: everything besides a video's own files that determines the content of its record."""

import importlib.metadata
import platform
from typing import Any

import cv2
import numpy as np

import th_jax.data.schema
from data_prep.build.prepare_video import PREPARATION_VERSION, Settings
from th_jax.faces.detect import MODELS_PACKAGE, landmark_model_digest


def describe_preparation(settings: Settings) -> dict[str, Any]:
    """Describe a preparation as plain JSON; runs with equal descriptions may share prepared videos.

    Raises:
        ImportError: without the extra `prep`.
        FileNotFoundError: if the landmark model that the environment names does not exist.
    """
    return {
        "preparation_version": PREPARATION_VERSION,
        **_plain(settings),
        "landmark_model": _landmark_model(),
        "software": _versions(),
        "schema": th_jax.data.schema.SCHEMA_VERSION,
    }


def _plain(value: Any) -> Any:
    """Convert named tuples to dictionaries."""
    return {name: _plain(field) for name, field in value._asdict().items()} if hasattr(value, "_asdict") else value


def _landmark_model() -> str:
    return landmark_model_digest() or f"{MODELS_PACKAGE} {importlib.metadata.version(MODELS_PACKAGE)}"


def _versions() -> dict[str, str]:
    packages = ("av", "dlib-bin", "pillow")
    found = {package: importlib.metadata.version(package) for package in packages}
    return {**found, "opencv": cv2.__version__, "numpy": np.__version__, "machine": platform.machine()}

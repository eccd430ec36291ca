"""Imports of the optional packages Pillow and PyAV, with errors that name the extra to install."""

import importlib
from types import ModuleType

EXTRA_HINT = "pip install 'th_jax[video]'"


def load_backend(module: str, purpose: str) -> ModuleType:
    """Import the module of an optional package.

    Args:
        module: name of the module.
        purpose: what the package is needed for, for the error message.

    Raises:
        ImportError: naming the extra that installs the package.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"{purpose} requires the module {module!r}: {EXTRA_HINT}") from error


def pillow() -> ModuleType:
    """Import `PIL.Image`.

    Raises:
        ImportError: if the extra `video` is not installed.
    """
    return load_backend("PIL.Image", "reading images and writing GIF")


def pyav() -> ModuleType:
    """Import `av`, the Python bindings of FFmpeg's libraries.

    Raises:
        ImportError: if the extra `video` is not installed.
    """
    return load_backend("av", "reading and writing videos")

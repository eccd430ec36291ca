"""Loads Pillow and PyAV on first use, or says which extra brings them."""

import importlib
from types import ModuleType

EXTRA_HINT = "pip install 'th_jax[video]'"


def load_backend(module: str, purpose: str) -> ModuleType:
    """The module of an optional package.

    Raises:
        ImportError: naming the extra that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"{purpose} needs the package of the module {module!r}: {EXTRA_HINT}") from error


def pillow() -> ModuleType:
    """`PIL.Image`.

    Raises:
        ImportError: without the extra `video`.
    """
    return load_backend("PIL.Image", "reading pictures and writing GIF")


def pyav() -> ModuleType:
    """`av`, the Python side of FFmpeg's libraries.

    Raises:
        ImportError: without the extra `video`.
    """
    return load_backend("av", "reading and writing videos")

"""Imports of the optional packages Pillow and PyAV, with errors that name the extra to install."""

import importlib
from types import ModuleType

EXTRA_HINT = "pip install 'th_jax[video]'"


def missing_extra(module: str, purpose: str, *, extra: str = "video") -> ImportError:
    """Return the error for a missing optional package.

    Args:
        module: name of the module.
        purpose: what the package is needed for.
        extra: the extra that installs it.
    """
    return ImportError(f"{purpose} requires the module {module!r}: pip install 'th_jax[{extra}]'")


def load_backend(module: str, purpose: str, *, extra: str = "video") -> ModuleType:
    """Import the module of an optional package.

    Args:
        module: name of the module.
        purpose: what the package is needed for, for the error message.
        extra: the extra that installs it.

    Raises:
        ImportError: naming the extra that installs the package.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise missing_extra(module, purpose, extra=extra) from error


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

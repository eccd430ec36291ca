"""Imports of the optional packages Pillow and PyAV, with errors that name the extra to install."""

import importlib
import shlex
import sys
from types import ModuleType


def install_command(extra: str) -> str:
    """Return the command that installs an extra for this interpreter, whichever `pip` a shell would find."""
    return f"{shlex.quote(sys.executable)} -m pip install 'th_jax[{extra}]'"


EXTRA_HINT = install_command("video")


def missing_extra(module: str, purpose: str, *, extra: str = "video") -> ImportError:
    """Return the error for a missing optional package.

    Args:
        module: name of the module.
        purpose: what the package is needed for.
        extra: the extra that installs it.
    """
    return ImportError(f"{purpose} requires the module {module!r}: {install_command(extra)}")


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

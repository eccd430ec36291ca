"""The compile cache: XLA's programs on the disk, so that a command's second run does not compile them again.

It lies in the user's cache folder, is readable by them alone, and keeps the programs that were used last, up to a size.
"""

import os
import sys
from pathlib import Path

VARIABLE = "TH_JAX_COMPILE_CACHE"
"""Environment variable that names another folder, or says "off"."""

MAX_BYTES = 4 * 2**30

_LEAST_SECONDS = 0.2
"""Programs that compile faster are not kept."""


def cache_folder() -> Path | None:
    """The folder by environment and platform; None where it is off, or the user has no home folder."""
    chosen = os.environ.get(VARIABLE)
    if chosen is not None:
        return None if chosen.lower() in ("", "off", "0", "no", "false") else Path(chosen)
    try:
        home = Path.home()
    except RuntimeError:
        home = None
    if sys.platform == "darwin":
        base = None if home is None else home / "Library" / "Caches"
    elif os.name == "nt":
        base = Path(os.environ["LOCALAPPDATA"]) if os.environ.get("LOCALAPPDATA") else None
    else:
        written = os.environ.get("XDG_CACHE_HOME")
        base = Path(written) if written else None if home is None else home / ".cache"
    return None if base is None else base / "th_jax" / "compiled"


def use_compile_cache() -> Path | None:
    """Switch the cache on, unless the user chose another one of JAX's; returns its folder, None if there is none.

    A folder that cannot be written, or that belongs to another user, is not used: compiling again is all that it costs.
    """
    if os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return Path(os.environ["JAX_COMPILATION_CACHE_DIR"])
    folder = cache_folder()
    if folder is None:
        return None
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        about = folder.stat()
    except OSError:
        return None
    if not os.access(folder, os.W_OK) or (hasattr(os, "getuid") and about.st_uid != os.getuid()):
        return None
    if about.st_mode & 0o077:
        folder.chmod(0o700)  # programs that others could change would run as this user
    import jax

    from th_jax.program_cache import use_program_cache

    use_program_cache(folder / "traced")
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_compilation_cache_max_size", MAX_BYTES)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", _LEAST_SECONDS)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    return folder

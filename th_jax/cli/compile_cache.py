"""Compile cache: stores XLA's programs on disk, so that later runs of a command do not compile them again.

It is in the user's cache folder, readable only by the user, and keeps the most recently used programs up to a size limit.
"""

import os
import secrets
from collections import Counter
from pathlib import Path

from th_jax.storage.files import is_remote, user_cache_folder

VARIABLE = "TH_JAX_COMPILE_CACHE"
"""Environment variable with another folder, or "off"."""

MAX_BYTES = 4 * 2**30

_LEAST_SECONDS = 0.2
"""Minimum compile time of a stored program, in seconds."""


def cache_folder() -> Path | None:
    """Return the folder for this environment and platform; None if the cache is off, or the user has no home folder."""
    chosen = os.environ.get(VARIABLE)
    if chosen is not None:
        return None if chosen.lower() in ("", "off", "0", "no", "false") else Path(chosen)
    base = user_cache_folder()
    return None if base is None else base / "compiled"


def use_compile_cache() -> Path | None:
    """Enable the cache, unless JAX's own variable names another one; return its folder, None if it is off.

    A folder that is not writable, or belongs to another user, is not used.
    """
    if os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return Path(os.environ["JAX_COMPILATION_CACHE_DIR"])
    folder = cache_folder()
    if folder is None or not private_folder(folder):
        return None
    from th_jax.program_cache import use_program_cache

    use_program_cache(folder / "traced")
    _store_programs(str(folder), max_bytes=MAX_BYTES, least_seconds=_LEAST_SECONDS)
    return folder


def _store_programs(place: str, *, max_bytes: int, least_seconds: float) -> None:
    """Have JAX store the programs of any size that took at least some seconds to compile; -1 bytes are no limit."""
    import jax

    jax.config.update("jax_compilation_cache_dir", place)
    jax.config.update("jax_compilation_cache_max_size", max_bytes)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", least_seconds)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


class SharedPrograms:
    """Compiled programs in a folder or bucket from which all hosts of a run load them; the first host stores new ones there.

    XLA's key of a program has its text, the versions of JAX and its compiler, the devices, and the compiler's settings: a
    program of other versions or settings is never loaded, but compiled as without the folder.
    """

    _WANTED, _LOADED = "/jax/compilation_cache/compile_requests_use_cache", "/jax/compilation_cache/cache_hits"

    def __init__(self, place: str) -> None:
        """Use the programs of a place from now on.

        Args:
            place: folder that all hosts see, or an address such as gs://BUCKET/DIR.

        Raises:
            ValueError: if the place cannot be written, or other users could replace programs in the folder.
        """
        import jax

        if is_remote(place):
            _check_bucket(place)
        else:
            _check_own_folder(Path(place))
        self.place = place
        self.counts: Counter[str] = Counter()
        _store_programs(place, max_bytes=-1, least_seconds=0.0)
        jax.monitoring.register_event_listener(self._count)

    def __str__(self) -> str:
        """Say how many programs this process has loaded and compiled since."""
        loaded = self.counts[self._LOADED]
        return f"programs in {self.place}: {loaded} loaded, {self.counts[self._WANTED] - loaded} compiled"

    def _count(self, event: str, **_: object) -> None:
        self.counts[event] += 1


def _check_own_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        about = folder.stat()
    except OSError as error:
        raise ValueError(f"{folder} cannot be a folder of compiled programs: {error.strerror or error}") from error
    if not os.access(folder, os.W_OK):
        raise ValueError(f"{folder} must be a folder that this user can write, for compiled programs")
    if hasattr(os, "getuid") and (about.st_uid != os.getuid() or about.st_mode & 0o022):
        raise ValueError(
            f"others can write to {folder}, and could replace compiled programs, which run as this user: choose a new folder"
        )


def _check_bucket(address: str) -> None:
    """Write and delete a small file, because JAX itself goes on without the cache, with a warning, if it cannot write."""
    from etils import epath  # JAX reads and writes through it

    try:
        folder = epath.Path(address)
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe-{secrets.token_hex(4)}"
        probe.write_text("")
        probe.unlink()
    except Exception as error:  # of whichever package serves the address
        raise ValueError(f"compiled programs cannot be stored at {address}: {type(error).__name__}: {error}") from error


def private_folder(folder: Path) -> bool:
    """Make a folder that only this user can read and write, or find it; False if it cannot be had."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        about = folder.stat()
    except OSError:
        return False
    if not os.access(folder, os.W_OK) or (hasattr(os, "getuid") and about.st_uid != os.getuid()):
        return False
    if about.st_mode & 0o077:
        folder.chmod(0o700)  # otherwise other users could replace programs that run as this user
    return True

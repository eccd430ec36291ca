"""Entries of XLA's compile cache that were altered are compiled again, and are never run."""

import subprocess
import sys
from pathlib import Path

import numpy as np

PROGRAM = """
import sys, jax, jax.numpy as jnp
jax.config.update("jax_compilation_cache_dir", sys.argv[1])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
print(float(jax.jit(lambda x: jnp.sum(jnp.sin(x) * 3.0))(jnp.arange(9.0))))
"""


def run(folder: Path) -> tuple[str, str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder)], capture_output=True, text=True, check=True, timeout=120
    )
    return done.stdout, done.stderr


def test_altered_programs_are_compiled_again(tmp_path: Path) -> None:
    first, _ = run(tmp_path)
    entries = [path for path in tmp_path.rglob("*-cache") if path.is_file()]
    assert entries
    rng = np.random.default_rng(0)
    for path in entries:
        content = bytearray(path.read_bytes())
        content[int(rng.integers(20, len(content)))] ^= 1 << int(rng.integers(8))
        path.write_bytes(content)
    said, warned = run(tmp_path)
    assert said == first
    assert "Error reading persistent compilation cache entry" in warned


def test_every_flipped_bit_of_an_entry_is_found(tmp_path: Path) -> None:
    """With zlib, which JAX uses unless there is zstd."""
    import pytest
    from jax._src import compilation_cache

    if "zstd" in str(getattr(compilation_cache, "zstd", "")) or compilation_cache.zstandard is not None:
        pytest.skip("JAX compresses with zstd here, which has no checksum")
    rng = np.random.default_rng(0)
    whole = compilation_cache.compress_executable(rng.integers(0, 16, 3000, np.uint8).tobytes())
    for place in range(len(whole)):
        content = bytearray(whole)
        content[place] ^= 1 << int(rng.integers(8))
        with pytest.raises(Exception, match=r"Error -[0-9] while decompressing"):
            compilation_cache.decompress_executable(bytes(content))

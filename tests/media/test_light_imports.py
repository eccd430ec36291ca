"""Imports of faces and media load neither jax nor, before first use, codecs."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["th_jax.media", "th_jax.faces"])
def test_nothing_heavy_is_loaded(module: str) -> None:
    heavy = ["jax", "jaxlib", "flax", "tensorflow", "dlib", "av", "PIL", "beartype"]
    program = f"import sys, {module}; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

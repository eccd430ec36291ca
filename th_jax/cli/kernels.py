"""`th-jax kernels`: compiles the fast convolutions of `th_jax.models.onednn` for this machine's processor."""

import argparse
import warnings
from pathlib import Path

from th_jax.cli.compile_cache import VARIABLE, cache_folder, private_folder
from th_jax.cli.options import DONE, UsageError, new_parser

OUTDATED = "are of another version of th_jax or JAX, or of another environment: run `th-jax kernels` again to use them"


def parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    return new_parser(
        "kernels",
        "Compiles convolutions of bfloat16 products for this machine's processor (Linux on x86-64 with AVX512-BF16 or AMX; "
        "needs a C++ compiler and the extra kernels). From then on, training and fine-tuning on the CPU with the setting "
        "matmul_precision=bfloat16 use them.",
    )


def kernels_file() -> Path | None:
    """Return the library's path in the user's cache folder; None if there is no cache folder."""
    folder = cache_folder()
    if folder is None:
        return None
    from th_jax.models.onednn import library_name

    return folder.with_name("kernels") / library_name()


def use_kernels() -> None:
    """Use the compiled library from now on, if there is one in a folder that only this user can write."""
    path = kernels_file()
    if path is None or not path.parent.is_dir() or not private_folder(path.parent):
        return
    from th_jax.models.onednn import KernelsError, use_library

    try:
        if path.is_file():
            use_library(path)
        elif outdated(path):
            raise KernelsError(f"the kernels in {path.parent} {OUTDATED}")
    except KernelsError as error:
        warnings.warn(str(error), RuntimeWarning, stacklevel=2)


def outdated(path: Path) -> bool:
    """Return whether other versions' libraries lie where `path` is missing, and this environment can compile its own."""
    from th_jax.models.onednn import HEADER

    return any(path.parent.glob("*.so")) and HEADER.is_file()


def run(options: argparse.Namespace) -> int:
    """Compile the library, check one convolution, and print the path.

    Raises:
        UsageError: if there is no cache folder.
        KernelsError: if the library cannot be compiled, loaded or trusted.
    """
    import jax
    import jax.numpy as jnp
    import numpy as np

    from th_jax.models import onednn

    path = kernels_file()
    if path is None:
        raise UsageError(
            f"there is no cache folder for the compiled kernels: {VARIABLE} is off, or no home folder exists"
        )
    if not private_folder(path.parent):
        raise onednn.KernelsError(
            f"{path.parent} cannot be made, or belongs to another user: name another in {VARIABLE}"
        )
    onednn.compile_library(path)
    onednn.use_library(path)
    rng = np.random.default_rng(0)
    x, kernel = (jnp.asarray(rng.integers(-8, 8, shape), jnp.float32) for shape in ((2, 16, 16, 64), (3, 3, 64, 32)))
    made = onednn.convolve(x, kernel, 1, 1)
    wanted = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    if not np.array_equal(made, wanted):  # small whole numbers: both are exact
        path.unlink()
        raise onednn.KernelsError("the compiled kernels give wrong results on this machine; they were removed")
    print(f"compiled {path}")
    return DONE

"""Convolutions on CPUs by oneDNN: float32 results of bfloat16 products, which XLA's CPU compiler computes in float32.

On a processor with a matrix unit for bfloat16 (AMX) they take two thirds to a tenth of the time of XLA's, and with
AVX512-BF16 alone a third for narrow layers and as long for wide ones. The C++ source beside this file is compiled once for a
machine, by `th-jax kernels`; without the library, everything works as before.
"""

import ctypes
import functools
import hashlib
import importlib.metadata
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from th_jax.optional import install_command
from th_jax.processor import processor_has
from th_jax.program_cache import use_foreign_functions
from th_jax.storage.files import whole_file

SOURCE = Path(__file__).with_suffix(".cc")
HEADER = Path(sys.prefix) / "include" / "dnnl.hpp"
"""Present if the extra `kernels` is installed."""

_FORWARD, _INPUT_GRADIENT, _KERNEL_GRADIENT = range(3)
_target = ""


class KernelsError(ValueError):
    """The library cannot be compiled or loaded; the message says what to do."""


def library_name() -> str:
    """Return the file name of a library that fits this version, this JAX and this environment."""
    digest = hashlib.sha256(SOURCE.read_bytes())
    digest.update(f"{importlib.metadata.version('jaxlib')} {sys.prefix}".encode())
    return f"onednn-{digest.hexdigest()[:16]}.so"


def compile_library(path: Path) -> None:
    """Compile the library with the machine's C++ compiler.

    Args:
        path: the file to write; its folder must exist.

    Raises:
        KernelsError: if the processor, the compiler or oneDNN's files do not allow it.
        OSError: if the file cannot be written.
    """
    if sys.platform != "linux" or not processor_has("avx512_bf16"):
        raise KernelsError("the kernels need Linux and an x86-64 processor with bfloat16 products (AVX512-BF16 or AMX)")
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        raise KernelsError("no C++ compiler was found: install g++, or name one in CXX")
    libraries = Path(sys.prefix) / "lib"
    if not HEADER.is_file() or not (libraries / "libdnnl.so").exists():
        raise KernelsError(f"oneDNN is not installed: {install_command('kernels')}")
    command = [compiler, "-O3", "-march=x86-64-v4", "-std=c++17", "-fopenmp", "-fPIC", "-shared", "-w", str(SOURCE)]
    command += [f"-I{HEADER.parent}", f"-I{jax.ffi.include_dir()}"]
    command += [f"-L{libraries}", "-ldnnl", f"-Wl,-rpath,{libraries}"]
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / path.name
        try:
            subprocess.run([*command, "-o", str(made)], check=True, capture_output=True, text=True)  # noqa: S603 -- no shell, fixed arguments
        except subprocess.CalledProcessError as error:
            raise KernelsError(f"{compiler} failed: {error.stderr.strip()[-2000:]}") from None
        with whole_file(path, mode=0o600) as file:
            file.write(made.read_bytes())


def use_library(path: Path | None) -> None:
    """Use a compiled library for this process's convolutions of bfloat16 products; None stops using one.

    Raises:
        KernelsError: if the file is not a library that this process can load.
    """
    global _target
    _target = ""
    try:
        if path is not None:
            _target = _load(path.absolute())
    except (OSError, AttributeError) as error:
        raise KernelsError(f"{path} is not usable, run `th-jax kernels` again: {error}") from None
    finally:
        use_foreign_functions((_target,) if _target else ())


@functools.cache
def _load(path: Path) -> str:
    """Load a library and return the name by which XLA's programs call it."""
    library = ctypes.CDLL(str(path))
    target = f"th_jax_convolve_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"  # JAX never forgets a name
    jax.ffi.register_ffi_target(target, jax.ffi.pycapsule(library.ThJaxConvolve), platform="cpu")
    return target


def in_use() -> bool:
    """Return whether convolutions may be computed by the library.

    A foreign function cannot be divided among devices, so a process with several simulated CPU devices does not use it.
    """
    return _target != "" and jax.default_backend() == "cpu" and jax.local_device_count() == 1


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def convolve(
    x: Float[Array, "B H W C"], kernel: Float[Array, "k k C F"], stride: int, pad: int
) -> Float[Array, "B _ _ F"]:
    """Convolve images with a kernel, both rounded to bfloat16; sums are float32, and so are both gradients.

    Args:
        x: float32 images.
        kernel: float32 kernel.
        stride: positions between two results.
        pad: rows and columns of zeros added on each side.
    """
    return _convolve_forward(x, kernel, stride, pad)[0]


def _convolve_forward(x: Array, kernel: Array, stride: int, pad: int) -> tuple[Array, tuple[Array, Array]]:
    # Rounded here, images are fused with what makes them, and kept for the gradient in half the memory. The library
    # rounds kernels itself while it arranges them for the matrix unit.
    rounded = x.astype(jnp.bfloat16)
    sides = [(side + 2 * pad - kernel.shape[0]) // stride + 1 for side in x.shape[1:3]]
    shape = (x.shape[0], *sides, kernel.shape[3])
    return _call(_FORWARD, rounded, kernel, shape, stride, pad), (rounded, kernel)


def _convolve_backward(stride: int, pad: int, operands: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
    x, kernel = operands
    rounded = cotangent.astype(jnp.bfloat16)
    of_input = _call(_INPUT_GRADIENT, kernel, rounded, x.shape, stride, pad)
    return of_input, _call(_KERNEL_GRADIENT, x, rounded, kernel.shape, stride, pad)


convolve.defvjp(_convolve_forward, _convolve_backward)


def _call(kind: int, a: Array, b: Array, shape: tuple[int, ...], stride: int, pad: int) -> Array:
    call = jax.ffi.ffi_call(_target, jax.ShapeDtypeStruct(shape, jnp.float32), vmap_method="sequential")
    made: Array = call(a, b, kind=np.int64(kind), stride=np.int64(stride), pad=np.int64(pad))
    return made

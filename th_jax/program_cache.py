"""Traced programs on disk, so that a second process neither traces nor lowers the same functions again.

XLA's compile cache saves compilation. Tracing the networks in Python and lowering them then takes most of a command's start.
A program is stored as StableHLO under a digest of everything that it depends on: this package's source, the versions of the
packages that are traced with it, JAX's settings, the foreign functions in use, the key that its caller gives, and the shapes
of its arguments.
"""

import contextlib
import functools
import hashlib
import importlib.metadata
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from jax import export

from th_jax.storage.files import whole_file

MAX_PROGRAMS = 200
"""Programs kept in a folder; those used last."""

_SUFFIX = ".stablehlo"
_PACKAGES = ("jax", "jaxlib", "flax", "optax")  # whose code is traced too

_folder: Path | None = None
_foreign: tuple[str, ...] = ()


def use_program_cache(folder: Path | None) -> None:
    """Store and find programs in a folder, which must be writable by this user alone; None turns the cache off."""
    global _folder
    if folder is not None:
        folder.mkdir(mode=0o700, exist_ok=True)
    _folder = folder


def use_foreign_functions(names: tuple[str, ...]) -> None:
    """Tell programs that are traced with these foreign functions from programs without them, and store them too.

    Args:
        names: targets of `jax.ffi` that this process may call, which must change when their code does.
    """
    global _foreign
    _foreign = names


def cached_jit(
    function: Callable[..., Any], *, key: str, donate_argnums: tuple[int, ...] = (), like: Any = ()
) -> Callable[..., Any]:
    """Compile a function as `jax.jit` does, but trace it only if no earlier process has.

    Args:
        function: pure function of trees of arrays. Only functions of one device are stored.
        key: text that distinguishes the function from all others: its name and the values that it closes over.
        donate_argnums: positional arguments whose memory the result may take.
        like: tree with the NamedTuple types of the result that are not among those of the arguments; its leaves do not matter.

    Returns:
        The compiled function.
    """
    plain = jax.jit(function, donate_argnums=donate_argnums)
    found: dict[Any, Callable[..., Any]] = {}

    def call(*arguments: Any) -> Any:
        if _folder is None:
            return plain(*arguments)
        leaves, tree = jax.tree.flatten(arguments)
        if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
            return plain(*arguments)
        kind = (tree, tuple(jax.typeof(leaf) for leaf in leaves))
        if kind not in found:
            _register_nodes((arguments, like))
            program = _program(plain, arguments, f"{key} {kind} {donate_argnums}", _folder)
            found[kind] = plain if program is None else jax.jit(program.call, donate_argnums=donate_argnums)
        return found[kind](*arguments)

    return call


def _program(plain: Any, arguments: tuple[Any, ...], kind: str, folder: Path) -> export.Exported | None:
    """Read the stored program, or trace and store it; None if it cannot be stored."""
    path = folder / f"{hashlib.sha256(f'{_environment()} {kind}'.encode()).hexdigest()}{_SUFFIX}"
    if (stored := _read(path)) is not None:
        return stored
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), arguments)
    try:
        allowed = [export.DisabledSafetyCheck.custom_call(name) for name in _foreign]
        program = export.export(plain, disabled_checks=allowed)(*shapes)
        _write(path, bytes(program.serialize()))
    except (OSError, ValueError, NotImplementedError):
        return None
    return program


def _read(path: Path) -> export.Exported | None:
    """Read a program, or None if the file is missing, was not written whole, or names types that this process does not."""
    try:
        digest, program = (data := path.read_bytes())[:32], data[32:]
        if hashlib.sha256(program).digest() != digest:
            return None
        os.utime(path)
        return export.deserialize(bytearray(program))
    except (OSError, ValueError):
        return None


def _write(path: Path, program: bytes) -> None:
    with whole_file(path, mode=0o600) as file:
        file.write(hashlib.sha256(program).digest() + program)
    newest_first = sorted(path.parent.glob(f"*{_SUFFIX}"), key=lambda stored: -stored.stat().st_mtime)
    for old in newest_first[MAX_PROGRAMS:]:
        old.unlink(missing_ok=True)


def _register_nodes(tree: Any) -> None:
    """Name the NamedTuples of a tree for serialization."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            waiting += node.values()
        elif isinstance(node, list | tuple):
            waiting += node
            if hasattr(node, "_fields"):
                _register(type(node))


@functools.cache
def _register(kind: Any) -> None:
    with contextlib.suppress(ValueError):  # the caller's own program may have registered it
        export.register_namedtuple_serialization(kind, serialized_name=f"{kind.__module__}.{kind.__qualname__}")


@functools.cache
def source_digest() -> str:
    """Return a SHA-256 digest of this package's source."""
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _environment() -> str:
    versions = [importlib.metadata.version(package) for package in _PACKAGES]
    settings = [getattr(jax.config, f"jax_{name}") for name in ("default_matmul_precision", "enable_x64")]
    return f"{source_digest()} {versions} {jax.default_backend()} {settings} {_foreign}"

"""Inputs and weights that both sides of a comparison make for themselves from a name and a seed (numpy only).

`load_case` gives everything a test needs: the regenerated inputs, parameters and spectral-norm vectors, and the
stored outputs and gradients.
"""

import json
import zlib
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

Arrays = dict[str, Float[np.ndarray, "..."]]
GOLDEN = Path(__file__).parent
POWER_ITERATIONS = 5


class Case(NamedTuple):
    """One comparison: what goes in, and what PyTorch made of it.

    `gradients` are those of sum((outputs[name] * projections[name]).sum() for name in projections) with respect to
    inputs and parameters, keyed by their names.
    """

    inputs: Arrays
    parameters: Arrays
    stats: Arrays
    projections: Arrays
    outputs: Arrays
    gradients: Arrays


def random_state(name: str, seed: int) -> np.random.RandomState:
    """The stream of one array: RandomState's streams are frozen across numpy's versions."""
    return np.random.RandomState(zlib.crc32(f"{seed}/{name}".encode()))


def seeded_array(
    name: str, shape: tuple[int, ...], *, seed: int, scale: float = 1.0, offset: float = 0.0
) -> Float[np.ndarray, "..."]:
    """Normal numbers, float32, with deviation `scale` around `offset`."""
    return np.asarray(offset + scale * random_state(name, seed).standard_normal(shape), np.float32)


def seeded_image(name: str, shape: tuple[int, ...], *, seed: int) -> Float[np.ndarray, "B H W C"]:
    """Random images in [-1, 1], float32, with coarse squares of 4x4 under fine noise; H and W divisible by 4."""
    batch, height, width, channels = shape
    state = random_state(name, seed)
    coarse = state.uniform(-1, 1, (batch, height // 4, width // 4, channels)).repeat(4, axis=1).repeat(4, axis=2)
    return (0.6 * coarse + 0.4 * state.uniform(-1, 1, shape)).astype(np.float32)


def seeded_parameters(prefix: str, shapes: Mapping[str, tuple[int, ...]], *, seed: int) -> Arrays:
    """Parameters near the values that each kind has in a living network, so that none is degenerate.

    Kernels have deviation 1 / sqrt(fan in), scales of norms lie around 1, gamma is 0.5 so that attention matters.
    """
    parameters: Arrays = {}
    for path, shape in shapes.items():
        name, kind = f"{prefix}/{path}", path.rsplit("/", maxsplit=1)[-1]
        if kind == "kernel":
            parameters[path] = seeded_array(name, shape, seed=seed, scale=prod(shape[:-1]) ** -0.5)
        elif kind == "scale":
            parameters[path] = seeded_array(name, shape, seed=seed, scale=0.2, offset=1.0)
        elif kind == "gamma":
            parameters[path] = np.asarray(0.5, np.float32)
        elif kind in ("bias", "shared"):
            parameters[path] = seeded_array(name, shape, seed=seed, scale=0.2)
        else:
            raise ValueError(f"no seeded values are defined for a parameter named {path!r}")
    return parameters


def seeded_stats(prefix: str, parameters: Arrays, *, seed: int, iterations: int = POWER_ITERATIONS) -> Arrays:
    """Vectors `u` and `v` for every kernel: a random unit u, then a few power iterations, which leave sigma near."""
    stats: Arrays = {}
    for path, kernel in parameters.items():
        if path.endswith("/kernel"):
            layer = path.removesuffix("/kernel")
            matrix = kernel.reshape(-1, kernel.shape[-1]).astype(np.float64)
            u = random_state(f"{prefix}/{layer}/u", seed).standard_normal(matrix.shape[1])
            for _ in range(iterations):
                v = matrix @ u
                v /= np.linalg.norm(v)
                u = v @ matrix
                u /= np.linalg.norm(u)
            stats[f"{layer}/u"], stats[f"{layer}/v"] = u.astype(np.float32), v.astype(np.float32)
    return stats


def seeded_input(prefix: str, name: str, entry: Mapping[str, Any], *, seed: int) -> Float[np.ndarray, "..."]:
    """One input as a file's specification describes it: an image, or normal numbers of some scale and offset."""
    path, shape = f"{prefix}/{name}", tuple(entry["shape"])
    if entry["kind"] == "image":
        return seeded_image(path, shape, seed=seed)
    return seeded_array(path, shape, seed=seed, scale=entry["scale"], offset=entry["offset"])


def seeded_projection(case: str, output: str, shape: tuple[int, ...], *, seed: int) -> Float[np.ndarray, "..."]:
    """The fixed direction along which gradients are taken: 1 for a scalar, else random and of about unit length."""
    if shape == ():
        return np.ones((), np.float32)
    return seeded_array(f"{case}/projection/{output}", shape, seed=seed, scale=prod(shape) ** -0.5)


def load_specification(file: str) -> dict[str, Any]:
    """What a golden file says of itself: seed, PyTorch's version and, for each case, names and shapes."""
    with np.load(GOLDEN / f"{file}.npz", allow_pickle=False) as arrays:
        return json.loads(arrays["specification"].item())


def load_case(file: str, case: str) -> Case:
    """Everything of one case of `{file}.npz`, in the JAX side's layout, float32."""
    specification = load_specification(file)
    seed = specification["seed"]
    if case not in specification["cases"]:
        raise KeyError(f"{file}.npz has the cases {sorted(specification['cases'])}, not {case!r}")
    about = specification["cases"][case]
    prefix = about["prefix"]
    parameters = seeded_parameters(prefix, {p: tuple(s) for p, s in about["parameters"].items()}, seed=seed)
    stats = seeded_stats(prefix, parameters, seed=seed) if about["spectral_norm"] else {}
    inputs = {name: seeded_input(prefix, name, entry, seed=seed) for name, entry in about["inputs"].items()}
    stored: dict[str, Arrays] = {"input": {}, "output": {}, "gradient": {}}
    with np.load(GOLDEN / f"{file}.npz", allow_pickle=False) as arrays:
        for key in arrays.files:
            for group, found in stored.items():
                if key.startswith(f"{case}/{group}/"):
                    found[key.removeprefix(f"{case}/{group}/")] = arrays[key]
    projections = {n: seeded_projection(case, n, stored["output"][n].shape, seed=seed) for n in about["projected"]}
    return Case(inputs | stored["input"], parameters, stats, projections, stored["output"], stored["gradient"])

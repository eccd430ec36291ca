"""Runs one case in PyTorch and keeps its outputs and gradients as the arrays of a golden file.

Cases run in float64, so that the stored float32 numbers are the true ones and carry no rounding of PyTorch's. A second
run in float32 shows that float32 can come this close: a case that is too badly conditioned for that is refused.
"""

import json
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tests.golden import seeded
from tests.golden.network_shapes import Shapes
from tests.golden.torch_layers import Parameters, divide_by_sigma, to_torch_layout

# Errors are relative to an array's largest number, or to SMALL of the largest in its group if the array is tiny.
FLOAT32_TOLERANCE = 1e-4
SMALL = 1e-2
ROUNDING = 1e-12
Function = Callable[[Parameters, Parameters], dict[str, Tensor]]
Input = Mapping[str, Any] | np.ndarray


def normal(*shape: int, scale: float = 1.0, offset: float = 0.0) -> dict[str, Any]:
    """An input of seeded normal numbers."""
    return {"kind": "normal", "shape": list(shape), "scale": float(scale), "offset": float(offset)}


def image(*shape: int) -> dict[str, Any]:
    """A seeded input in [-1, 1]."""
    return {"kind": "image", "shape": list(shape)}


class GoldenFile:
    """The cases of one npz file."""

    def __init__(self, *, seed: int) -> None:
        """An empty file whose inputs come from this seed."""
        self.seed = seed
        self.arrays: dict[str, Float[np.ndarray, "..."]] = {}
        self.cases: dict[str, dict[str, Any]] = {}
        self.worst_float32 = 0.0

    def record(
        self,
        case: str,
        function: Function,
        *,
        inputs: Mapping[str, Input],
        parameters: Shapes | None = None,
        prefix: str | None = None,
        spectral_norm: bool = True,
        projected: Collection[str] | None = None,
        gradients: Collection[str] | None = None,
    ) -> None:
        """Run `function(weights, inputs)` and keep what it returns, with gradients of the projected outputs.

        `inputs` are descriptions of seeded arrays, or arrays, which are then stored. Weights reach the function in
        torch's layout and, with `spectral_norm`, divided; gradients are with respect to the arrays in JAX's layout.
        `prefix` (default: the case) names the seeded arrays. `projected` and `gradients` default to everything.
        """
        prefix = prefix or case
        shapes = parameters or {}
        made = {
            name: entry if isinstance(entry, np.ndarray) else seeded.seeded_input(prefix, name, entry, seed=self.seed)
            for name, entry in inputs.items()
        }
        weights = seeded.seeded_parameters(prefix, shapes, seed=self.seed)
        stats = seeded.seeded_stats(prefix, weights, seed=self.seed) if spectral_norm else {}
        assert not set(made) & set(weights), "gradients of inputs and of parameters share one set of names"
        wanted = list(gradients) if gradients is not None else [*made, *weights]

        def run(dtype: torch.dtype) -> tuple[dict[str, np.ndarray], list[str]]:
            leaves = {name: torch.tensor(value, dtype=dtype) for name, value in (made | weights).items()}
            for name in wanted:
                leaves[name].requires_grad_()
            layers = to_torch_layout({path: leaves[path] for path in weights})
            if spectral_norm:
                layers = divide_by_sigma(layers, {k: torch.tensor(v, dtype=dtype) for k, v in stats.items()})
            outputs = function(layers, {name: leaves[name] for name in made})
            directions = [name for name in outputs if projected is None or name in projected]
            objective = torch.zeros((), dtype=dtype)
            for name in directions:
                along = seeded.seeded_projection(case, name, tuple(outputs[name].shape), seed=self.seed)
                objective = objective + (outputs[name] * torch.tensor(along, dtype=dtype)).sum()
            slopes = torch.autograd.grad(objective, [leaves[name] for name in wanted]) if wanted else ()
            found = {f"output/{name}": value for name, value in outputs.items()}
            found |= {f"gradient/{name}": slope for name, slope in zip(wanted, slopes, strict=True)}
            return {key: value.detach().contiguous().numpy() for key, value in found.items()}, directions

        exact, directions = run(torch.float64)
        rough, _ = run(torch.float32)
        for group in ("output", "gradient"):
            self._keep(case, {k: v for k, v in exact.items() if k.startswith(group)}, rough)
        for name, entry in inputs.items():
            if isinstance(entry, np.ndarray):
                self.arrays[f"{case}/input/{name}"] = entry
        self.cases[case] = {
            "prefix": prefix,
            "inputs": {name: entry for name, entry in inputs.items() if not isinstance(entry, np.ndarray)},
            "parameters": {path: list(shape) for path, shape in shapes.items()},
            "spectral_norm": spectral_norm,
            "projected": directions,
        }

    def _keep(self, case: str, exact: dict[str, np.ndarray], rough: dict[str, np.ndarray]) -> None:
        """Keep arrays as float32 after refusing those that are not finite or that float32 cannot reproduce."""
        group_scale = max((np.abs(value).max() for value in exact.values()), default=0.0)
        for key, value in exact.items():
            scale = max(np.abs(value).max(), SMALL * group_scale, ROUNDING)
            if np.abs(value).max() < ROUNDING * group_scale:
                # A norm removes what a bias before it adds: such gradients are zero but for the last digits.
                value, scale = np.zeros_like(value), group_scale
            error = float(np.abs(value - rough[key]).max() / scale)
            if not np.isfinite(group_scale) or error > FLOAT32_TOLERANCE:
                raise ValueError(f"{case}/{key}: float32 misses float64 by {error:.1e} > {FLOAT32_TOLERANCE:.0e}")
            self.worst_float32 = max(self.worst_float32, error)
            self.arrays[f"{case}/{key}"] = value.astype(np.float32)

    def save(self, name: str) -> int:
        """Write `{name}.npz` beside this script and return its size in bytes; equal contents give equal bytes."""
        specification = {"seed": self.seed, "torch": torch.__version__.split("+")[0], "cases": self.cases}
        path = seeded.GOLDEN / f"{name}.npz"
        arrays: dict[str, Any] = {key: self.arrays[key] for key in sorted(self.arrays)}
        arrays["specification"] = np.array(json.dumps(specification, sort_keys=True))
        np.savez_compressed(path, allow_pickle=False, **arrays)
        return path.stat().st_size

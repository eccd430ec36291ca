"""Holds a JAX function against a golden case: outputs within 1e-4, gradients within 1e-3 of an array's largest number."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict

from tests.golden.seeded import Case, load_case

Run = Callable[[dict[str, Any], dict[str, Any], dict[str, Any]], dict[str, Any]]
"""(params, spectral stats, inputs) → outputs by name, with params and stats as Flax's nested dictionaries."""

FORWARD, GRADIENT = 1e-4, 1e-3


def nested(flat: dict[str, Any]) -> dict[str, Any]:
    """`{"a/b": x}` as `{"a": {"b": x}}`."""
    return unflatten_dict(flat, sep="/")


def assert_golden(file: str, name: str, run: Run, *, gradients_of: set[str] | None = None) -> Case:
    """Run the case and compare every stored output and gradient.

    `gradients_of` keeps only some gradients, where the function deliberately has others (a stopped gradient).
    """
    case = load_case(file, name)
    stats = nested({path: jnp.asarray(value) for path, value in case.stats.items()})

    def outputs_and_objective(leaves: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        params = nested({path: leaves[f"parameter {path}"] for path in case.parameters})
        outputs = run(params, stats, {path: leaves[f"input {path}"] for path in case.inputs})
        objective = sum(jnp.sum(outputs[path] * projection) for path, projection in case.projections.items())
        return objective, outputs

    leaves = {f"parameter {path}": jnp.asarray(value) for path, value in case.parameters.items()}
    leaves |= {f"input {path}": jnp.asarray(value) for path, value in case.inputs.items()}
    gradients, outputs = jax.jit(jax.grad(outputs_and_objective, has_aux=True))(leaves)

    assert case.outputs, f"{file}/{name} stores nothing to compare with"
    for path, expected in case.outputs.items():
        assert_close(outputs[path], expected, FORWARD, f"{name}: output {path}")
    for path, expected in case.gradients.items():
        if gradients_of is not None and path not in gradients_of:
            continue
        kind = "parameter" if path in case.parameters else "input"
        assert_close(gradients[f"{kind} {path}"], expected, GRADIENT, f"{name}: gradient of {path}")
    return case


def assert_close(actual: Any, expected: np.ndarray, tolerance: float, what: str) -> None:
    """The largest difference, as a share of the largest expected number (of 1 where all are smaller than 1e-3)."""
    actual = np.asarray(actual)
    assert actual.shape == expected.shape, f"{what}: {actual.shape} instead of {expected.shape}"
    largest = float(np.abs(expected).max())
    scale = largest if largest > 1e-3 else 1.0
    difference = float(np.abs(actual - expected).max()) / scale
    assert difference <= tolerance, f"{what} differs by {difference:.2e} of its largest number"

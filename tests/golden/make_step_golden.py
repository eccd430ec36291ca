"""Makes the golden arrays of whole steps: `python -m tests.golden.make_step_golden` (needs PyTorch).

The arrays are of float64. Beside each stands its floor: how far float32 comes to lie from it at most, over runs from starts
that differ in their last digit. Each run rounds as another processor might, and ReLUs near zero fall on either side.
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from tests.golden import step_cases as cases
from tests.golden.seeded import GOLDEN, random_state
from tests.golden.torch_steps import Scene, finetune_steps, meta_steps

ROUGH_RUNS = 16


def kept(name: str, found: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Some numbers of each array, as float64."""
    arrays = {path: value.detach().double().reshape(-1).numpy() for path, value in found.items()}
    return {path: value[cases.chosen(f"{name}/{path}", value.size)] for path, value in arrays.items()}


def record(name: str, steps: Callable[[Scene], dict[str, Tensor]]) -> dict[str, np.ndarray]:
    """The arrays of one training and their floors."""
    exact = kept(name, steps(Scene(torch.float64)))
    floors = dict.fromkeys(exact, 0.0)
    for run in range(ROUGH_RUNS):
        nudge = random_state(f"steps/nudge/{run}", cases.SEED) if run else None
        for path, value in kept(name, steps(Scene(torch.float32, nudge))).items():
            floors[path] = max(floors[path], float(np.abs(value - exact[path]).max()))
    names = sorted(exact)
    worst = sorted(names, key=lambda path: floors[path] / max(np.abs(exact[path]).max(), 1e-9))[-5:]
    print(name, {path: (f"{floors[path]:.1e}", f"{np.abs(exact[path]).max():.1e}") for path in worst})
    return {f"{name}/{path}": exact[path].astype(np.float32) for path in names} | {
        f"{name}/floors": np.array([floors[path] for path in names], np.float32)
    }


def main() -> None:
    """Write steps.npz."""
    arrays = record("meta", meta_steps) | record("finetune", finetune_steps)
    path = GOLDEN / f"{cases.FILE}.npz"
    np.savez_compressed(path, allow_pickle=False, **arrays)
    print(path, path.stat().st_size, "bytes")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()

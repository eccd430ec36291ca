"""How many people an hour are fine-tuned on 1, 2 and 4 devices: `python -m benchmarks.people_an_hour [--devices 1,2,4]`.

The bundled weights and the losses of configs/finetune_heads.py, 8 shots of noise each, one person a device at once, as
finetune.py does it. A few steps are timed, compilation apart, and reckoned up to the 40 of the preset. Devices of a CPU are
simulated: they share its cores, so that this shows what the sharding costs, not what more hardware brings. `--width` computes
people of one device side by side by vmap.
"""

import argparse
import os
import subprocess
import sys
import time

STEPS = 40
_TIMED = 4


def measure(*, devices: int, at_once: int, width: int) -> None:
    """Print a line: this process's devices."""
    import jax
    import numpy as np

    import th_jax
    from th_jax.losses import loss_preset
    from th_jax.training.finetune_people import finetune_many
    from th_jax.training.optimizers import Optimizers
    from th_jax.training.sharding import make_mesh
    from th_jax.types import Shots

    assert len(jax.devices()) == devices
    jax.config.update("jax_default_matmul_precision", "high")
    meta, rng = th_jax.load_pretrained("heads64"), np.random.default_rng(0)
    size, people = meta.networks.image_size, devices * at_once
    shots = Shots(
        rng.integers(0, 256, (8, size, size, 3), dtype=np.uint8),
        rng.uniform(0.2, 0.8, (8, 68, 2)).astype(np.float32),
        np.ones(8, np.float32),
    )
    looks: list[float] = []

    def observe(name: str, avatar: "th_jax.Avatar", metrics: dict[str, np.ndarray]) -> bool:
        looks.append(time.perf_counter())
        return False

    everybody = [(str(number), shots) for number in range(people)]
    for _ in finetune_many(
        meta.networks, meta.weights, meta.perceptual, everybody, epochs=3 * _TIMED, chunk_steps=_TIMED,
        loss_weights=loss_preset("heads"), optimizers=Optimizers(), mesh=make_mesh(), at_once=at_once, vmap_width=width,
        observe=observe,
    ):  # fmt: skip
        pass
    # The first chunk compiles; the next two are steady. Everybody is looked at after each chunk.
    step = (looks[-1] - looks[people - 1]) / (2 * _TIMED)
    print(
        f"{devices:>8}{at_once:>9}{width:>7}{step:>16.2f}{step / people:>24.2f}{3600 * people / (STEPS * step):>16.0f}"
    )


def main() -> None:
    """Print the table, each line in a process of its own."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.people_an_hour")
    parser.add_argument("--devices", default="1,2,4")
    parser.add_argument("--at_once", type=int, default=1)
    parser.add_argument("--width", type=int, default=1)
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        measure(devices=int(options.devices), at_once=options.at_once, width=options.width)
        return
    print(f"{os.cpu_count()} cores, {STEPS} steps a person")
    print(
        f"{'devices':>8}{'at once':>9}{'width':>7}{'s a round step':>16}{'s a step and person':>24}{'people/hour':>16}",
        flush=True,
    )
    for devices in options.devices.split(","):
        flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
        command = [sys.executable, "-m", "benchmarks.people_an_hour", "--here", "--devices", devices]
        command += ["--at_once", str(options.at_once), "--width", str(options.width)]
        subprocess.run(command, env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}, check=True)


if __name__ == "__main__":
    main()

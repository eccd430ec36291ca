"""How long making all weights takes, in a fresh process (cold) and again in the same one: `python -m benchmarks.start`."""

import argparse
import time

import jax

from th_jax.models.networks import Networks


def main() -> None:
    """Print seconds."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.start")
    parser.add_argument("--image_size", type=int, default=256)
    options = parser.parse_args()
    networks = Networks(image_size=options.image_size)
    for name, seed in (("cold", 0), ("warm", 1)):
        start = time.perf_counter()
        jax.block_until_ready(networks.init(jax.random.key(seed)))
        print(f"{name}: {time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main()

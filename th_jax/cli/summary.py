"""`th-jax summary`: lists the layers of the networks."""

import argparse

from th_jax.cli.options import DONE, new_parser


def parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    made = new_parser(
        "summary", "Lists the layers of E, P, G and D with their outputs, parameters and FLOP.",
        example="th-jax summary --image-size 128 --base-width 32",
    )  # fmt: skip
    made.add_argument("--image-size", type=int, default=256, help="side of a frame in pixels")
    made.add_argument("--base-width", type=int, default=64, help="channels of the first level")
    return made


def run(options: argparse.Namespace) -> int:
    """Print the table."""
    from th_jax.models.networks import Networks
    from th_jax.models.summary import table_lines

    print(*table_lines(Networks(image_size=options.image_size, base_width=options.base_width)), sep="\n")
    return DONE

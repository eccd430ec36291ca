"""Draws a contact sheet of rendered people, one row per person.

python -m data_prep.tools.contact_sheet --out out/heads.png --people 24 --size 128
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from data_prep.heads.people import Style, render_person
from th_jax.console import forgiving_output
from th_jax.provenance.record import Kind, Provenance
from th_jax.provenance.signing_options import add_signing_options, tried_signer
from th_jax.provenance.write import write_image


def contact_sheet(
    first_seed: int, *, people: int, frames: int, size: int, landmarks: bool = False, style: Style = Style.DRAWN
) -> UInt8[np.ndarray, "H W 3"]:
    """Draw an image of `people` rows and `frames` columns, of consecutive seeds.

    `landmarks` marks the true ones with white dots. Photographs are rendered at twice the size and reduced, as in data
    sets.

    Raises:
        ValueError: for no people or frames, a reserved seed, or an invalid size.
    """
    if people < 1:
        raise ValueError(f"people must be 1 or more, but is {people}")
    rows = []
    for seed in range(first_seed, first_seed + people):
        enlarged = 2 if style == Style.PHOTO and size <= 512 else 1
        person = render_person(seed, frames=frames, size=enlarged * size, style=style)
        images = [cv2.resize(frame, (size, size), interpolation=cv2.INTER_AREA) for frame in person.frames]
        if landmarks:
            cells = np.clip(np.floor(person.landmarks * size).astype(int), 0, size - 1)
            for image, places in zip(images, cells, strict=True):
                image[places[:, 1], places[:, 0]] = 255
        rows.append(np.concatenate(images, axis=1))
    return np.concatenate(rows, axis=0)


@forgiving_output()
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns 0 when done, 1 when failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="PNG or JPEG to write")
    parser.add_argument("--people", type=int, default=8)
    parser.add_argument("--frames", type=int, default=8, help="frames per person")
    parser.add_argument("--size", type=int, default=128, help="side of a frame in pixels")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--landmarks", action="store_true", help="mark the true landmarks")
    parser.add_argument("--style", type=Style, choices=list(Style), default=Style.DRAWN, help="style of rendering")
    add_signing_options(parser)
    options = parser.parse_args(arguments)
    try:
        signer = tried_signer(options.signing_key, options.signing_certificate)
        image = contact_sheet(
            options.first_seed,
            people=options.people,
            frames=options.frames,
            size=options.size,
            landmarks=options.landmarks,
            style=options.style,
        )
        record = Provenance(kind=Kind.SYNTHETIC_RENDER, notes="contact sheet")
        write_image(options.out, image, provenance=record, signer=signer)
    except (ValueError, OSError, ImportError, MemoryError) as error:
        print(f"contact_sheet: {error or 'there is not enough memory'}", file=sys.stderr)
        return 1
    print(f"{options.out}: {options.people} people x {options.frames} frames")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Draws a contact sheet of synthetic people: a row a person, a column a moment.

python -m data_prep.synthetic_heads.contact_sheet --out out/heads.png --people 24 --size 128
"""

import argparse
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from data_prep.synthetic_heads.people import render_person
from th_jax.media.provenance import Kind, Provenance
from th_jax.media.write import write_image


def contact_sheet(
    first_seed: int, *, people: int, frames: int, size: int, landmarks: bool = False
) -> UInt8[np.ndarray, "H W 3"]:
    """A picture of `people` rows and `frames` columns; seeds are counted up from the first.

    Args:
        first_seed: the first person's seed.
        people: rows.
        frames: columns.
        size: width and height of each frame in pixels.
        landmarks: mark the true landmarks with white dots.

    Raises:
        ValueError: for no people or frames, a reserved seed, or an impossible size.
    """
    if people < 1:
        raise ValueError(f"a contact sheet needs at least 1 person, got people={people}")
    rows = []
    for seed in range(first_seed, first_seed + people):
        person = render_person(seed, frames=frames, size=size)
        if landmarks:
            cells = np.clip(np.floor(person.landmarks * size).astype(int), 0, size - 1)
            person.frames[np.arange(frames)[:, None], cells[..., 1], cells[..., 0]] = 255
        rows.append(np.concatenate(list(person.frames), axis=1))
    return np.concatenate(rows, axis=0)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="PNG or JPEG to write")
    parser.add_argument("--people", type=int, default=8)
    parser.add_argument("--frames", type=int, default=8, help="frames a person")
    parser.add_argument("--size", type=int, default=128, help="pixels a frame")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--landmarks", action="store_true", help="mark the true landmarks")
    options = parser.parse_args()
    picture = contact_sheet(
        options.first_seed,
        people=options.people,
        frames=options.frames,
        size=options.size,
        landmarks=options.landmarks,
    )
    write_image(options.out, picture, provenance=Provenance(kind=Kind.SYNTHETIC_RENDER, notes="contact sheet"))
    print(f"{options.out}: {options.people} people x {options.frames} frames")


if __name__ == "__main__":
    main()

"""`th-jax faces`: a sheet of the people in a photo or video with their numbers, for `--face N` of other commands."""

import argparse
from pathlib import Path

from th_jax.cli.options import DONE, add_landmark_model, new_parser


def parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    made = new_parser(
        "faces",
        "Draws the people in a photo or video with their numbers, by which --face of finetune, animate and track chooses\n"
        "one of them. Face 1 is the most prominent: large, clear and often seen.",
        example="th-jax faces wedding.mp4 --out faces.png",
    )
    made.add_argument("file", type=Path, help="photo or video")
    made.add_argument("--out", type=Path, required=True, help="image to write, ending in .png or .jpg")
    add_landmark_model(made)
    return made


def run(options: argparse.Namespace) -> int:
    """Find the people in an isolated process, and write the sheet.

    Raises:
        ValueError, MediaError: if the file cannot be read or shows no face.
        OSError: if a file cannot be read or written.
    """
    from th_jax.data.people import people_of
    from th_jax.faces.people import Person, people_sheet
    from th_jax.media.isolation import naming, run_limited
    from th_jax.provenance import Kind, Provenance, write_image
    from th_jax.provenance.write import check_target

    check_target(options.out, (".png", ".jpg", ".jpeg"), unmarked=False)
    if options.file.is_dir():
        raise ValueError(f"{options.file} is a folder: give one photo or video")
    if options.out.exists() and options.file.exists() and options.out.samefile(options.file):
        raise ValueError(f"{options.out} is the input itself and would be overwritten: choose another output")
    with naming(options.file):
        people = [Person(*person) for person in run_limited(people_of, str(options.file))]
    if not people:
        raise ValueError(f"no face was found in {options.file}: use images that show faces upright and roughly frontal")
    write_image(options.out, people_sheet(people), provenance=Provenance(kind=Kind.REAL_CROP))
    for number, person in enumerate(people, 1):
        print(f"face {number}: in {person.images} of the examined images")
    print(options.out)
    return DONE

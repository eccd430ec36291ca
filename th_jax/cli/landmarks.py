"""`th-jax landmarks`: a local page on which the 68 landmarks of one photo are placed by hand."""

import argparse
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from th_jax.cli.options import DONE, add_landmark_model, new_parser
from th_jax.optional import install_command


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = new_parser(
        "landmarks",
        "Serves a page to this machine, on which the 68 landmarks of one photo are placed by hand, for paintings, statues "
        "and drawings in which no face is detected.",
        example="th-jax landmarks statue.jpg --out statue.json",
    )
    made.add_argument("image", type=Path, help="photo of one face")
    made.add_argument("--out", type=Path, help="JSON file to write or correct; default: the photo's name with .json")
    made.add_argument(
        "--no-detection", action="store_true", help="begin with the average face, not with a detected one"
    )
    made.add_argument("--port", type=int, default=8000, help="port on 127.0.0.1; 0 for any free one")
    add_landmark_model(made)
    return made


def run(options: argparse.Namespace) -> int:
    """Serve the page until interrupted.

    Raises:
        ValueError, MediaError, OSError: if the photo cannot be read, or the file or the port cannot be used.
        ImportError: if the extra "study" is not installed.
    """
    from th_jax.media import read_image
    from th_jax.media.isolation import run_limited
    from th_jax.storage.files import check_place

    try:
        from th_jax.data.landmark_editor.serve import serve_editor
    except ModuleNotFoundError as error:
        raise ImportError(f"serving needs the extra study ({install_command('study')}): {error}") from error
    out = options.image.with_suffix(".json") if options.out is None else options.out
    check_place(out)
    image = run_limited(read_image, str(options.image))
    found = None if options.no_detection or out.exists() else _detected(image)
    serve_editor(image, out, found=found, port=options.port)
    return DONE


def _detected(image: UInt8[np.ndarray, "H W 3"]) -> Float[np.ndarray, "68 2"] | None:
    """Return the landmarks of the most prominent detected face, in pixels; None without one or without a detector."""
    from th_jax.faces import detect_faces, most_prominent, settled_landmarks

    try:
        faces = detect_faces(image)
        return settled_landmarks(image, most_prominent(faces)[0].box) if faces else None
    except (ImportError, FileNotFoundError):
        return None

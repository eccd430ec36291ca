"""Bundled people and drivers to try the software with: a rendered head, a portrait, and videos of rendered heads."""

import shutil
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np

from th_jax.consent import Basis, ConsentRecord, make_consent
from th_jax.consent.record import Use
from th_jax.data.episodes import decode_frame
from th_jax.data.records import FRAME_SIZE, VideoRecords, bundled_heads
from th_jax.provenance import Kind, Provenance, Signer, write_video

PORTRAIT = Path(__file__).parent.parent / "assets" / "portrait" / "astronaut.jpg"
HEAD, DRIVER = 3, 8
"""Indices of two held-out people: the one who is fine-tuned, and the one who drives."""

SHOTS, FPS = 8, Fraction(25)


class Example(NamedTuple):
    """A bundled person, and the facts of the consent record."""

    subject: str
    basis: Basis
    scope: str = ""


PEOPLE = {
    "head": Example("a rendered head", Basis.SYNTHETIC),
    "astronaut": Example(
        "Eileen Collins", Basis.PUBLIC_DOMAIN,
        "NASA's portrait, to show what this software does; she was not asked",
    ),
}  # fmt: skip


def write_shots(name: str, folder: Path) -> Path:
    """Write the images of a bundled person into a folder, and return their path: a subfolder, or a photo.

    Raises:
        OSError: if a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if name == "astronaut":
        return Path(shutil.copy(PORTRAIT, folder / "astronaut.jpg"))
    shots = folder / name
    shots.mkdir(exist_ok=True)
    record = VideoRecords(bundled_heads(), "heldout").read(HEAD)
    for index in np.linspace(0, 63, SHOTS).round().astype(int):
        (shots / f"{index:02}.jpg").write_bytes(bytes(record.frames[index]))
    return shots


def consent_of(name: str, shots: Path) -> ConsentRecord:
    """Make the consent record of a bundled person for the images of `write_shots`."""
    subject, basis, scope = PEOPLE[name]
    return make_consent(
        shots, subject=subject, basis=basis, uses=(Use.EDUCATION, Use.PUBLICATION), scope=scope
    )  # fmt: skip


def write_driver(path: Path, *, person: int = DRIVER, signer: Signer | None = None) -> None:
    """Write the video of a bundled held-out person.

    Raises:
        SigningError, OSError: as `write_video`.
    """
    frames = VideoRecords(bundled_heads(), "heldout").read(person).frames
    record = Provenance(kind=Kind.SYNTHETIC_RENDER, notes="a bundled head")
    decoded = (decode_frame(jpeg, size=FRAME_SIZE) for jpeg in frames)
    write_video(path, decoded, fps=FPS, provenance=record, crf=12, signer=signer)

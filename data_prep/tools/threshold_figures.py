"""Draws examples of each quality threshold: a row of degraded copies of a rendered face, with their values.

python -m data_prep.tools.threshold_figures --out docs/images
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from data_prep.build.quality import Thresholds, disagreement, face_patch, sharpness
from data_prep.heads import draw_identity, head_state, render_clip, render_head, render_person
from data_prep.heads.records import encode_frame
from data_prep.inspect.page import draw_lines
from th_jax.console import forgiving_output
from th_jax.data.episodes import decode_frame
from th_jax.faces import box_around, face_descriptor, face_size, landmarks_in_box
from th_jax.provenance import Kind, Provenance, Signer, write_image
from th_jax.provenance.signing_options import add_signing_options, tried_signer

SIZE, CELL = 256, 128
"""Side of a rendered frame, and of an image in a row, in pixels."""

SEED = 3
"""Seed of the face."""

_KEPT, _REFUSED, _PAPER, _INK = (70, 150, 80), (190, 50, 50), (250, 250, 250), (30, 30, 30)
_CAPTION, _BORDER, _GAP = 20, 3, 6


class Example(NamedTuple):
    """A frame and the number that is compared with a threshold."""

    frame: UInt8[np.ndarray, "H W 3"]
    value: float
    kept: bool


def examples(name: str, *, thresholds: Thresholds) -> list[Example]:
    """Frames on both sides of a threshold, named as in `Thresholds`.

    Raises:
        ValueError: if the threshold has no figure.
    """
    makers = {
        "face": (_smaller, 1),
        "sharpness": (_softer, 1),
        "brightness": (_darker, 1),
        "landmark_jump": (_turned, -1),
        "points_outside": (_cut, -1),
        "duplicate": (_repeated, 1),
        "same_person": (_others, -1),
    }
    if name not in makers:
        raise ValueError(f"there are figures of {', '.join(makers)}, but not of {name!r}")
    make, sign = makers[name]
    limit = getattr(thresholds, name)
    # The distance of two people must be below its threshold; the other numbers may reach theirs.
    reaches = (lambda v: v < limit) if name == "same_person" else (lambda v: sign * v >= sign * limit)
    return [Example(frame, value, bool(reaches(value))) for frame, value in make()]


def row(shown: list[Example]) -> UInt8[np.ndarray, "H W 3"]:
    """Draw the examples side by side, framed green if kept and red if dropped."""
    width = CELL + 2 * _BORDER
    image = np.full((width + _CAPTION, len(shown) * (width + _GAP) - _GAP, 3), _PAPER, np.uint8)
    for number, (frame, value, kept) in enumerate(shown):
        left, color = number * (width + _GAP), _KEPT if kept else _REFUSED
        cell = cv2.resize(frame, (CELL, CELL), interpolation=cv2.INTER_AREA if len(frame) > CELL else cv2.INTER_NEAREST)
        framed = cv2.copyMakeBorder(cell, _BORDER, _BORDER, _BORDER, _BORDER, cv2.BORDER_CONSTANT, value=color)
        image[:width, left : left + width] = framed
        text = f"{value:.3g}" if value < 1000 else f"{value:.0f}"
        cv2.putText(image, text, (left, width + 15), cv2.FONT_HERSHEY_SIMPLEX, 0.45, _INK, 1, cv2.LINE_AA)
    return image


def _face() -> tuple[UInt8[np.ndarray, "S S 3"], Float[np.ndarray, "68 2"]]:
    """Render a good frame, with its true landmarks in pixels."""
    person = render_person(SEED, frames=1, size=SIZE)
    return person.frames[0], (person.landmarks[0, :68] * SIZE).astype(np.float32)


def _smaller() -> Iterator[tuple[np.ndarray, float]]:
    frame, landmarks = _face()
    for pixels in (128, 96, 80, 64, 48, 36):
        small = cv2.resize(frame, (pixels, pixels), interpolation=cv2.INTER_AREA)
        yield small, float(face_size(landmarks * pixels / SIZE))


def _softer() -> Iterator[tuple[np.ndarray, float]]:
    frame, landmarks = _face()
    for percent in (0.0, 1.0, 2.0, 3.3, 4.5, 6.0):
        soft = frame if not percent else cv2.GaussianBlur(frame, (0, 0), percent / 100 * float(face_size(landmarks)))
        yield soft, sharpness(_patch(soft, landmarks))


def _darker() -> Iterator[tuple[np.ndarray, float]]:
    frame, landmarks = _face()
    for factor in (1.0, 0.6, 0.4, 0.25, 0.15, 0.08):
        dark = (frame * factor).astype(np.uint8)
        yield dark, float(np.percentile(_patch(dark, landmarks), 90))


def _turned() -> Iterator[tuple[np.ndarray, float]]:
    """Turn the head away until the predictor's results become unstable."""
    for degrees in (0, 32, 48, 56, 64, 80):
        rendering = render_head(draw_identity(SEED), head_state(yaw=float(np.radians(degrees))), size=SIZE)
        before = landmarks_in_box(rendering.frame, box_around(rendering.landmarks[:68] * SIZE))
        landmarks = landmarks_in_box(rendering.frame, box_around(before))
        yield draw_lines(rendering.frame, landmarks / SIZE), disagreement(landmarks, before)


def _cut() -> Iterator[tuple[np.ndarray, float]]:
    """Move the face out of the frame to the left."""
    frame, landmarks = _face()
    edges = np.sort(landmarks[:, 0])
    for points in (0, 2, 4, 6, 10, 16):
        left = round(float(edges[points - 1 : points + 1].mean())) if points else round(float(edges[0])) - 8
        yield frame[48:208, left : left + 160], float((landmarks[:, 0] < left).sum())


def _repeated() -> Iterator[tuple[np.ndarray, float]]:
    """Return the same frame from other encodings, one 8 ms later, and two of another moment."""
    clip = render_clip(SEED, seconds=0.2, fps=240.0, size=SIZE)
    landmarks = (clip.landmarks[:, :68] * SIZE).astype(np.float32)
    first = _patch(clip.frames[0], landmarks[0])
    for quality in (98, 95, 90):
        copy = decode_frame(encode_frame(clip.frames[0], size=SIZE, quality=quality), size=SIZE)
        yield copy, float(np.abs(_patch(copy, landmarks[0]) - first).mean())
    for index in (2, 14, 32):
        yield clip.frames[index], float(np.abs(_patch(clip.frames[index], landmarks[index]) - first).mean())


def _others() -> Iterator[tuple[np.ndarray, float]]:
    """Return the same person, and others who look increasingly different."""
    own = render_person(SEED, frames=3, size=SIZE)
    people = [(own.frames[n], own.landmarks[n]) for n in range(3)]
    for seed in range(SEED + 1, SEED + 16):
        other = render_person(seed, frames=1, size=SIZE)
        people.append((other.frames[0], other.landmarks[0]))
    described = [face_descriptor(f, (points[:68] * SIZE).astype(np.float32)) for f, points in people]
    distances = [float(np.linalg.norm(d - described[0])) for d in described]
    others = sorted(range(3, len(people)), key=lambda n: distances[n])
    for n in (1, 2, *(others[int(i)] for i in np.linspace(0, len(others) - 1, 4))):
        yield people[n][0], distances[n]


def _patch(frame: UInt8[np.ndarray, "H W 3"], landmarks: Float[np.ndarray, "68 2"]) -> Float[np.ndarray, "64 64"]:
    patch = face_patch(frame, landmarks)
    assert patch is not None  # the landmarks are those of the frame
    return patch


@forgiving_output()
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns 0 when done, 1 when failed."""
    parser = argparse.ArgumentParser(prog="python -m data_prep.tools.threshold_figures", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the figures, one per threshold")
    add_signing_options(parser)
    options = parser.parse_args(arguments)
    try:
        signer = tried_signer(options.signing_key, options.signing_certificate)
        options.out.mkdir(parents=True, exist_ok=True)
        write_figures(options.out, signer=signer)
    except (ValueError, OSError, ImportError) as error:
        print(f"threshold_figures: {error}", file=sys.stderr)
        return 1
    return 0


def write_figures(folder: Path, *, signer: Signer | None = None) -> None:
    """Write a figure of each threshold into a folder, and print its values.

    Raises:
        OSError: if a file cannot be written.
        ImportError: without the extra `prep`.
    """
    thresholds = Thresholds()
    for name in thresholds._fields:
        if name == "frames":  # the number of frames has no figure
            continue
        shown = examples(name, thresholds=thresholds)
        path = folder / f"threshold_{name}.jpg"
        provenance = Provenance(kind=Kind.SYNTHETIC_RENDER, notes=f"threshold {name}")
        write_image(path, row(shown), provenance=provenance, signer=signer, quality=88)
        print(f"{path}: {getattr(thresholds, name):g}: " + ", ".join(f"{example.value:.3g}" for example in shown))


if __name__ == "__main__":
    sys.exit(main())

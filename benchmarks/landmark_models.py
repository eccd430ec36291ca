"""Errors of the landmark models `heads` and `dlib` on held-out rendered people, and how far they agree on real frames.

    python -m benchmarks.landmark_models --data runs/heads_photo --sheet rendered.jpg
    python -m benchmarks.landmark_models --real portrait.jpg talk.mp4 --sheet real.jpg

Errors are mean distances in percent of the distance between the outer corners of the eyes. Both models get the boxes of
dlib's face detector; where it finds no face, the box around the true points. True points of the jaw are fixed to the head:
when it turns, they leave the outline that dlib's model follows, so part of its errors there is another definition.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from th_jax.data.people import video_samples
from th_jax.data.records import read_videos
from th_jax.faces import box_around, detect_faces, most_prominent, settled_landmarks
from th_jax.faces.detect import DLIB, HEADS, Box
from th_jax.faces.landmark_cascade import cascade_landmarks
from th_jax.faces.pose import yaw
from th_jax.faces.pupils import find_pupils
from th_jax.landmarks.scheme import IBUG_POINTS
from th_jax.media import VIDEO_SUFFIXES, open_video, read_image
from th_jax.provenance import Kind, Provenance, write_image

REGIONS = {
    "jaw": slice(0, 17),
    "brows": slice(17, 27),
    "nose": slice(27, 36),
    "eyes": slice(36, 48),
    "mouth": slice(48, 68),
    "all 68": slice(0, 68),
    "without jaw": slice(17, 68),
}
YAWS = ((0, 10), (10, 20), (20, 30), (30, 90))
"""Bins of the true yaw, in degrees to either side."""

_CELL, _COLUMNS = 200, 8
_COLORS = {"true": (0, 255, 0), DLIB: (255, 60, 60), HEADS: (60, 160, 255)}


class Looked(NamedTuple):
    """A frame with what the models find, in pixels."""

    frame: UInt8[np.ndarray, "H W 3"]
    true: Float[np.ndarray, "70 2"] | None
    dlib: Float[np.ndarray, "68 2"]
    heads: Float[np.ndarray, "68 2"]
    pupils: Float[np.ndarray, "2 2"]
    """Pupils of `heads`; detection does not use them."""


def look(frame: UInt8[np.ndarray, "H W 3"], true: Float[np.ndarray, "70 2"] | None) -> Looked | None:
    """Find the landmarks of a frame's face with both models; None if it is unknown where the face is."""
    expected = None if true is None else box_around(true[:IBUG_POINTS])
    faces = detect_faces(frame)
    if expected is not None:
        faces = [face for face in faces if np.linalg.norm(face.box.center - expected.center) < expected.side / 2]
    box = most_prominent(faces)[0].box if faces else expected
    if box is None:
        return None
    dlib, heads = (settled_landmarks(frame, box, model=model) for model in (DLIB, HEADS))
    settled: Box = box_around(heads)
    return Looked(frame, true, dlib, heads, cascade_landmarks(frame, settled.center, settled.side)[IBUG_POINTS:])


def rendered(data: str, frames: int) -> Iterator[Looked]:
    """Look at evenly spaced frames of each held-out person."""
    for _, record in read_videos(data, "heldout"):
        assert record.true_landmarks is not None, "only rendered heads have true landmarks"
        for index in np.linspace(0, len(record.frames) - 1, min(frames, len(record.frames))).round().astype(int):
            frame = cv2.imdecode(np.frombuffer(record.frames[index], np.uint8), cv2.IMREAD_COLOR_RGB)
            true = record.true_landmarks[index] * len(frame)
            if np.isfinite(true[:IBUG_POINTS]).all() and (looked := look(frame, true)) is not None:
                yield looked


def real(files: list[Path], frames: int) -> Iterator[tuple[str, Looked]]:
    """Look at photos and evenly spaced frames of videos."""
    for file in files:
        if file.suffix.lower() in VIDEO_SUFFIXES:
            with open_video(file) as video:
                images = [frame for _, frame in video_samples(video, a_second=2.0, most=frames)]
        else:
            images = [read_image(file)]
        for image in images:
            if (looked := look(image, None)) is not None:
                yield file.name, looked


def errors(found: Float[np.ndarray, "N 68 2"], true: Float[np.ndarray, "N 68 2"]) -> Float[np.ndarray, "N 68"]:
    """Distances in percent of the distance between the outer corners of the true eyes."""
    eyes = np.linalg.norm(true[:, 45] - true[:, 36], axis=-1)
    return 100 * np.linalg.norm(found - true, axis=-1) / eyes[:, None]


def tables(looked: list[Looked]) -> Iterator[str]:
    """Lines of the tables of errors, by region and by yaw."""
    true = np.stack([each.true[:IBUG_POINTS] for each in looked if each.true is not None])
    by_model = {name: errors(np.stack([getattr(each, name) for each in looked]), true) for name in (HEADS, DLIB)}
    names = list(by_model)
    yield f"{len(looked)} frames"
    yield "| points | " + " | ".join(f"{name}: mean | median | 95 %" for name in names) + " |"
    yield "|---" * (1 + 3 * len(names)) + "|"
    for region, points in REGIONS.items():
        faces = [by_model[name][:, points].mean(1) for name in names]
        cells = [f"{f(face):.1f}" for face in faces for f in (np.mean, np.median, lambda x: np.percentile(x, 95))]
        yield f"| {region} | " + " | ".join(cells) + " |"
    yield ""
    yield "| yaw | frames | " + " | ".join(f"{name}: all 68 | without jaw" for name in names) + " |"
    yield "|---" * (2 + 2 * len(names)) + "|"
    turned = np.abs(yaw(true))
    for low, high in YAWS:
        inside = (turned >= low) & (turned < high)
        if inside.any():
            cells = [
                f"{by_model[name][inside][:, REGIONS[r]].mean():.1f}"
                for name in names
                for r in ("all 68", "without jaw")
            ]
            yield f"| {low} to {high}° | {inside.sum()} | " + " | ".join(cells) + " |"
    yield ""
    pupils = np.stack([each.true[IBUG_POINTS:] for each in looked if each.true is not None])
    eyes = np.linalg.norm(true[:, 45] - true[:, 36], axis=-1)[:, None]
    found = np.stack([find_pupils(each.frame, each.heads) for each in looked])
    for name, points in (
        (HEADS, np.stack([each.pupils for each in looked])),
        ("find_pupils in its outlines", found),
    ):
        distance = 100 * np.linalg.norm(points - pupils, axis=-1) / eyes
        yield f"pupils of {name}: {np.nanmean(distance):.1f}, known {100 * np.isfinite(points).all(-1).mean():.0f} %"


def agreement(named: list[tuple[str, Looked]]) -> Iterator[str]:
    """Lines of the table of distances between the two models, by file."""
    yield "| file | frames | " + " | ".join(REGIONS) + " |"
    yield "|---" * (2 + len(REGIONS)) + "|"
    for name in dict.fromkeys(name for name, _ in named):
        looked = [each for file, each in named if file == name]
        apart = errors(np.stack([each.heads for each in looked]), np.stack([each.dlib for each in looked]))
        cells = [f"{apart[:, points].mean():.1f}" for points in REGIONS.values()]
        yield f"| {name} | {len(looked)} | " + " | ".join(cells) + " |"


def sheet(looked: list[Looked]) -> UInt8[np.ndarray, "H W 3"]:
    """Faces with the true points (green), dlib's (red) and those of `heads` (blue)."""
    chosen = [looked[int(i)] for i in np.linspace(0, len(looked) - 1, min(len(looked), 5 * _COLUMNS))]
    cells = [_cell(each) for each in chosen]
    cells += [np.zeros_like(cells[0])] * (-len(cells) % _COLUMNS)
    return np.concatenate([np.concatenate(cells[i : i + _COLUMNS], 1) for i in range(0, len(cells), _COLUMNS)])


def _cell(each: Looked) -> UInt8[np.ndarray, "N N 3"]:
    box = box_around(each.heads if each.true is None else each.true[:IBUG_POINTS])
    scale = _CELL / (1.5 * box.side)
    shift = _CELL / 2 - box.center * scale + (scale - 1) / 2
    matrix = np.column_stack([np.eye(2) * scale, shift])
    cell = cv2.warpAffine(each.frame, matrix, (_CELL, _CELL), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    for name, points in (("true", each.true), (DLIB, each.dlib), (HEADS, each.heads)):
        for x, y in [] if points is None else ((points - box.center) * scale + _CELL / 2)[:IBUG_POINTS] - 0.5:
            cv2.circle(cell, (round(x * 16), round(y * 16)), 20, _COLORS[name], -1, cv2.LINE_AA, 4)
    return np.asarray(cell)


def main() -> None:
    """Print the tables; draw the sheet if asked to."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.landmark_models")
    parser.add_argument("--data", default="bundled", help="data set of rendered heads")
    parser.add_argument("--real", type=Path, nargs="+", help="photos and videos, instead of rendered heads")
    parser.add_argument("--frames", type=int, default=16, help="of each person or video")
    parser.add_argument("--sheet", type=Path, help="PNG or JPEG to write, of some faces")
    options = parser.parse_args()
    if options.real:
        named = list(real(options.real, options.frames))
        print("\n".join(agreement(named)))
        looked = [each for _, each in named]
    else:
        looked = list(rendered(options.data, options.frames))
        print("\n".join(tables(looked)))
    if options.sheet:
        kind = Kind.REAL_CROP if options.real else Kind.FIGURE
        write_image(options.sheet, sheet(looked), provenance=Provenance(kind=kind, notes="landmarks of two models"))


if __name__ == "__main__":
    main()

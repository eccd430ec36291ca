"""How far found pupils lie from the rendered ones, at several sizes, and how many are found: `python -m benchmarks.pupils`.

Errors are in percent of the eye's width, over open eyes (lids apart by more than 0.2 of the width), with the true
outlines and with dlib's. Beside them: the middle of the outline, which knows nothing of gaze, and what is found in
half-open (0.1 to 0.2) and shut (below 0.1) eyes.

`--videos FILE ...` measures real videos instead, without any truth: how much found pupils jitter from frame to frame, beside
the middles of the eyes' corners, in percent of the eye's width.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, Float32, UInt8

from data_prep.heads.identity import draw_identity
from data_prep.heads.mesh import load_mesh
from data_prep.heads.motion import SAMPLING_RATE, SPACING, choose_spread, talk
from data_prep.heads.person import Person, prepare
from data_prep.heads.render import pose, project, render_head
from th_jax.driving.driver import track_driver
from th_jax.faces import Box, box_around, detect_faces, landmarks_in_box, most_prominent, settled_landmarks
from th_jax.faces.pupils import EYES, eye_opening, find_pupils
from th_jax.landmarks.scheme import IBUG_POINTS
from th_jax.provenance import Kind, Provenance, write_image

OPEN, SHUT = 0.2, 0.1
"""True distance of the lids, as a share of the eye's width, above which an eye is open and below which it is shut."""

_CELL, _COLUMNS = 128, 12
_OUTLINE, _TRUE, _FOUND = (255, 220, 0), (0, 255, 0), (255, 0, 0)


class Eyes(NamedTuple):
    """Both eyes of one frame, in pixels."""

    frame: UInt8[np.ndarray, "S S 3"]
    landmarks: Float[np.ndarray, "68 2"]
    """The true ones."""
    pupils: Float[np.ndarray, "2 2"]
    """The true ones."""
    detected: Float[np.ndarray, "68 2"]


def rendered_eyes(*, people: int, frames: int, size: int) -> Iterator[Eyes]:
    """Frames of the first people of the renderer with what is true and what dlib finds."""
    for seed in range(people):
        identity = draw_identity(seed)
        motion = talk(seed, seconds=2.5 * SPACING * frames + 2.0, fps=SAMPLING_RATE)
        for moment in choose_spread(motion, count=frames):
            state = motion.state(int(moment))
            rendering = render_head(identity, state, size=size)
            landmarks = rendering.landmarks[:68] * size
            pupils = iris_middles(prepare(identity), pose(prepare(identity), state)) * size
            yield Eyes(rendering.frame, landmarks, pupils, _detected(rendering.frame, box_around(landmarks)))


def iris_middles(person: Person, vertices: Float[np.ndarray, "N 3"]) -> Float[np.ndarray, "2 2"]:
    """Where the middles of both painted irises stand in the image, x and y in 0..1.

    The eyeball has no vertex there: it is the middle of its foremost ring of vertices, raised to the eyeball's surface.
    """
    mesh, middles = load_mesh(), []
    for eye, center in zip((mesh.right_eye, mesh.left_eye), mesh.eye_centers[::-1], strict=True):
        offset = mesh.vertices[eye] - center
        angle = np.arctan2(np.linalg.norm(offset[:, :2], axis=1), offset[:, 2])
        ring = vertices[eye[angle < angle.min() + 0.01]]
        middle = vertices[eye].mean(0)
        axis = ring.mean(0) - middle
        radius = np.linalg.norm(ring - middle, axis=1).mean()
        middles.append(middle + axis * radius / np.linalg.norm(axis))
    return project(person, np.stack(middles).astype(np.float32))[:, :2]


def _detected(frame: UInt8[np.ndarray, "S S 3"], expected: Box) -> Float[np.ndarray, "68 2"]:
    """dlib's landmarks; where its detector finds no face there, of the box where the face is."""
    faces = [f for f in detect_faces(frame) if np.linalg.norm(f.box.center - expected.center) < expected.side / 2]
    return settled_landmarks(frame, most_prominent(faces)[0].box) if faces else landmarks_in_box(frame, expected)


def table_row(size: int, name: str, eyes: list[Eyes], outlines: list[np.ndarray]) -> str:
    """One line of the table."""
    true = np.stack([eye.landmarks for eye in eyes])
    pupils = np.stack([eye.pupils for eye in eyes])
    found = np.stack([find_pupils(eye.frame, outline) for eye, outline in zip(eyes, outlines, strict=True)])
    width = eye_widths(true)
    middle = np.stack([np.stack(outlines)[:, eye].mean(1) for eye in EYES], 1)
    error, of_middle = (np.linalg.norm(points - pupils, axis=-1) / width for points in (found, middle))
    known, opening = np.isfinite(error), eye_opening(true)
    is_open, is_shut = opening > OPEN, opening < SHUT
    measured = 100 * error[is_open & known]
    cells = [
        *(f"{size} px", name, f"{np.mean(width):.1f} px"),
        *(f"{measured.mean():.1f}", f"{np.median(measured):.1f}", f"{np.percentile(measured, 95):.1f}"),
        f"{100 * of_middle[is_open & known].mean():.1f}",
        *(f"{100 * known[which].mean():.0f} %" for which in (is_open, ~is_open & ~is_shut, is_shut)),
    ]
    return "| " + " | ".join(cells) + " |"


def eye_widths(landmarks: Float[np.ndarray, "S P 2"]) -> Float[np.ndarray, "S 2"]:
    """Distances of the corners of both eyes."""
    return np.stack(
        [np.linalg.norm(landmarks[:, eye.start + 3] - landmarks[:, eye.start], axis=-1) for eye in EYES], -1
    )


def jitter(points: Float[np.ndarray, "S 2 2"], width: Float[np.ndarray, "S 2"]) -> float:
    """Noise of a single frame, as a share of the eye's width: from second differences, which steady motion leaves at 0."""
    turns = (points[2:] - 2 * points[1:-1] + points[:-2]) / width[1:-1, :, None]
    return float(np.sqrt(np.nanmean(turns**2) / 6))  # a second difference of noise has 6 times its variance


def video_row(path: Path) -> str:
    """One line of the table of real videos."""
    with track_driver(path, pupils=True, follow="segment") as driving:
        points = np.array(driving.landmarks, np.float64)
    middle = np.stack([points[:, [eye.start, eye.start + 3]].mean(1) for eye in EYES], 1)
    width, pupils = eye_widths(points), points[:, IBUG_POINTS:]
    found = np.isfinite(pupils).all(-1)[eye_opening(points[:, :IBUG_POINTS]) > OPEN].mean()
    pupil, corner = (100 * jitter(one, width) for one in (pupils, middle))
    return f"| {path.stem} | {len(points)} | {100 * found:.0f} % | {pupil:.1f} | {corner:.1f} |"


def sheet(eyes: list[Eyes]) -> UInt8[np.ndarray, "H W 3"]:
    """Eyes with dlib's outlines (yellow), the true pupils (green) and those that were found (red)."""
    cells = []
    for eye in eyes:
        found = find_pupils(eye.frame, eye.detected)
        cells += [_cell(eye, side, found[side]) for side in (0, 1)]
    rows = [cells[start : start + _COLUMNS] for start in range(0, len(cells) - _COLUMNS + 1, _COLUMNS)]
    return np.concatenate([np.concatenate(row, axis=1) for row in rows])


def _cell(eye: Eyes, side: int, found: Float32[np.ndarray, "2"]) -> UInt8[np.ndarray, "N N 3"]:
    outline = eye.detected[EYES[side]]
    reach = 0.8 * np.linalg.norm(outline[3] - outline[0])
    corner, scale = outline.mean(0) - reach, _CELL / (2 * reach)
    turn = np.array([[scale, 0, (0.5 - corner[0]) * scale - 0.5], [0, scale, (0.5 - corner[1]) * scale - 0.5]])
    cell = cv2.warpAffine(eye.frame, turn, (_CELL, _CELL), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)

    def places(points: np.ndarray) -> np.ndarray:
        return np.round(((points - corner) * scale - 0.5) * 16).astype(np.int32)

    cv2.polylines(cell, [places(outline)], True, _OUTLINE, 1, cv2.LINE_AA, 4)
    for point, color in ((eye.pupils[side], _TRUE), (found, _FOUND)):
        if np.isfinite(point).all():
            cv2.circle(cell, places(point).tolist(), 4 * 16, color, 1, cv2.LINE_AA, 4)
    return np.asarray(cell)


def main() -> None:
    """Print the table; draw the sheet if asked to."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pupils")
    parser.add_argument("--people", type=int, default=40)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--image_sizes", default="64,128,256")
    parser.add_argument("--sheet", type=Path, help="PNG or JPEG to write, of some eyes at the last size")
    parser.add_argument("--videos", type=Path, nargs="+", help="real videos to measure instead")
    options = parser.parse_args()
    if options.videos:
        print("| video | frames | open found | pupils jitter by | eyes' corners by |\n|---|---|---|---|---|")
        print(*map(video_row, options.videos), sep="\n")
        return
    print("| image | outlines | eye | mean | median | 95 % | middle | open found | half-open | shut |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    eyes: list[Eyes] = []
    for size in map(int, options.image_sizes.split(",")):
        eyes = list(rendered_eyes(people=options.people, frames=options.frames, size=size))
        print(table_row(size, "true", eyes, [eye.landmarks for eye in eyes]))
        print(table_row(size, "dlib", eyes, [eye.detected for eye in eyes]), flush=True)
    if options.sheet:
        shown = [eyes[int(i)] for i in np.linspace(0, len(eyes) - 1, min(len(eyes), 24))]
        write_image(options.sheet, sheet(shown), provenance=Provenance(kind=Kind.FIGURE, notes="found pupils"))


if __name__ == "__main__":
    main()

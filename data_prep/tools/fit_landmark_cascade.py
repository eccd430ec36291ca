"""Fits the landmark model `heads` (th_jax.faces.landmark_cascade) to rendered heads, whose true points are known.

    th-jax prepare render-heads --style photo --people 2800 --frames 16 --size 128 --out runs/heads_photo
    python -m data_prep.tools.fit_landmark_cascade --data runs/heads_photo bundled --out heads.safetensors

Only the training splits are read, and of them only frames and true points, never a detector's answers. Boxes vary as dlib's
face detector places them. Faces are turned, sheared, mirrored, blurred, covered in part, relit and compressed, so that the
cascade does not rely on how the renderer draws. Each stage is a ridge regression on what the stages before it leave over. One
person in ten is left out of the fit, and their errors are printed.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, Int, UInt8

from th_jax.console import forgiving_output
from th_jax.data.records import read_videos
from th_jax.faces import box_around
from th_jax.faces.landmark_cascade import (
    CASCADE_FILE,
    CONTEXT,
    CROP_SIDE,
    FEATURES,
    FORMAT,
    LOOKS,
    Cascade,
    View,
    crop_face,
    features,
    gradient_maps,
    upright_view,
)
from th_jax.landmarks.scheme import IBUG_POINTS, MIRROR_ORDER
from th_jax.storage.tensors import write_described

COMPONENTS = 48
"""Number of principal components of the movements of the points."""

RIDGES = (0.01, 0.03, 0.1, 0.3, 1.0)
"""Penalties on squared weights to choose from, as shares of the number of examples times a feature's mean variance."""

SHIFT, SCALE, SCALE_SPREAD, DEGREES = 0.06, 0.1, 0.16, 12.0
"""Boxes differ from `box_around` by this, as a share of their side, in log units and in degrees. dlib's detector on 146
rendered faces: shift 0.06; log size 0.17 above, deviating by 0.13. Its boxes of real faces are as large as `box_around`."""

_BLOCK = 2000


class Faces(NamedTuple):
    """Frames as JPEG with their true points in [0, 1], all of them inside, and the number of their person."""

    frames: list[bytes]
    points: Float[np.ndarray, "N 70 2"]
    people: Int[np.ndarray, " N"]


class Examples(NamedTuple):
    """Faces on canvases of their own, with the view from which the cascade starts."""

    canvases: list[UInt8[np.ndarray, "H W 3"]]
    points: Float[np.ndarray, "N 70 2"]
    """True points in pixels of the canvas."""
    views: list[View]
    people: Int[np.ndarray, " N"]


def read_faces(folders: list[str]) -> Faces:
    """Read the training splits of data sets of rendered heads.

    Raises:
        ValueError: if a data set has no true landmarks.
    """
    frames, points, people = [], [], []
    for folder in folders:
        for person, record in read_videos(folder, "train"):
            if record.true_landmarks is None:
                raise ValueError(f"{folder} has no true landmarks: give data sets of th-jax prepare render-heads")
            known = np.isfinite(record.true_landmarks).all((1, 2))
            frames += [frame for frame, whole in zip(record.frames, known, strict=True) if whole]
            points.append(record.true_landmarks[known])
            people += [person] * int(known.sum())
    return Faces(frames, np.concatenate(points).astype(np.float64), np.array(people))


def draw_example(
    jpeg: bytes, points: Float[np.ndarray, "70 2"], rng: np.random.Generator
) -> tuple[UInt8[np.ndarray, "H W 3"], Float[np.ndarray, "70 2"], View]:
    """Draw a changed face with its points in pixels, and the view from a detector's box; the given points are in [0, 1]."""
    frame = np.asarray(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR_RGB))
    points = points * len(frame)
    box = box_around(points[:IBUG_POINTS])
    angle = np.radians(np.clip(rng.normal(0.0, DEGREES), -35, 35))
    cosine, sine, stretch = np.cos(angle), np.sin(angle), np.exp(rng.normal(0.0, 0.06))
    shape = np.array([[stretch, rng.normal(0.0, 0.05)], [0.0, 1 / stretch]])
    mirrored = bool(rng.random() < 0.5)
    linear = np.array([[cosine, -sine], [sine, cosine]]) @ shape @ np.diag([1.0 - 2 * mirrored, 1.0])
    # The canvas is twice the crop of a face, so that the second view has what lies around the first one.
    axes = 2 * CONTEXT * box.side * linear
    canvas = degraded(crop_face(frame, box.center, axes, side=2 * CROP_SIDE), rng)
    points = View(box.center, axes).to_crop(points) * 2 * CROP_SIDE
    if mirrored:
        points = points[MIRROR_ORDER]
    box = box_around(points[:IBUG_POINTS])
    side = box.side * np.exp(rng.normal(SCALE, SCALE_SPREAD))
    return canvas, points, View(box.center + box.side * rng.normal(0.0, SHIFT, 2), CONTEXT * side * np.eye(2))


def degraded(image: UInt8[np.ndarray, "N N 3"], rng: np.random.Generator) -> UInt8[np.ndarray, "N N 3"]:
    """Cover, relight, blur, coarsen, add noise or compress, each in a share of the cases."""
    side = len(image)
    image = image.copy()
    for _ in range(int(rng.choice(4, p=(0.5, 0.25, 0.15, 0.1)))):
        middle, reach = rng.uniform(0.15, 0.85, 2) * side, rng.uniform(0.03, 0.12, 2) * side
        row, column = rng.integers(side, size=2)
        color = (rng.integers(0, 256, 3) if rng.random() < 0.5 else image[row, column]).tolist()
        cv2.ellipse(image, (middle.tolist(), (2 * reach).tolist(), rng.uniform(0, 180)), color, -1, cv2.LINE_AA)
    if rng.random() < 0.5:
        slope, position = rng.normal(0.0, 0.5, 2), np.linspace(-1, 1, side, dtype=np.float32)
        light = np.exp(slope[0] * position[:, None] + slope[1] * position + rng.normal(0.0, 0.3))
        curve = 255 * (np.arange(256) / 255) ** np.exp(rng.normal(0.0, 0.3))
        image = np.clip(curve.astype(np.float32)[image] * light[..., None].astype(np.float32), 0, 255).astype(np.uint8)
    if rng.random() < 0.4:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.5, 2.5))
    if rng.random() < 0.3:
        size = int(rng.integers(48, 120))
        small = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
        image = cv2.resize(small, (side, side), interpolation=int(rng.choice([cv2.INTER_LINEAR, cv2.INTER_CUBIC])))
    if rng.random() < 0.4:
        noise = np.float32(rng.uniform(1, 14)) * rng.standard_normal((side, side, 1), np.float32)
        image = np.clip(image + noise, 0, 255).astype(np.uint8)
    if rng.random() < 0.3:
        _, jpeg = cv2.imencode(".jpg", image, (cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(15, 90))))
        image = np.asarray(cv2.imdecode(jpeg, cv2.IMREAD_COLOR))
    return image


def draw_examples(faces: Faces, *, count: int, seed: int) -> Examples:
    """Draw examples; each depends on the seed and its number alone."""
    canvases, points, views, people = [], [], [], []
    for number in range(count):
        rng = np.random.default_rng((seed, number))
        chosen = int(rng.integers(len(faces.frames)))
        canvas, place, view = draw_example(faces.frames[chosen], faces.points[chosen], rng)
        canvases.append(canvas)
        points.append(place)
        views.append(view)
        people.append(faces.people[chosen])
    return Examples(canvases, np.stack(points), views, np.array(people))


class Regression(NamedTuple):
    """A linear regression, and what two halves of the people predict for each other."""

    weights: Float32[np.ndarray, "F R"]
    bias: Float32[np.ndarray, " R"]
    crossed: Float32[np.ndarray, "N R"]
    penalty: float
    """The one of RIDGES with the smallest error of the crossed predictions."""


def ridge(
    rows: Float32[np.ndarray, "N F"], goals: Float32[np.ndarray, "N R"], half: Bool[np.ndarray, " N"]
) -> Regression:
    """Fit weights and bias by least squares with a penalty on the weights.

    Args:
        rows: features of the examples.
        goals: what to predict.
        half: which half of the people each example is of.
    """
    mean, goal = rows.mean(0), goals.mean(0)
    normals, rights = [], []
    for part in (half, ~half):
        inside = np.flatnonzero(part)
        normal = np.zeros((rows.shape[1], rows.shape[1]), np.float32)
        right = np.zeros((rows.shape[1], goals.shape[1]), np.float32)
        for start in range(0, len(inside), _BLOCK):
            block = rows[inside[start : start + _BLOCK]] - mean
            normal += block.T @ block
            right += block.T @ (goals[inside[start : start + _BLOCK]] - goal)
        normals.append(normal)
        rights.append(right)

    def solved(normal: np.ndarray, right: np.ndarray, penalty: float) -> np.ndarray:
        share = penalty * np.trace(normal) / len(normal)
        return np.asarray(np.linalg.solve(normal + share * np.eye(len(normal), dtype=np.float32), right))

    best = None
    for penalty in RIDGES:
        crossed = np.empty_like(goals)
        for part, normal, right in zip((~half, half), normals, rights, strict=True):
            crossed[part] = (rows[part] - mean) @ solved(normal, right, penalty) + goal
        error = float(np.square(crossed - goals).sum())
        if best is None or error < best[0]:
            best = (error, penalty, crossed)
    assert best is not None
    weights = solved(normals[0] + normals[1], rights[0] + rights[1], best[1])
    weights = weights.astype(np.float16).astype(np.float32)  # as the file has them
    return Regression(weights, goal - mean @ weights, best[2], best[1])


def errors(points: Float[np.ndarray, "N 70 2"], true: Float[np.ndarray, "N 70 2"]) -> Float[np.ndarray, " N"]:
    """Mean distance of the 68 points of each face, in percent of the distance of the outer corners of the eyes."""
    eyes = np.linalg.norm(true[:, 45] - true[:, 36], axis=-1)
    return 100 * np.linalg.norm(points - true, axis=-1)[:, :IBUG_POINTS].mean(1) / eyes


def fit(examples: Examples) -> Cascade:
    """Fit the cascade stage by stage, and print the errors after each, on people in the fit and left out of it.

    People in the fit go on with what the other half of them predicts, because the next stage will meet errors on new people.
    """
    views, fitted = list(examples.views), examples.people % 10 != 0
    half = examples.people[fitted] % 2 == 0
    goals = np.stack([view.to_crop(true) for view, true in zip(views, examples.points, strict=True)])
    mean = goals[fitted].mean(0)
    points = np.tile(mean, (len(goals), 1, 1))
    left = (goals - points).reshape(len(goals), -1)[fitted]
    components = np.linalg.svd(left - left.mean(0), full_matrices=False)[2][:COMPONENTS]
    weights, bias = [], []
    rows = np.empty((len(goals), FEATURES), np.float32)
    maps = np.empty((len(goals), 2, CROP_SIDE, CROP_SIDE, 4), np.float16)
    for stage, look in enumerate(LOOKS):
        if look.upright and not LOOKS[stage - 1].upright:
            there = [view.to_frame(place) for view, place in zip(views, points, strict=True)]
            views = [upright_view(place) for place in there]
            points = np.stack([view.to_crop(place) for view, place in zip(views, there, strict=True)])
            goals = np.stack([view.to_crop(true) for view, true in zip(views, examples.points, strict=True)])
        for number, (canvas, view) in enumerate(zip(examples.canvases, views, strict=True)):
            if stage == 0 or look.upright != LOOKS[stage - 1].upright:
                maps[number] = gradient_maps(crop_face(canvas, *view))
            rows[number] = features(maps[number].astype(np.float32), points[number], look)
        wanted = ((goals - points).reshape(len(goals), -1) @ components.T).astype(np.float32)
        found = ridge(rows[fitted], wanted[fitted], half)
        weights.append(found.weights)
        bias.append(found.bias)
        moved = rows @ found.weights + found.bias
        moved[fitted] = found.crossed
        points = points + (moved @ components).reshape(points.shape)
        error = errors(np.stack([v.to_frame(p) for v, p in zip(views, points, strict=True)]), examples.points)
        print(
            f"stage {stage + 1}, penalty {found.penalty}: {error[fitted].mean():.2f} % by the other half, of people left out "
            f"{error[~fitted].mean():.2f} % (median {np.median(error[~fitted]):.2f})",
            flush=True,
        )
    return Cascade(*(np.asarray(array, np.float32) for array in (mean, components, np.stack(weights), np.stack(bias))))


@forgiving_output()
def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=["bundled"], help="data sets of rendered heads")
    parser.add_argument("--out", type=Path, default=CASCADE_FILE, help="default: the bundled file")
    parser.add_argument("--examples", type=int, default=10000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    try:
        cascade = fit(draw_examples(read_faces(options.data), count=options.examples, seed=options.seed))
        tensors = {name: array.astype(np.float16) for name, array in cascade._asdict().items()}
        tensors |= {"mean": cascade.mean, "bias": cascade.bias}
        data = [Path(folder).name for folder in options.data]
        described = {"data": data, "examples": options.examples, "seed": options.seed, "license": "Apache-2.0"}
        write_described(options.out, tensors, json.dumps(described), file_format=FORMAT)
    except (ValueError, OSError) as error:
        print(f"fit_landmark_cascade: {error}", file=sys.stderr)
        return 1
    print(f"{options.out}: {options.out.stat().st_size / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())

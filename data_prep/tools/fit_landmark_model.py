"""Fits the 3D landmark model to the rendered heads: identity and expression components, eyes, ARKit shapes, jaw and noise.

    python -m data_prep.tools.fit_landmark_model --out th_jax/assets/landmarks/model3d.npz

Shapes come from the CC0 mesh: people of both styles from the seeds 0 to PEOPLE - 1, each also mirrored, and expressions of
their talk together with each of the 52 face units alone. How a detector's jaw points move along the contour, and how large its
errors are, is measured on the training split of the bundled records. No held-out person (seeds from 100000 on) is read. The
same command writes the same bytes.
"""

import argparse
import sys
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from data_prep.heads.identity import draw_identity
from data_prep.heads.mesh import load_mesh
from data_prep.heads.motion import talk
from data_prep.heads.person import Person, prepare
from data_prep.heads.photo_identity import draw_photo_identity
from data_prep.heads.render import look_units
from th_jax.console import forgiving_output
from th_jax.data.records import VideoRecords, bundled_heads
from th_jax.landmarks.model3d import MODEL_FILE, LandmarkModel, fit_clip, rotation
from th_jax.landmarks.scheme import IBUG_POINTS, MIRROR_ORDER, PUPIL_POINTS

PEOPLE = 500
"""Number of people in each style."""

IDENTITIES, EXPRESSIONS = 30, 20
TALKERS, TALK_SECONDS = 60, 12.0
PIVOT = np.array([0.0, -1.05, -1.05])
"""The point about which the head turns, from the middle of the eyes, in decimeters."""

EMPHASIS = {"eyes": (range(36, 48), 3.0), "inner lips": (range(60, 68), 2.0)}
"""Weights of points whose small movements matter: lids and lips that close."""

AXIS_WEIGHT = 0.5
"""Weight of the eyes' resting axes in the choice of identity components, in model units per radian."""

PUPIL_NOISE = (0.5, 0.5)
"""Errors of the pupils, relative to the mean over the 68 points; a detector of 68 points has none."""

RIDGE = 0.02
"""Regularization of the jaw's movement, as a share of the number of observations."""


class Face(NamedTuple):
    """A person's neutral points, with the centers of the eyeballs, their radius, and the size that they were divided by."""

    points: Float[np.ndarray, "70 3"]
    radius: float
    axis: Float[np.ndarray, "2 3"]


def neutral_face(person: Person) -> Face:
    """Read the points of a person in head coordinates, before any scaling."""
    vertices = person.neutral.astype(np.float64)
    face = (vertices[person.landmark_vertices] * person.landmark_weights[..., None]).sum(1)
    centers = person.eye_centers[::-1].astype(np.float64)  # the image's left first
    rings = [vertices[ring] - center for ring, center in zip(person.pupil_rings[::-1], centers, strict=True)]
    radius = float(np.mean([np.linalg.norm(ring, axis=1).mean() for ring in rings]))
    axis = np.stack([ring.mean(0) / np.linalg.norm(ring.mean(0)) for ring in rings])
    points = np.concatenate([face, centers]) - centers.mean(0)
    return Face(points, radius, axis)


def mirrored(points: Float[np.ndarray, "*batch P 3"]) -> Float[np.ndarray, "*batch P 3"]:
    """Mirror points or displacements of 68 or 70 points."""
    return points[..., MIRROR_ORDER[: points.shape[-2]], :] * np.array([-1.0, 1.0, 1.0])


def components(rows: Float[np.ndarray, "N D"], count: int) -> Float[np.ndarray, "C D"]:
    """Return the first principal components about zero, as long as their deviations, with a positive largest entry."""
    _, sizes, axes = np.linalg.svd(rows, full_matrices=False)
    found = axes[:count] * (sizes[:count, None] / np.sqrt(len(rows)))
    largest = np.take_along_axis(found, np.abs(found).argmax(1)[:, None], axis=1)
    return found * np.sign(largest)


def unit_displacements(people: list[Person]) -> Float[np.ndarray, "52 68 3"]:
    """Displacements of the points by the face units, the mean over people, whose brows lie in different places."""
    units = load_mesh().units.astype(np.float64)
    moved = [(units[:, one.landmark_vertices] * one.landmark_weights[None, ..., None]).sum(2) for one in people]
    return np.mean(moved, axis=0)


def expression_samples(units: int) -> Float[np.ndarray, "N U"]:
    """Weights of the face units: talking people with their lids' part of the gaze, and each unit alone."""
    spoken = []
    for seed in range(TALKERS):
        motion = talk(seed, seconds=TALK_SECONDS, fps=10.0)
        spoken += [look_units(motion.state(moment)) for moment in range(len(motion.times))]
    alone = np.repeat(np.eye(units), len(spoken) // (2 * units), axis=0)
    return np.concatenate([np.stack(spoken), alone])


def point_weights() -> Float[np.ndarray, "68"]:
    """Weights of the points in the choice of expression components."""
    weights = np.ones(IBUG_POINTS)
    for points, weight in EMPHASIS.values():
        weights[list(points)] = weight
    return weights


def fit_shapes(people: int) -> LandmarkModel:
    """Fit everything that the mesh alone tells; the jaw does not move along the contour, and all points are equally exact.

    Raises:
        ValueError: if there are fewer people than identity components.
    """
    if 4 * people < IDENTITIES:
        raise ValueError(f"{IDENTITIES} identity components need at least {-(-IDENTITIES // 4)} people, not {people}")
    persons = [prepare(draw(seed)) for draw in (draw_identity, draw_photo_identity) for seed in range(people)]
    faces = [neutral_face(person) for person in persons]
    sizes = np.array([_size(face.points) for face in faces])
    shrink = sizes.mean() / sizes
    points = np.stack([face.points for face in faces]) * shrink[:, None, None] - PIVOT
    radii = np.array([face.radius for face in faces]) * shrink
    points, radii = np.concatenate([points, mirrored(points)]), np.concatenate([radii, radii])
    mean, radius = points.mean(0), float(radii.mean())
    axes = np.stack([face.axis for face in faces])
    axes = np.concatenate([axes, axes[:, ::-1] * np.array([-1.0, 1.0, 1.0])])
    axis = axes.mean(0)
    axis /= np.linalg.norm(axis, axis=1, keepdims=True)
    rows = [points - mean, (radii - radius)[:, None], AXIS_WEIGHT * (axes - axis)]
    identity = components(np.concatenate([row.reshape(len(points), -1) for row in rows], axis=1), IDENTITIES)
    split = 3 * PUPIL_POINTS

    shapes = unit_displacements(persons)
    samples = np.einsum("nu,upc->npc", expression_samples(len(shapes)), shapes)
    samples = np.concatenate([samples, mirrored(samples)])
    weights = point_weights()[:, None]
    expression = components((samples * weights).reshape(len(samples), -1), EXPRESSIONS)
    weighted = (shapes * weights).reshape(len(shapes), -1)
    arkit = np.linalg.lstsq(expression.T, weighted.T, rcond=None)[0]
    arrays = dict(
        mean=mean,
        identity=identity[:, :split].reshape(IDENTITIES, PUPIL_POINTS, 3),
        expression=expression.reshape(EXPRESSIONS, IBUG_POINTS, 3) / weights,
        radius=radius,
        radius_identity=identity[:, split],
        axis=axis,
        axis_identity=identity[:, split + 1 :].reshape(IDENTITIES, 2, 3) / AXIS_WEIGHT,
        slide=np.zeros((2, 17, 3)),
        noise=np.concatenate([np.ones(IBUG_POINTS), PUPIL_NOISE]),
        arkit=arkit,
        arkit_shapes=shapes,
    )
    return LandmarkModel(**{name: jnp.asarray(array, jnp.float32) for name, array in arrays.items()})


def _size(points: Float[np.ndarray, "70 3"]) -> float:
    face = points[:IBUG_POINTS]
    return float(np.sqrt(((face - face.mean(0)) ** 2).sum(1).mean()))


def fit_detector(model: LandmarkModel) -> LandmarkModel:
    """Add how a detector's jaw moves along the contour with yaw, and how large its errors are by point."""
    records = VideoRecords(bundled_heads(), "train")
    normal, right, squares, seen = np.zeros((17, 9, 9)), np.zeros((17, 9)), np.zeros(IBUG_POINTS), 0
    observed = []
    for number in range(len(records)):
        record = records.read(number)
        assert record.true_landmarks is not None  # rendered heads have them
        _, frames = fit_clip(record.true_landmarks, model=model)
        angles, scale = np.asarray(frames.angles), np.exp(np.asarray(frames.log_scale))[:, None, None]
        difference = (record.landmarks - record.true_landmarks)[:, :IBUG_POINTS] / scale
        good = np.isfinite(difference).all((1, 2))
        good &= np.linalg.norm(difference, axis=-1).max(1) < 1.0  # beyond it the detector missed the face
        view = np.asarray(rotation(frames.angles))[:, :2] * np.array([[1.0], [-1.0]])
        observed += list(zip(difference[good], view[good], angles[good, 0], strict=True))
    for difference, view, yaw in observed:
        features = np.array([1.0, max(yaw, 0.0), max(-yaw, 0.0)])
        for sign in (False, True):  # each observation also mirrored
            points, seen_from, shares = difference, view, features
            if sign:
                points = difference[MIRROR_ORDER[:IBUG_POINTS]] * np.array([-1.0, 1.0])
                seen_from = view * np.array([[-1.0], [1.0]]) * np.array([-1.0, 1.0, 1.0])
                shares = features[[0, 2, 1]]
            design = np.kron(shares, seen_from)
            normal += design.T @ design
            right += points[:17] @ design
            seen += 1
    solved = np.linalg.solve(normal + RIDGE * seen * np.eye(9), right[..., None])[..., 0]
    slide = np.stack([solved[:, 3:6], solved[:, 6:9]])
    for difference, view, yaw in observed:
        rest = difference.copy()
        rest[:17] -= (solved.reshape(17, 3, 3) * np.array([1.0, max(yaw, 0), max(-yaw, 0)])[None, :, None]).sum(
            1
        ) @ view.T
        squares += (rest**2).sum(-1)
    squares += squares[MIRROR_ORDER[:IBUG_POINTS]]
    noise = np.sqrt(squares)
    noise = np.clip(noise / noise.mean(), 0.6, 2.0)
    noise = np.concatenate([noise, PUPIL_NOISE])
    return model._replace(slide=jnp.asarray(slide, jnp.float32), noise=jnp.asarray(noise, jnp.float32))


def write_model(out: Path, model: LandmarkModel) -> int:
    """Write the arrays as float32, uncompressed dates and all, and return the size in bytes."""
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name("." + out.name)
    arrays = {name: np.asarray(leaf, np.float32) for name, leaf in model._asdict().items()}
    np.savez_compressed(partial, allow_pickle=False, **arrays)
    partial.replace(out)
    return out.stat().st_size


@forgiving_output()
def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=MODEL_FILE, help="default: the bundled file")
    parser.add_argument("--people", type=int, default=PEOPLE, help="people in each style")
    options = parser.parse_args(arguments)
    try:
        size = write_model(options.out, fit_detector(fit_shapes(options.people)))
    except (ValueError, OSError) as error:
        print(f"fit_landmark_model: {error}", file=sys.stderr)
        return 1
    print(f"{options.out}: {size / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())

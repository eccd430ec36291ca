"""Fits points of the mesh to dlib's 68 landmarks, and measures the distance between true landmarks and dlib's.

    python -m data_prep.tools.fit_landmarks --people 60 --out data_prep/tools/landmark_points.csv
    python -m data_prep.tools.fit_landmarks --people 40 --measure

A point is fitted together with its mirror image over many people and expressions, near-frontal; brows are not fitted:
their points are on each person's own brows. Pack the mesh again after fitting.
"""

import argparse
import csv
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from data_prep.heads.identity import draw_identity
from data_prep.heads.mesh import ASSET, MOUTH, SKIN, HeadMesh, load_mesh
from data_prep.heads.motion import HeadState, head_state
from data_prep.heads.person import prepare
from data_prep.heads.records import GROUPS
from data_prep.heads.render import pose, project, render_head
from th_jax.console import forgiving_output
from th_jax.faces.detect import detect_faces, landmarks_in_box
from th_jax.landmarks.scheme import MIRROR_ORDER

SIZE = 256
OUTLIER = 0.03  # relative to the image's side: dlib missed points beyond it


def states() -> list[HeadState]:
    """Return near-frontal states in which every part of the face has moved."""
    return [
        head_state(),
        head_state(expression={"jawOpen": 0.6, "mouthLowerDownLeft": 0.3, "mouthLowerDownRight": 0.3}, yaw=0.12),
        head_state(expression={"mouthSmileLeft": 0.9, "mouthSmileRight": 0.9, "jawOpen": 0.2}, yaw=-0.12, pitch=0.1),
        head_state(expression={"eyeWideLeft": 0.8, "eyeWideRight": 0.8, "mouthPucker": 0.6}, pitch=-0.1),
        head_state(
            expression={"eyeSquintLeft": 0.9, "eyeSquintRight": 0.9, "jawOpen": 0.35, "mouthFunnel": 0.5}, roll=0.1
        ),
    ]


def dlib_points(frame: np.ndarray) -> Float[np.ndarray, "68 2"] | None:
    """Detect dlib's landmarks of the best face in 0..1; None without a face."""
    faces = detect_faces(frame)
    return landmarks_in_box(frame, faces[0].box) / len(frame) if faces else None


def mirror_vertices(mesh: HeadMesh) -> Int[np.ndarray, " V"]:
    """Return the mirror vertex of each vertex."""
    flipped = mesh.vertices * np.array([-1, 1, 1], np.float32)
    partner = np.empty(len(flipped), np.int64)
    for start in range(0, len(flipped), 512):
        part = flipped[start : start + 512]
        partner[start : start + 512] = ((part[:, None] - mesh.vertices[None]) ** 2).sum(-1).argmin(1)
    return partner


def fit(people: int, first_seed: int) -> tuple[Int[np.ndarray, "68 3"], Float[np.ndarray, "68 3"]]:
    """Fit triangles (vertices of the packed mesh) and weights of the 68 points.

    Raises:
        ValueError: if there are no people, or dlib finds none of them.
    """
    _check_people(people, first_seed)
    mesh = load_mesh()
    face = mesh.triangles[np.isin(mesh.material, (SKIN, MOUTH))]
    face = face[mesh.vertices[face][..., 1].min(1) > 6.0]
    seen, answers = [], []
    for seed in range(first_seed, first_seed + people):
        identity = draw_identity(seed)
        for state in states():
            found = dlib_points(render_head(identity, state, size=SIZE).frame)
            if found is not None:
                person = prepare(identity)
                seen.append(project(person, pose(person, state))[: len(mesh.vertices), :2])
                answers.append(found)
    _check_found(answers, people)
    points, wanted = np.stack(seen), np.stack(answers)
    candidates = np.unique(face[mesh.vertices[face][..., 2].min(1) > 0.2])
    cost = np.zeros((68, len(mesh.vertices)))
    for shown, answer in zip(points, wanted, strict=True):
        squared = ((shown[candidates][None] - answer[:, None]) ** 2).sum(-1)
        cost[:, candidates] += np.minimum(squared, OUTLIER**2)
    cost[:, np.setdiff1d(np.arange(cost.shape[1]), candidates)] = np.inf
    partner = mirror_vertices(mesh)
    vertices, weights = np.zeros((68, 3), np.int64), np.zeros((68, 3))
    for point in range(68):
        twin = MIRROR_ORDER[point]
        if twin < point:
            vertices[point], weights[point] = partner[vertices[twin]], weights[twin]
            continue
        both = cost[point] + cost[twin][partner]
        best = int(both.argmin())
        least, choice = np.inf, (np.full(3, best), np.array([1.0, 0.0, 0.0]))
        for triangle in face[(face == best).any(axis=1)]:
            for share in _shares():
                there = np.tensordot(points[:, triangle], share, axes=(1, 0)) - wanted[:, point]
                other = np.tensordot(points[:, partner[triangle]], share, axes=(1, 0)) - wanted[:, twin]
                total = sum(np.minimum((miss**2).sum(-1), OUTLIER**2).sum() for miss in (there, other))
                if total < least:
                    least, choice = total, (triangle, share)
        vertices[point], weights[point] = choice
    return vertices, weights


def _shares() -> Float[np.ndarray, "N 3"]:
    steps = [(a, b, 6 - a - b) for a in range(7) for b in range(7 - a)]
    return np.array(steps) / 6


def write_table(path: Path, vertices: Int[np.ndarray, "68 3"], weights: Float[np.ndarray, "68 3"]) -> None:
    """Write the points by MakeHuman's vertex numbers, which do not depend on the packing."""
    with np.load(ASSET, allow_pickle=False) as packed:
        numbers = packed["source_vertex"]
    with path.open("w", newline="") as handle:
        table = csv.writer(handle, lineterminator="\n")
        table.writerow(["point", *(f"vertex{i}" for i in range(3)), *(f"weight{i}" for i in range(3))])
        for point in range(68):
            table.writerow([point, *numbers[vertices[point]], *np.round(weights[point], 4)])


def measure(people: int, first_seed: int) -> tuple[int, Float[np.ndarray, "N 68"]]:
    """Count the frontal neutral faces that dlib detects, and measure each landmark's error in % of the interocular distance.

    Raises:
        ValueError: if there are no people, or dlib finds none of them.
    """
    _check_people(people, first_seed)
    errors = []
    found_frontal = 0
    for seed in range(first_seed, first_seed + people):
        for i, state in enumerate(states()):
            rendering = render_head(draw_identity(seed), state, size=SIZE)
            found = dlib_points(rendering.frame)
            found_frontal += int(i == 0 and found is not None)
            if found is not None:
                truth = rendering.landmarks[:68]
                between = np.linalg.norm(truth[36:42].mean(0) - truth[42:48].mean(0))
                errors.append(100 * np.linalg.norm(found - truth, axis=1) / between)
    _check_found(errors, people)
    return found_frontal, np.stack(errors)


def _check_people(people: int, first_seed: int) -> None:
    if people < 1 or first_seed < 0:
        raise ValueError(f"people must be at least 1 and first-seed at least 0, but are {people} and {first_seed}")


def _check_found(found: Sequence[np.ndarray], people: int) -> None:
    if not found:
        raise ValueError(f"dlib found no face in any image of {people} people: use more people")


@forgiving_output()
def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns 0 when done, 1 when failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=40)
    parser.add_argument("--first-seed", type=int, default=20_000)
    parser.add_argument("--out", type=Path, help="write the fitted table here")
    parser.add_argument("--measure", action="store_true", help="measure the landmarks of the packed mesh")
    options = parser.parse_args(arguments)
    if options.out is None and not options.measure:
        parser.error("there is nothing to do: give --out, --measure or both")
    try:
        if options.out is not None:
            if not options.out.parent.is_dir():
                raise ValueError(f"the folder {options.out.parent} of {options.out.name} does not exist")
            write_table(options.out, *fit(options.people, options.first_seed))
        measured = measure(options.people, options.first_seed) if options.measure else None
    except (ValueError, OSError, ImportError) as error:
        print(f"fit_landmarks: {error}", file=sys.stderr)
        return 1
    if measured is not None:
        found, errors = measured
        print(f"dlib found {found} of {options.people} frontal neutral faces")
        print("mean distance of dlib's points from the true ones, % of the interocular distance:")
        for name, points in GROUPS.items():
            print(f"  {name:<11}{errors[:, list(points)].mean():5.1f}")
        print("by point:", " ".join(f"{i}:{error:.1f}" for i, error in enumerate(errors.mean(0))))
    return 0


if __name__ == "__main__":
    sys.exit(main())

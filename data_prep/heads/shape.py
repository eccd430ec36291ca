"""Draws weights of shape targets by ancestry, sex and age, and applies them to the neutral head."""

import re

import numpy as np
from jaxtyping import Float

from data_prep.heads.mesh import HeadMesh, load_children, load_mesh

ANCESTRIES = ("african", "asian", "caucasian")
OPPOSITES = (
    ("incr", "decr"),
    ("up", "down"),
    ("out", "in"),
    ("forward", "backward"),
    ("convex", "concave"),
    ("compress", "uncompress"),
)
# Standard deviation of a pair's weight, by folder; at 1 a target is a caricature.
SPREAD = {
    "head": 0.14,
    "nose": 0.23,
    "mouth": 0.22,
    "eyes": 0.20,
    "chin": 0.28,
    "cheek": 0.28,
    "forehead": 0.25,
    "eyebrows": 0.18,
    "ears": 0.22,
    "neck": 0.10,
}
LARGEST = 0.5
USUAL = {"mouth/mouth-angles-up": 0.2}  # without it most people look sad
# Pairs that give monsters, that age already sets, or that only move the head out of the image's middle.
LEFT_OUT = re.compile(
    r"age|angle-in|nose-compression|septum|eye-push|eye-trans|mouth-trans|nose-trans|measure|neck-trans|neck-height|pointed|nubian"
)
HEAD_OUTLINES = ("oval", "round", "square", "rectangular", "diamond", "triangular", "invertedtriangular")
EAR_OUTLINES = ("round", "square", "triangle")


def _pairs(mesh: HeadMesh) -> list[tuple[str, str]]:
    """Opposite targets (more, less) of the left side and the middle, in a fixed order."""
    found = []
    for more, less in OPPOSITES:
        for name in mesh.shapes:
            partner = name[: -len(more)] + less
            if name.endswith("-" + more) and partner in mesh.shapes and not LEFT_OUT.search(name):
                found.append((name, partner))
    return [pair for pair in sorted(found) if not pair[0].split("/")[1].startswith("r-")]


def _with_right_side(weights: dict[str, float]) -> dict[str, float]:
    mirrored = {name.replace("/l-", "/r-"): weight for name, weight in weights.items()}
    return weights | mirrored


def draw_shape(
    rng: np.random.Generator, *, ancestry: Float[np.ndarray, "3"], male: float, old: float
) -> tuple[tuple[str, float], ...]:
    """Weights of shape targets for one person.

    `ancestry` has shares of `ANCESTRIES`, summing to 1; `male` is 0 (woman) to 1 (man), and `old` 0 (young adult) to 1.
    """
    mesh = load_mesh()
    weight = rng.beta(1.6, 1.9)
    heavy = {
        "minweight": max(0.0, 1 - 2 * weight),
        "averageweight": 1 - abs(2 * weight - 1),
        "maxweight": max(0.0, 2 * weight - 1),
    }
    weights: dict[str, float] = {}
    for sex, sex_share in (("male", male), ("female", 1 - male)):
        for age, age_share in (("old", old), ("young", 1 - old)):
            for name, share in zip(ANCESTRIES, ancestry, strict=True):
                weights[f"ancestry/{name}-{sex}-{age}"] = float(share) * sex_share * age_share
            for name, share in heavy.items():
                weights[f"weight/{sex}-{age}-{name}"] = share * sex_share * age_share
    for more, less in _pairs(mesh):
        folder = more.split("/")[0]
        value = float(np.clip(rng.normal(USUAL.get(more, 0.0), SPREAD[folder]), -LARGEST, LARGEST))
        weights[more if value > 0 else less] = abs(value)
    weights[f"head/head-{rng.choice(HEAD_OUTLINES)}"] = rng.uniform(0.1, 0.45)
    weights[f"ears/l-ear-shape-{rng.choice(EAR_OUTLINES)}"] = rng.uniform(0.0, 0.5)
    if old > 0.5:
        weights["head/head-age-incr"] = 0.6 * (old - 0.5)
    kept = {name: value for name, value in _with_right_side(weights).items() if value > 1e-3}
    return tuple((name, round(float(value), 5)) for name, value in kept.items())


def shaped_vertices(mesh: HeadMesh, shape: tuple[tuple[str, float], ...]) -> Float[np.ndarray, "V 3"]:
    """The neutral head of a person, in decimeters.

    Raises:
        ValueError: if a weight names no target of the mesh.
    """
    shapes = mesh.shapes
    if any("-child" in name for name, _ in shape):
        shapes = shapes | load_children()
    unknown = [name for name, _ in shape if name not in shapes]
    if unknown:
        raise ValueError(f"unknown shape target {unknown[0]!r}; the packed head has {len(shapes)} others")
    vertices = mesh.vertices.copy()
    for name, weight in shape:
        target = shapes[name]
        vertices[target.vertices] += weight * target.delta
    # Bodies of all heights look straight into the camera.
    eyes = np.concatenate([mesh.left_eye, mesh.right_eye])
    return vertices + (mesh.vertices[eyes].mean(0) - vertices[eyes].mean(0))

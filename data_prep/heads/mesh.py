"""Loads the packed CC0 head: geometry, identity targets, face units, masks and landmark points."""

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8

ASSET = Path(__file__).resolve().parents[2] / "th_jax" / "assets" / "heads" / "heads_mesh.npz"
SHA256 = "96e9e9f98b0d406cfcee1819715b0691cde940e586155651538442d7c7b4cd3d"

CHILDREN = ASSET.with_name("heads_children.npz")
CHILDREN_SHA256 = "95f46715401f35029faa91b849ef2d217a49c9857dadd8cafcb1d2f42a85bded"

SKIN, TORSO, MOUTH, EYE_SOCKET, LEFT_EYE, RIGHT_EYE, UPPER_TEETH, LOWER_TEETH, TONGUE = range(9)


class SparseTarget(NamedTuple):
    """The vertices that a shape moves, and their offsets at weight 1 in decimeters."""

    vertices: Int[np.ndarray, " N"]
    delta: Float[np.ndarray, "N 3"]


class HeadMesh(NamedTuple):
    """The head at rest (decimeters; x to the person's left, y up, z out of the face) and its deformations."""

    vertices: Float[np.ndarray, "V 3"]
    triangles: Int[np.ndarray, "F 3"]
    corner_uv: Float[np.ndarray, "F 3 2"]  # on the head's texture, 0..1 from its upper left corner
    material: UInt8[np.ndarray, " F"]
    lash_triangles: Int[np.ndarray, "L 3"]
    lash_uv: Float[np.ndarray, "L 3 2"]
    shapes: dict[str, SparseTarget]
    unit_names: tuple[str, ...]
    units: Float[np.ndarray, "U V 3"]
    masks: dict[str, Float[np.ndarray, "H W"]]  # on the head's texture, 0..1
    landmark_vertices: Int[np.ndarray, "68 3"]
    landmark_weights: Float[np.ndarray, "68 3"]
    left_eye: Int[np.ndarray, " E"]  # vertices of the eyeballs (the person's left and right)
    right_eye: Int[np.ndarray, " E"]

    @property
    def unit_index(self) -> dict[str, int]:
        """Column of each face unit, by name."""
        return {name: i for i, name in enumerate(self.unit_names)}

    @property
    def eye_centers(self) -> Float[np.ndarray, "2 3"]:
        """Centers of the left and the right eyeball at rest."""
        return np.stack([self.vertices[eye].mean(0) for eye in (self.left_eye, self.right_eye)])


def _targets(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, SparseTarget]:
    start = arrays[f"{prefix}_start"]
    found = {}
    for i, name in enumerate(arrays[f"{prefix}_names"]):
        part = slice(start[i], start[i + 1])
        delta = arrays[f"{prefix}_steps"][part] * arrays[f"{prefix}_scale"][i]
        found[str(name)] = SparseTarget(arrays[f"{prefix}_vertex"][part].astype(np.int64), delta.astype(np.float32))
    return found


def _checked(path: Path, expected: str, name: str) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise FileNotFoundError(
            f"the packed head {path} is missing; write it with `python -m data_prep.tools.pack_heads`"
        )
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != expected:
        raise ValueError(
            f"{path} has SHA-256 {digest} instead of {expected}, so it is damaged or of another version; "
            f"restore it, or pack it again and update {name} in {Path(__file__).name}"
        )
    with np.load(path, allow_pickle=False) as packed:
        return {name: packed[name] for name in packed.files}


@lru_cache(maxsize=1)
def load_children(*, path: Path = CHILDREN) -> dict[str, SparseTarget]:
    """Load the shapes of children of about twelve, by names that contain -child; cached.

    Raises:
        FileNotFoundError: if the file is missing.
        ValueError: if its digest is not the expected one.
    """
    return _targets(_checked(path, CHILDREN_SHA256, "CHILDREN_SHA256"), "shape")


@lru_cache(maxsize=1)
def load_mesh(*, path: Path = ASSET) -> HeadMesh:
    """Load the bundled head, checked against its digest; cached.

    Raises:
        FileNotFoundError: if the file is missing.
        ValueError: if its digest is not the expected one.
    """
    arrays = _checked(path, SHA256, "SHA256")
    triangles, material = arrays["triangles"].astype(np.int64), arrays["material"]
    unit_targets = _targets(arrays, "unit")
    units = np.zeros((len(unit_targets), len(arrays["vertices"]), 3), np.float32)
    for dense, target in zip(units, unit_targets.values(), strict=True):
        dense[target.vertices] = target.delta
    eyes = [np.unique(triangles[material == side]) for side in (LEFT_EYE, RIGHT_EYE)]
    # The eyeballs are turned as the rigid balls that they are; the units would only shear them.
    units[:, np.concatenate(eyes)] = 0.0
    return HeadMesh(
        vertices=arrays["vertices"],
        triangles=triangles,
        corner_uv=arrays["corner_uv"],
        material=material,
        lash_triangles=arrays["lash_triangles"].astype(np.int64),
        lash_uv=arrays["lash_uv"],
        shapes=_targets(arrays, "shape"),
        unit_names=tuple(unit_targets),
        units=units,
        masks={
            name.removeprefix("mask_"): arrays[name].astype(np.float32) / 255
            for name in arrays
            if name.startswith("mask_")
        },
        landmark_vertices=arrays["landmark_vertices"].astype(np.int64),
        landmark_weights=arrays["landmark_weights"],
        left_eye=eyes[0],
        right_eye=eyes[1],
    )

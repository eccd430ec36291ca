"""Named controls of a still, such as "smile=0.3,yaw=10": expression, head pose and gaze of the avatar's own face."""

import contextlib
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from th_jax.driving.motion import POSE, Motion, write_motion
from th_jax.landmarks.arkit import LOOK_SIDEWAYS, LOOK_UP_OR_DOWN, NAMES, look_coefficients

_SHAPES: dict[str, tuple[str, ...]] = {
    "smile": ("mouthSmileLeft", "mouthSmileRight"),
    "frown": ("mouthFrownLeft", "mouthFrownRight"),
    "open": ("jawOpen",),
    "pucker": ("mouthPucker",),
    "funnel": ("mouthFunnel",),
    "stretch": ("mouthStretchLeft", "mouthStretchRight"),
    "press": ("mouthPressLeft", "mouthPressRight"),
    "mouth-left": ("mouthLeft",),
    "mouth-right": ("mouthRight",),
    "sneer": ("noseSneerLeft", "noseSneerRight"),
    "brows-up": ("browInnerUp", "browOuterUpLeft", "browOuterUpRight"),
    "brows-down": ("browDownLeft", "browDownRight"),
    "worry": ("browInnerUp",),
    "wide": ("eyeWideLeft", "eyeWideRight"),
    "squint": ("eyeSquintLeft", "eyeSquintRight"),
    "blink": ("eyeBlinkLeft", "eyeBlinkRight"),
    "wink": ("eyeBlinkLeft",),
}
"""Shapes of each control from 0 to 1; left and right are the person's."""

_ANGLES = {"yaw": 60.0, "pitch": 45.0, "roll": 90.0}
_GAZES = {"look-right": math.degrees(LOOK_SIDEWAYS), "look-up": math.degrees(LOOK_UP_OR_DOWN)}
"""Largest angle in degrees to either side: to the image's right, up and clockwise."""

CONTROLS: tuple[str, ...] = (*_SHAPES, *_ANGLES, *_GAZES)


def control_range(name: str) -> tuple[float, float]:
    """Return the smallest and the largest value of a control.

    Raises:
        KeyError: if there is no such control.
    """
    if name in _SHAPES:
        return 0.0, 1.0
    most = {**_ANGLES, **_GAZES}[name]
    return -most, most


def parse_edit(text: str) -> Motion:
    """Parse controls to a motion of one frame.

    Args:
        text: NAME=VALUE, separated by commas. Expressions are from 0 to 1. Angles of the head (yaw, pitch, roll) and of the
            gaze (look-right, look-up) are in degrees, negative to the other side.

    Raises:
        ValueError: if a control is unknown or given twice, or a value is not a number in its range.
    """
    values: dict[str, float] = {}
    for part in text.split(","):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if name not in CONTROLS or not equals:
            raise ValueError(f"an edit is NAME=VALUE with {', '.join(CONTROLS)}, but {part.strip()!r} was given")
        if name in values:
            raise ValueError(f"the edit gives {name} twice")
        least, most = control_range(name)
        try:
            values[name] = float(value)
        except ValueError:
            raise ValueError(f"{name} must be a number, but is {value!r}") from None
        if not least <= values[name] <= most:
            raise ValueError(f"{name} must be from {least:.3g} to {most:.3g}, but is {values[name]:g}")
    gaze = jnp.radians(jnp.array([values.get(name, 0.0) for name in _GAZES], jnp.float32))
    coefficients = np.array(look_coefficients(gaze), np.float64)
    for name, shapes in _SHAPES.items():
        for shape in shapes:
            place = NAMES.index(shape)
            coefficients[place] = max(coefficients[place], values.get(name, 0.0))
    pose = [values.get(name, 1.0 if name == "size" else 0.0) for name in POSE]
    return Motion(np.zeros(1), np.array([pose]), np.clip(coefficients, 0, 1)[None])


@contextlib.contextmanager
def edit_driver(text: str) -> Iterator[Path]:
    """Write the motion of named controls to a temporary file, which is a driver.

    Raises:
        ValueError: as `parse_edit`.
    """
    motion = parse_edit(text)
    with tempfile.TemporaryDirectory() as folder:
        driver = Path(folder) / "edit.csv"
        write_motion(driver, motion)
        yield driver

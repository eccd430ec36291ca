"""Motion files: 52 ARKit coefficients and the head's pose per frame, as CSV or JSON, from a video or as a driver."""

import csv
import io
import json
import math
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Float64

from th_jax.driving.driver import Driving, output_rate
from th_jax.landmarks.arkit import NAMES, coefficients_of, expression_of, gaze_of
from th_jax.landmarks.model3d import Frames, fit_frames, known_frames, load_model, predict_frames
from th_jax.landmarks.transfer import Face, fit_face
from th_jax.media import DEFAULT_LIMITS
from th_jax.storage.files import whole_file
from th_jax.storage.strict_json import read_json

MOTION_SUFFIXES = (".csv", ".json")

POSE = ("yaw", "pitch", "roll", "size", "x", "y")
"""Optional columns: angles in degrees to the image's right, up and clockwise; size relative to the usual; and shift to the
right and down, in units of about 10 cm."""

_USUAL = {**dict.fromkeys(POSE, 0.0), "size": 1.0}
_LEAST = {"yaw": -90.0, "pitch": -90.0, "roll": -180.0, "size": 0.25, "x": -10.0, "y": -10.0}
_MOST = {"yaw": 90.0, "pitch": 90.0, "roll": 180.0, "size": 4.0, "x": 10.0, "y": 10.0}

MOST_FRAMES, MOST_BYTES = 500_000, 2**28
_LEAST_STEP = 5e-5
"""Least number of seconds between frames: half of the last decimal that is written."""

_DECLARED = Fraction(25)
"""Frame rate of a file with a single frame."""


class Motion(NamedTuple):
    """Motion of a face, independent of whose face it is."""

    times: Float64[np.ndarray, " S"]
    """Seconds, ascending."""
    pose: Float64[np.ndarray, "S 6"]
    """`POSE`; NaN in frames without a face."""
    coefficients: Float64[np.ndarray, "S 52"]
    """In [0, 1], in the order of `th_jax.landmarks.arkit.NAMES`; NaN in frames without a face."""


def is_motion_file(path: str | Path) -> bool:
    """Return whether a driver is a motion file: whether its name ends in .csv or .json."""
    return str(path).lower().endswith(MOTION_SUFFIXES)


def motion_of(
    landmarks: Float[np.ndarray, "S P 2"], times: Float64[np.ndarray, " S"], *, face: Face | None = None
) -> Motion:
    """Compute the motion of a tracked face.

    Args:
        landmarks: points in [0, 1], NaN where unknown.
        times: seconds, ascending.
        face: the person's face; by default it is fitted to these landmarks.

    Raises:
        ValueError: if no frame has all 68 points.
    """
    known = known_frames(landmarks)
    if not known.any():
        raise ValueError("a motion needs at least one frame in which all 68 landmarks are known")
    face = fit_face(landmarks[known]) if face is None else face
    frames = fit_frames(landmarks, face.person)
    expression = frames.expression - face.neutral.expression[None]
    coefficients = np.array(coefficients_of(load_model(), expression, frames.gaze), np.float64)
    usual = face.neutral
    scale = np.asarray(frames.log_scale - usual.log_scale)
    shift = np.asarray((frames.place - usual.place[None]) / jnp.exp(usual.log_scale))
    pose = np.column_stack([np.degrees(np.asarray(frames.angles)), np.exp(scale), shift]).astype(np.float64)
    limits = [np.array([bounds[name] for name in POSE]) for bounds in (_LEAST, _MOST)]
    pose = np.clip(pose, *limits)
    pose[~known], coefficients[~known] = np.nan, np.nan
    return Motion(np.asarray(times, np.float64), pose, coefficients)


def motion_landmarks(motion: Motion, face: Face) -> Float[np.ndarray, "S 70 2"]:
    """Compute the landmarks of a face that moves so, in [0, 1]; NaN in frames without a face."""
    model, usual = load_model(), face.neutral
    known = np.isfinite(motion.pose).all(-1)
    pose = np.where(known[:, None], motion.pose, [_USUAL[name] for name in POSE]).astype(np.float32)
    coefficients = np.nan_to_num(motion.coefficients).astype(np.float32)
    frames = Frames(
        jnp.radians(pose[:, :3]),
        usual.log_scale + jnp.log(pose[:, 3]),
        usual.place[None] + jnp.exp(usual.log_scale) * pose[:, 4:],
        usual.expression[None] + expression_of(model, jnp.asarray(coefficients)),
        gaze_of(jnp.asarray(coefficients)),
    )
    points = np.array(predict_frames(model, face.person, frames))
    points[~known] = np.nan
    return points


def motion_driving(motion: Motion, landmarks: Float[np.ndarray, "T P 2"]) -> Driving:
    """Return a motion as a driver of an avatar whose shots have these landmarks; pupils only if the shots have them.

    Raises:
        ValueError: if no frame of the shots or of the motion has a face.
    """
    known = np.isfinite(motion.pose).all(-1)
    if not known.any():
        raise ValueError("a motion needs at least one frame with a face")
    points = motion_landmarks(motion, fit_face(landmarks))[:, : landmarks.shape[1]]
    rate = output_rate(motion.times, declared=_DECLARED)
    return Driving(
        points.astype(np.float32), motion.times, np.where(known, 0, -1), rate, None, None, False, 0
    )  # fmt: skip


def write_motion(path: Path, motion: Motion) -> None:
    """Write a motion as CSV or JSON, by the suffix; frames without a face have empty cells, or null.

    Raises:
        ValueError: if the suffix is neither .csv nor .json.
        OSError: if the file cannot be written.
    """
    check_motion_suffix(path)
    times = np.round(motion.times, 4)
    kept = np.diff(times, prepend=-1.0) > 0  # times that do not increase cannot be read again
    motion = Motion(times[kept], motion.pose[kept], motion.coefficients[kept])
    known = np.isfinite(motion.pose).all(-1)
    rows = np.column_stack([motion.pose, motion.coefficients])
    names = (*POSE, *NAMES)
    if path.suffix.lower() == ".csv":
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["time", *names])
        for time, row, face in zip(motion.times, rows, known, strict=True):
            writer.writerow([f"{time:.4f}", *(f"{value:.5g}" if face else "" for value in row)])
        content = text.getvalue()
    else:
        frames = []
        for time, row, face in zip(motion.times, rows, known, strict=True):
            frame: dict[str, float | None] = {"time": float(time)}
            frames.append(
                frame | {name: float(f"{value:.5g}") if face else None for name, value in zip(names, row, strict=True)}
            )
        content = json.dumps({"frames": frames}) + "\n"
    with whole_file(path) as file:
        file.write(content.encode())


def check_motion_suffix(path: Path) -> None:
    """Check the suffix of a motion file.

    Raises:
        ValueError: if it is neither .csv nor .json.
    """
    if not is_motion_file(path):
        raise ValueError(f"a motion file ends in {' or '.join(MOTION_SUFFIXES)}, but {path} does not")


def read_motion(path: Path) -> Motion:
    """Read a motion file, as `write_motion` or another tool writes it.

    Coefficients that are not given are 0, and the pose is at rest. A frame whose cells are all empty (null in JSON) is a frame
    without a face.

    Raises:
        ValueError: if the file is missing, too large, not of this format, or holds invalid values; the message names the row
            and column.
    """
    check_motion_suffix(path)
    if not path.is_file():
        raise ValueError(f"there is no motion file at {path}")
    if (size := path.stat().st_size) > MOST_BYTES:
        raise ValueError(f"{path} has {size} bytes, over the limit of {MOST_BYTES}")
    is_csv = path.suffix.lower() == ".csv"
    document = None if is_csv else read_json(path, max_bytes=MOST_BYTES)
    try:
        return _motion(*(_csv_rows(path) if is_csv else _json_rows(document)))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is not a readable motion file: {error}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _csv_rows(path: Path) -> tuple[list[str], Iterable[Sequence[Any]]]:
    reader = csv.reader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline=""), strict=True)
    header = next(reader, None)
    if header is None:
        raise ValueError("the file is empty; its first line must name the columns")
    return [name.strip() for name in header], ([cell.strip() or None for cell in row] for row in reader if row)


def _json_rows(document: Any) -> tuple[list[str], Iterable[Sequence[Any]]]:
    if not isinstance(document, dict) or set(document) != {"frames"} or not isinstance(document["frames"], list):
        raise ValueError('the document must be {"frames": [...]}')
    frames = document["frames"]
    for number, frame in enumerate(frames, 1):
        if not isinstance(frame, dict) or (number > 1 and set(frame) != set(frames[0])):
            raise ValueError(f"frame {number} must be an object with the same names as the first")
    columns = list(frames[0]) if frames else []
    return columns, ([frame[name] for name in columns] for frame in frames)


def _motion(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Motion:
    known = {"time", *POSE, *NAMES}
    if unknown := [name for name in columns if name not in known]:
        raise ValueError(f"unknown column {unknown[0]!r}; there are time, {', '.join(POSE)} and ARKit's 52 names")
    if len(set(columns)) != len(columns):
        raise ValueError(f"column {next(name for name in columns if columns.count(name) > 1)!r} is there twice")
    if "time" not in columns or not set(columns) & set(NAMES):
        raise ValueError("a motion needs the column time and at least one of ARKit's 52 names")
    times: list[float] = []
    poses: list[list[float]] = []
    coefficients: list[list[float]] = []
    for number, row in enumerate(rows, 1):
        if number > MOST_FRAMES:
            raise ValueError(f"there are more than {MOST_FRAMES} frames")
        if len(row) != len(columns):
            raise ValueError(f"row {number} has {len(row)} cells, but there are {len(columns)} columns")
        cells = dict(zip(columns, row, strict=True))
        time = _number(cells.pop("time"), number, "time")
        if time < 0 or (times and time <= times[-1]):
            raise ValueError(f"row {number}: times must be 0 or more and increase, but {time:g} was found")
        if time > DEFAULT_LIMITS.seconds or (times and time - times[-1] < _LEAST_STEP):
            raise ValueError(
                f"row {number}: times must be at most {DEFAULT_LIMITS.seconds:g} s, and {_LEAST_STEP:g} s or more after "
                f"the one before, but {time:g} was found"
            )
        times.append(time)
        if all(cell is None for cell in cells.values()):
            poses.append([math.nan] * len(POSE))
            coefficients.append([math.nan] * len(NAMES))
            continue
        values = {name: _number(cell, number, name) for name, cell in cells.items()}
        poses.append([values.get(name, _USUAL[name]) for name in POSE])
        coefficients.append([values.get(name, 0.0) for name in NAMES])
    if not times:
        raise ValueError("there are no frames")
    return Motion(np.array(times), np.array(poses), np.array(coefficients))


def _number(cell: object, row: int, column: str) -> float:
    try:
        if isinstance(cell, bool) or cell is None:
            raise ValueError
        value = float(cell)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"row {row}: {column} must be a number, but is {cell!r}") from None
    low, high = (0.0, 1.0) if column in _ARKIT else (_LEAST.get(column, 0.0), _MOST.get(column, math.inf))
    if not (math.isfinite(value) and (column == "time" or low <= value <= high)):
        expected = "finite" if column == "time" else f"from {low:g} to {high:g}"
        raise ValueError(f"row {row}: {column} must be {expected}, but is {value:g}")
    return value


_ARKIT = frozenset(NAMES)


def frames_with_face(motion: Motion) -> Bool[np.ndarray, " S"]:
    """Return which frames have a face."""
    return np.isfinite(motion.pose).all(-1)

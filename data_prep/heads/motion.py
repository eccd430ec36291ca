"""Motion of a talking head from a seed: speech, blinks, brows, smiles, gaze and turns."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.ndimage import gaussian_filter1d

from data_prep.heads.mesh import load_mesh


class HeadState(NamedTuple):
    """One moment. Angles are radians, seen by the viewer of the image.

    yaw > 0 turns the face to the image's right, pitch > 0 up, roll > 0 tips the head clockwise; gaze is relative to
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
    """Build a state from named face units (`{"jawOpen": 0.5}`); the others are at rest.

    Raises:
        ValueError: if a face unit is unknown.
    """
    mesh = load_mesh()
    units = np.zeros(len(mesh.unit_names), np.float32)
    for name, weight in (expression or {}).items():
        if name not in mesh.unit_index:
            raise ValueError(f"unknown face unit {name!r}; use one of {', '.join(mesh.unit_names)}")
        units[mesh.unit_index[name]] = weight
    return HeadState(units, yaw, pitch, roll, gaze_yaw, gaze_pitch)


def rotation(yaw: float, pitch: float, roll: float) -> Float[np.ndarray, "3 3"]:
    """The matrix that turns a head by yaw, then pitch, then roll."""
    cy, sy, cp, sp, cr, sr = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch), np.cos(roll), np.sin(roll)
    turn = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    nod = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
    tip = np.array([[cr, sr, 0], [-sr, cr, 0], [0, 0, 1]])
    return (tip @ nod @ turn).astype(np.float32)


# Mouth shapes by sound; a unit without Left or Right moves both sides.
CONSONANTS: tuple[dict[str, float], ...] = (
    {"mouthPress": 0.45, "mouthRollLower": 0.25, "mouthRollUpper": 0.25},  # m, b, p
    {"jawOpen": 0.08, "mouthRollLower": 0.50, "mouthUpperUp": 0.30},  # f, v
    {"jawOpen": 0.20, "tongueOut": 0.15, "mouthLowerDown": 0.20},  # l, d, th
    {"jawOpen": 0.07, "mouthStretch": 0.35, "mouthLowerDown": 0.35, "mouthUpperUp": 0.20},  # s, z
    {"jawOpen": 0.12, "mouthFunnel": 0.60},  # sh, r
)

VOWELS: tuple[dict[str, float], ...] = (
    {"jawOpen": 0.62, "mouthLowerDown": 0.30, "mouthUpperUp": 0.20},  # a
    {"jawOpen": 0.38, "mouthStretch": 0.40, "mouthSmile": 0.20, "mouthLowerDown": 0.25},  # e
    {"jawOpen": 0.18, "mouthSmile": 0.45, "mouthStretch": 0.30, "mouthLowerDown": 0.20},  # i
    {"jawOpen": 0.45, "mouthFunnel": 0.60, "mouthPucker": 0.15},  # o
    {"jawOpen": 0.16, "mouthPucker": 0.75, "mouthFunnel": 0.25},  # u
)

SHORTEST_SYLLABLE, LONGEST_SYLLABLE = 0.12, 0.36  # seconds

COARTICULATION = 0.030  # seconds over which neighboring sounds run into each other


def spread_sides(shape: dict[str, float], index: dict[str, int]) -> Float[np.ndarray, " U"]:
    """A mouth shape as weights of all face units.

    Raises:
        KeyError: if a name is a unit neither by itself nor with Left and Right.
    """
    weights = np.zeros(len(index), np.float32)
    for name, weight in shape.items():
        for unit in (name,) if name in index else (name + "Left", name + "Right"):
            weights[index[unit]] = weight
    return weights


def speak(
    rng: np.random.Generator, times: Float[np.ndarray, " T"], index: dict[str, int]
) -> tuple[Float[np.ndarray, "T U"], Float[np.ndarray, " T"]]:
    """Weights of the face units at evenly spaced times, and how loud the speaker is (0 in pauses).

    The times are seconds that rise in equal steps; `index` gives the column of each face unit.
    """
    end = float(times[-1])
    consonants = [spread_sides(shape, index) for shape in CONSONANTS]
    vowels = [spread_sides(shape, index) for shape in VOWELS]
    silent = np.zeros(len(index), np.float32)
    effort = rng.uniform(0.75, 1.15)
    shapes: list[np.ndarray] = [silent]
    keys, loud = [0.0], [0.0]
    now = rng.uniform(0.0, 0.4)
    while now < end:
        phrase_end = now + rng.uniform(1.2, 4.5)
        while now < phrase_end:
            length = float(np.clip(rng.normal(0.21, 0.06), SHORTEST_SYLLABLE, LONGEST_SYLLABLE))
            stress = effort * rng.uniform(0.55, 1.2)
            if rng.random() < 0.85:
                keys.append(now + 0.2 * length)
                shapes.append(consonants[rng.integers(len(consonants))] * min(effort, 1.0))
                loud.append(stress)
            keys.append(now + 0.65 * length)
            shapes.append(vowels[rng.integers(len(vowels))] * stress)
            loud.append(stress)
            now += length
        pause = rng.uniform(0.25, 1.3)
        for share in (0.15, 0.85):
            keys.append(now + share * pause)
            shapes.append(silent)
            loud.append(0.0)
        now += pause
    place = np.interp(times, keys, np.arange(len(keys)))
    before = np.minimum(place.astype(int), len(keys) - 2)
    share = 0.5 - 0.5 * np.cos(np.pi * (place - before))
    stacked = np.stack(shapes)
    units = stacked[before] * (1 - share[:, None]) + stacked[before + 1] * share[:, None]
    blur = COARTICULATION / max(float(times[1] - times[0]), 1e-6) if len(times) > 1 else 0.0
    if blur > 0.1:
        units = gaussian_filter1d(units, blur, axis=0, mode="nearest")
    return np.clip(units, 0, 1).astype(np.float32), np.interp(times, keys, loud)


WIDEST_YAW, WIDEST_PITCH, WIDEST_ROLL = np.radians([30.0, 13.0, 10.0])

WIDEST_GAZE = 0.42  # radians, of the eyes in the head
GAZE_LIMITS = np.array([WIDEST_GAZE, 0.6 * WIDEST_GAZE])  # yaw and pitch
SAMPLING_RATE = 30.0  # moments a second from which sampled frames are chosen
SPACING = 1.0  # seconds between sampled frames, at least

# (face units, share of time, shortest, longest seconds, strongest)
EVENTS: tuple[tuple[dict[str, float], float, float, float, float], ...] = (
    ({"mouthSmile": 0.9, "cheekSquint": 0.5, "eyeSquint": 0.25, "mouthDimple": 0.3}, 0.22, 1.2, 4.0, 1.0),
    ({"browInnerUp": 0.9, "browOuterUp": 0.8, "eyeWide": 0.4}, 0.18, 0.5, 1.8, 1.0),
    ({"browDown": 0.8, "eyeSquint": 0.3}, 0.12, 0.6, 2.0, 1.0),
    ({"mouthFrown": 0.7, "browInnerUp": 0.6, "mouthShrugLower": 0.3}, 0.07, 0.8, 2.5, 0.9),
    ({"noseSneer": 0.4, "mouthUpperUp": 0.2}, 0.04, 0.4, 1.0, 0.8),
)


class Motion(NamedTuple):
    """States at rising times (seconds); angles in radians as in `HeadState`: yaw, pitch, roll, gaze yaw, gaze pitch."""

    times: Float[np.ndarray, " T"]
    units: Float[np.ndarray, "T 52"]
    angles: Float[np.ndarray, "T 5"]

    def state(self, i: int) -> HeadState:
        """The state at moment i."""
        yaw, pitch, roll, gaze_yaw, gaze_pitch = (float(angle) for angle in self.angles[i])
        return HeadState(self.units[i], yaw, pitch, roll, gaze_yaw, gaze_pitch)


def _ease(share: np.ndarray) -> np.ndarray:
    t = np.clip(share, 0, 1)
    return t**3 * (10 - 15 * t + 6 * t * t)  # least jerk


def _steps(
    times: np.ndarray, starts: list[float], lengths: list[float], targets: np.ndarray
) -> Float[np.ndarray, "T D"]:
    """A path that moves to each target in turn, starting and arriving at rest."""
    path = np.repeat(targets[:1], len(times), axis=0)
    for start, length, before, after in zip(starts[1:], lengths[1:], targets[:-1], targets[1:], strict=True):
        path += _ease((times - start) / length)[:, None] * (after - before)
    return path


def _turns(rng: np.random.Generator, times: np.ndarray) -> Float[np.ndarray, "T 3"]:
    """Yaw, pitch and roll: a new pose every second or two, and a little sway."""
    starts, lengths, targets = [0.0], [1.0], [rng.normal(0, [0.12, 0.05, 0.03])]
    now = rng.uniform(0.2, 1.0)
    while now < times[-1]:
        length = rng.uniform(0.35, 0.85)
        wide = 0.42 if rng.random() < 0.35 else 0.20
        starts.append(now)
        lengths.append(length)
        yaw = rng.normal(0, wide)
        targets.append(np.array([yaw, rng.normal(0, 0.10), rng.normal(0.12 * yaw, 0.06)]))
        now += length + rng.uniform(0.3, 1.5)
    path = _steps(times, starts, lengths, np.stack(targets))
    for axis, size in enumerate((0.020, 0.015, 0.010)):
        for frequency in (0.23, 0.41, 0.73):
            path[:, axis] += size * np.sin(2 * np.pi * (frequency * times + rng.random())) / 2
    return path


def _glances(rng: np.random.Generator, times: np.ndarray, turns: np.ndarray) -> Float[np.ndarray, "T 2"]:
    """Gaze in the head: mostly held on the viewer while the head turns, with saccades and looks away."""
    starts, lengths, targets = [0.0], [0.05], [np.zeros(2)]
    now = rng.uniform(0.2, 0.9)
    while now < times[-1]:
        away = rng.random() < 0.3
        starts.append(now)
        lengths.append(rng.uniform(0.04, 0.07))
        targets.append(rng.normal(0, [0.28, 0.12]) if away else rng.normal(0, [0.06, 0.04]))
        now += rng.uniform(0.35, 1.0) if away else rng.uniform(0.5, 2.2)
    glance = _steps(times, starts, lengths, np.stack(targets)) - 0.75 * turns[:, :2]
    return np.clip(glance, -GAZE_LIMITS, GAZE_LIMITS)


def _blinks(rng: np.random.Generator, times: np.ndarray) -> Float[np.ndarray, " T"]:
    """How far the lids are shut, 0..1."""
    shut = np.zeros(len(times))
    now = rng.uniform(0.3, 3.0)
    while now < times[-1]:
        since = times - now
        shut = np.maximum(shut, _ease(since / 0.09) * (1 - _ease((since - 0.13) / 0.16)))
        now += 0.3 + rng.gamma(2.5, 1.2)
    return shut


def talk(seed: int, *, seconds: float, fps: float, take: int = 0) -> Motion:
    """Draw a person's talking motion, which depends only on the arguments.

    Raises:
        ValueError: if the length or the rate is not positive.
    """
    if not (seconds > 0 and fps > 0):
        raise ValueError(f"seconds and fps must be positive, but are {seconds} and {fps}")
    rng = np.random.default_rng([seed, 2, take])
    index = load_mesh().unit_index
    times = np.arange(max(round(seconds * fps), 1)) / fps
    units, loud = speak(rng, times, index)
    for shape, share, shortest, longest, strongest in EVENTS:
        weights = spread_sides(shape, index)
        now = rng.exponential(longest)
        while now < times[-1]:
            length, strength = rng.uniform(shortest, longest), rng.uniform(0.3, strongest)
            pulse = _ease((times - now) / 0.3) * (1 - _ease((times - now - length) / 0.4))
            units = units + (strength * pulse)[:, None] * weights
            now += length + rng.exponential((shortest + longest) / 2 * (1 / share - 1))
    turns = _turns(rng, times)
    turns[:, 1] += 0.03 * (loud - loud.mean())  # stressed syllables carry the head along
    turns = np.clip(turns, [-WIDEST_YAW, -WIDEST_PITCH, -WIDEST_ROLL], [WIDEST_YAW, WIDEST_PITCH, WIDEST_ROLL])
    gaze = _glances(rng, times, turns)
    shut = _blinks(rng, times)
    units = np.clip(units, 0, 1)
    for side in ("Left", "Right"):
        blink, wide = index["eyeBlink" + side], index["eyeWide" + side]
        units[:, blink] = np.maximum(units[:, blink], shut)
        units[:, wide] *= 1 - shut
    return Motion(times, units.astype(np.float32), np.concatenate([turns, gaze], axis=1))


def choose_spread(motion: Motion, *, count: int) -> Int[np.ndarray, " N"]:
    """Moments that differ as much as possible in pose and expression, at least `SPACING` seconds apart, in order.

    Raises:
        ValueError: if the motion is too short for so many moments.
    """
    index = load_mesh().unit_index
    column = {
        name: motion.units[:, index[name]] for name in ("jawOpen", "mouthPucker", "mouthSmileLeft", "browInnerUp")
    }
    features = np.column_stack(
        [
            motion.angles[:, 0] / 0.5,
            motion.angles[:, 1] / 0.25,
            motion.angles[:, 2] / 0.35,
            motion.angles[:, 3:] / 0.8,
            1.2 * column["jawOpen"],
            0.6 * column["mouthPucker"],
            0.5 * column["mouthSmileLeft"],
            0.4 * column["browInnerUp"],
            0.3 * motion.units[:, index["eyeBlinkLeft"]],
        ]
    )
    chosen = [int((features**2).sum(1).argmin())]
    while len(chosen) < count:
        distance = ((features[:, None] - features[chosen][None]) ** 2).sum(-1).min(1)
        near = np.abs(motion.times[:, None] - motion.times[chosen][None]).min(1) < SPACING - 1e-9
        if near.all():
            raise ValueError(
                f"{count} moments at least {SPACING} s apart do not fit into {motion.times[-1]:.1f} s: use a longer motion"
            )
        chosen.append(int(np.where(near, -1.0, distance).argmax()))
    return np.sort(np.array(chosen))


def lid_units(shut: float) -> dict[str, float]:
    """Return the weights of all units of the lids: from -1, wide open, to 1, shut."""
    weights = {"eyeBlink": max(shut, 0.0), "eyeWide": max(-shut, 0.0), "eyeSquint": 0.0}
    return {unit + side: weight for unit, weight in weights.items() for side in ("Left", "Right")}


def free_eyes(motion: Motion, moments: np.ndarray, rng: np.random.Generator, *, share: float) -> Motion:
    """Draw gaze and lids independently of each other, and over their whole range, at a share of these moments.

    In talk a look down comes with lowered lids and wide-open eyes look ahead, so that networks may learn to read one from
    the other. The lids vary from wide open to half shut.
    """
    units, angles = motion.units.copy(), motion.angles.copy()
    index = load_mesh().unit_index
    for moment in moments[rng.random(len(moments)) < share]:
        angles[moment, 3:] = rng.uniform(-1, 1, 2) * GAZE_LIMITS
        for unit, weight in lid_units(rng.uniform(-1, 0.5)).items():
            units[moment, index[unit]] = weight
    return motion._replace(units=units, angles=angles)


def varied_states(seed: int, *, count: int) -> list[HeadState]:
    """Return moments of a person's talk that differ as much as possible, by `choose_spread`."""
    motion = talk(seed, seconds=2.5 * SPACING * count + 2.0, fps=SAMPLING_RATE)
    return [motion.state(int(moment)) for moment in choose_spread(motion, count=count)]

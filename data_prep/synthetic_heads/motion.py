"""Moves a head the way a talking person does: speech, blinks, brows, smiles, glances and turns, from a seed."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from data_prep.synthetic_heads.mesh import load_mesh
from data_prep.synthetic_heads.speech import speak, spread_sides
from data_prep.synthetic_heads.state import HeadState

WIDEST_YAW, WIDEST_PITCH, WIDEST_ROLL = np.radians([30.0, 13.0, 10.0])
WIDEST_GAZE = 0.42  # radians, of the eyes in the head
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
    return np.clip(glance, [-WIDEST_GAZE, -0.6 * WIDEST_GAZE], [WIDEST_GAZE, 0.6 * WIDEST_GAZE])


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
    """A person's talking motion; the same seed, length, rate and take always give the same.

    Args:
        seed: the person's seed.
        seconds: length; more than 0.
        fps: moments a second; more than 0.
        take: which of the person's many clips.

    Raises:
        ValueError: if the length or the rate is not positive.
    """
    if not (seconds > 0 and fps > 0):
        raise ValueError(f"a motion needs a positive length and rate, got seconds={seconds}, fps={fps}")
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


def choose_spread(motion: Motion, *, count: int, spacing: float = SPACING) -> Int[np.ndarray, " N"]:
    """Moments that differ as much as possible in pose and expression, at least `spacing` seconds apart, in order.

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
        near = np.abs(motion.times[:, None] - motion.times[chosen][None]).min(1) < spacing - 1e-9
        if near.all():
            raise ValueError(
                f"{count} moments {spacing} s apart do not fit into {motion.times[-1]:.1f} s; make the motion longer"
            )
        chosen.append(int(np.where(near, -1.0, distance).argmax()))
    return np.sort(np.array(chosen))

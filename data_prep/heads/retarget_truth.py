"""Known truth for retargeting, on points alone: each held-out head with each other one's expression, pose and gaze."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from data_prep.heads.identity import draw_identity
from data_prep.heads.mesh import load_mesh
from data_prep.heads.motion import WIDEST_GAZE, HeadState, Motion, talk, varied_states
from data_prep.heads.person import Person, prepare
from data_prep.heads.render import pose, project, true_landmarks
from th_jax.landmarks.truth import RetargetTruth

YAW_BINS = ((0.0, 15.0), (15.0, 30.0), (30.0, 45.0))
"""Degrees to either side."""

CLIP_FRAMES, CLIP_SECONDS = 60, 24.0
"""Frames from which a driver's resting shape is found, apart from the frames that drive."""


def make_truth(*, people: int = 24, first_seed: int = 100_000, frames: int = 8, shots: int = 8) -> RetargetTruth:
    """Compute the points of all pairs; nothing is rendered.

    In each bin of yaw, the first frame of a driver has shut lids and the second its least open jaw.

    Args:
        people: number of people, with consecutive seeds.
        first_seed: seed of the first; by default that of the first held-out person.
        frames: driving frames in each bin of yaw.
        shots: number of a target's shots, from another take of its talk.

    Raises:
        ValueError: if there are fewer than two people, or no frames or shots.
    """
    if people < 2 or frames < 1 or shots < 1:
        raise ValueError(
            f"pairs need at least 2 people, 1 frame and 1 shot, but {people}, {frames} and {shots} were given"
        )
    seeds = tuple(range(first_seed, first_seed + people))
    states = [driving_states(seed, frames=frames) for seed in seeds]
    own_shots, clips, truth, eyes, radius = [], [], [], [], []
    for seed in seeds:
        person = prepare(draw_identity(seed))
        own_shots.append(points_of_states(person, varied_states(seed, count=shots)).landmarks)
        clip = talk(seed, seconds=CLIP_SECONDS, fps=CLIP_FRAMES / CLIP_SECONDS, take=1)
        clips.append(points_of_states(person, [clip.state(moment) for moment in range(len(clip.times))]).landmarks)
        moved = [points_of_states(person, others) for others in states]
        truth.append(np.stack([one.landmarks for one in moved]))
        eyes.append(np.stack([one.eyes for one in moved]))
        radius.append(np.stack([one.radius for one in moved]))
    together = np.stack(truth)
    return RetargetTruth(
        seeds,
        np.stack(own_shots),
        np.stack(clips),
        together[np.arange(people), np.arange(people)],
        together,
        np.stack(eyes),
        np.stack(radius),
        np.stack([[state.units for state in one] for one in states]),
        np.array([[state[1:] for state in one] for one in states]),
    )


def driving_states(seed: int, *, frames: int) -> list[HeadState]:
    """Draw moments of a person's talk and turn the head into each bin of yaw, with the gaze held as in `talk`."""
    rng = np.random.default_rng([seed, 11])
    motion = talk(seed, seconds=30.0, fps=10.0, take=2)
    return [
        _turned(motion, moment, np.radians(rng.uniform(*span)) * rng.choice([-1.0, 1.0]), shut=place == 0)
        for span in YAW_BINS
        for place, moment in enumerate(_moments(motion, frames, rng))
    ]


def _moments(motion: Motion, count: int, rng: np.random.Generator) -> list[int]:
    moments = rng.choice(len(motion.times), count, replace=False)
    if count > 1:
        candidates = rng.choice(len(motion.times), 20, replace=False)
        moments[1] = candidates[motion.units[candidates, load_mesh().unit_index["jawOpen"]].argmin()]
    return [int(moment) for moment in moments]


def _turned(motion: Motion, moment: int, yaw: float, *, shut: bool) -> HeadState:
    state = motion.state(moment)
    units = state.units.copy()
    if shut:
        for side in ("Left", "Right"):
            units[load_mesh().unit_index[f"eyeBlink{side}"]] = 1.0
    gaze = float(np.clip(state.gaze_yaw - 0.75 * (yaw - state.yaw), -WIDEST_GAZE, WIDEST_GAZE))
    return state._replace(units=units, yaw=float(yaw), gaze_yaw=gaze)


class StatePoints(NamedTuple):
    """Points and eyeballs of a person in some states."""

    landmarks: Float[np.ndarray, "F 70 2"]
    eyes: Float[np.ndarray, "F 2 2"]
    radius: Float[np.ndarray, "F 2"]


def points_of_states(person: Person, states: list[HeadState]) -> StatePoints:
    """Compute the points of a person in each state, and where the eyeballs are."""
    mesh = load_mesh()
    landmarks, eyes, radius = [], [], []
    for state in states:
        vertices = pose(person, state)
        landmarks.append(true_landmarks(person, vertices)[:, :2])
        balls = (mesh.right_eye, mesh.left_eye)
        centers = np.stack([vertices[ball].mean(0) for ball in balls])
        rings = zip(person.pupil_rings[::-1], centers, strict=True)
        sizes = [np.linalg.norm(vertices[ring] - center, axis=1).mean() for ring, center in rings]
        seen = project(person, centers.astype(np.float32))
        eyes.append(seen[:, :2])
        radius.append(person.focal * np.array(sizes) / seen[:, 2])
    return StatePoints(*(np.stack(part).astype(np.float64) for part in (landmarks, eyes, radius)))

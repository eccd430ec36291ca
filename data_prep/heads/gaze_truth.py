"""Rendered heads whose gaze and lids vary independently of each other, with the places of their pupils and eyeballs."""

import numpy as np

from data_prep.heads.identity import draw_identity
from data_prep.heads.motion import HeadState, head_state, lid_units, varied_states
from data_prep.heads.person import prepare
from data_prep.heads.render import render_head
from data_prep.heads.retarget_truth import points_of_states
from th_jax.landmarks.truth import GazeTruth

WIDEST_YAW, WIDEST_PITCH = np.radians([22.0, 14.0])
"""Largest angles of the gaze. The head faces the camera: pupils in the image would follow its turns too."""

MOST_SHUT = 0.2
"""Largest weight of a blink. Lids vary from wide open to this, so that pupils and their height are seen in most frames."""


def make_gaze_truth(
    *, size: int, people: int = 4, first_seed: int = 100_000, frames: int = 16, shots: int = 8
) -> GazeTruth:
    """Render people's shots, from their talk, and frames with random gaze and lids.

    Args:
        size: side of the frames in pixels.
        people: number of people, with consecutive seeds.
        first_seed: seed of the first; by default that of the first held-out person.
        frames: frames of each person with random gaze.
        shots: number of shots of each person.

    Raises:
        ValueError: if a number is below 1, or the size is outside the renderer's range.
    """
    if min(people, frames, shots) < 1:
        raise ValueError(f"people, frames and shots must be 1 or more, but {people}, {frames} and {shots} were given")
    parts = []
    for seed in range(first_seed, first_seed + people):
        identity = draw_identity(seed)
        known = varied_states(seed, count=shots)
        driving = gaze_states(seed, frames=frames)
        rendered = [
            np.stack([render_head(identity, state, size=size).frame for state in states]) for states in (known, driving)
        ]
        person = prepare(identity)
        moved = points_of_states(person, driving)
        parts.append(
            (
                rendered[0], points_of_states(person, known).landmarks, rendered[1], moved.landmarks, moved.eyes,
                moved.radius,
            )
        )  # fmt: skip
    return GazeTruth(*(np.stack(part) for part in zip(*parts, strict=True)))


def gaze_states(seed: int, *, frames: int) -> list[HeadState]:
    """Draw gaze and lids independently of each other."""
    rng = np.random.default_rng([seed, 12])
    wide = np.array([WIDEST_YAW, WIDEST_PITCH])
    states = []
    for yaw, pitch in rng.uniform(-wide, wide, (frames, 2)):
        lids = lid_units(float(rng.uniform(-1, MOST_SHUT)))
        states.append(head_state(expression=lids, gaze_yaw=float(yaw), gaze_pitch=float(pitch)))
    return states

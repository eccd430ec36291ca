"""Renders people from seeds: a few varied frames of one person, or a talking clip."""

from collections.abc import Callable
from enum import StrEnum
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from data_prep.heads.identity import check_seed, draw_identity
from data_prep.heads.motion import SAMPLING_RATE, SPACING, Motion, choose_spread, free_eyes, talk
from data_prep.heads.photo_person import sitter, turned_further
from data_prep.heads.photo_render import render_photo
from data_prep.heads.render import Rendering, render_head


class Style(StrEnum):
    """Styles of rendering: drawn on plain backgrounds, or photographed by a webcam."""

    DRAWN = "drawn"
    PHOTO = "photo"


class PersonFrames(NamedTuple):
    """Frames of one person with true landmarks (x, y in 0..1; 68 points, then the pupils) and times in seconds."""

    frames: UInt8[np.ndarray, "T S S 3"]
    landmarks: Float[np.ndarray, "T 70 2"]
    times: Float[np.ndarray, " T"]


def _motion(seed: int, style: Style, *, seconds: float, fps: float, take: int = 0) -> Motion:
    motion = talk(seed, seconds=seconds, fps=fps, take=take)
    return motion if style == Style.DRAWN else turned_further(motion, sitter(seed, allow_reserved=True).photo.turns)


def _renderer(
    seed: int, motion: Motion, style: Style, *, size: int, allow_reserved: bool
) -> Callable[[int], Rendering]:
    """What renders a moment of the motion."""
    if style == Style.DRAWN:
        identity = draw_identity(seed, allow_reserved=allow_reserved)
        return lambda moment: render_head(identity, motion.state(moment), size=size)
    who = sitter(seed, allow_reserved=allow_reserved)
    speed = np.gradient(motion.angles[:, :2], motion.times, axis=0) if len(motion.times) > 1 else np.zeros((1, 2))
    return lambda moment: render_photo(
        who, motion.state(moment), size=size, moment=moment, turning=(speed[moment, 0], speed[moment, 1])
    )


def _render(
    seed: int, motion: Motion, moments: np.ndarray, style: Style, *, size: int, allow_reserved: bool
) -> PersonFrames:
    render = _renderer(seed, motion, style, size=size, allow_reserved=allow_reserved)
    renderings = [render(int(moment)) for moment in moments]
    return PersonFrames(
        np.stack([rendering.frame for rendering in renderings]),
        np.stack([rendering.landmarks for rendering in renderings]),
        motion.times[moments],
    )


def render_person(
    seed: int,
    *,
    frames: int,
    size: int,
    allow_reserved: bool = False,
    style: Style = Style.DRAWN,
    free_eyes_share: float = 0.0,
) -> PersonFrames:
    """Render frames of one person with varied poses and expressions, at least 1 s apart.

    Args:
        seed: seed of the person; the same seed gives the same frames.
        frames: number of frames, at least 1.
        size: width and height in pixels, 16..1024.
        allow_reserved: allow seeds from 900000 on, which are reserved for evaluating trained models.
        style: style of rendering; each style has its own people.
        free_eyes_share: share of the frames, 0..1, whose gaze and lids are drawn independently (`free_eyes`).

    Raises:
        ValueError: for a reserved or negative seed, no frames, or an invalid size.
    """
    if frames < 1:
        raise ValueError(f"frames must be 1 or more, but is {frames}")
    check_seed(seed, allow_reserved=allow_reserved)
    motion = _motion(seed, style, seconds=2.5 * SPACING * frames + 2.0, fps=SAMPLING_RATE)
    moments = choose_spread(motion, count=frames)
    motion = free_eyes(motion, moments, np.random.default_rng([seed, 13]), share=free_eyes_share)
    return _render(seed, motion, moments, style, size=size, allow_reserved=allow_reserved)


def render_clip(
    seed: int,
    *,
    seconds: float,
    fps: float,
    size: int,
    take: int = 1,
    allow_reserved: bool = False,
    style: Style = Style.DRAWN,
) -> PersonFrames:
    """Render a continuous clip of one talking person, for example as a driver.

    Args:
        seed: seed of the person; the same seed and take give the same clip.
        seconds: length in seconds, more than 0.
        fps: frames per second, more than 0.
        size: width and height in pixels, 16..1024.
        take: number of the clip of this person; take 0 is the one `render_person` chooses its frames from.
        allow_reserved: allow reserved seeds, from 900000 on.
        style: style of rendering; each style has its own people.

    Raises:
        ValueError: for a reserved or negative seed, a length or rate that is not positive, or an invalid size.
    """
    check_seed(seed, allow_reserved=allow_reserved)
    motion = _motion(seed, style, seconds=seconds, fps=fps, take=take)
    return _render(seed, motion, np.arange(len(motion.times)), style, size=size, allow_reserved=allow_reserved)

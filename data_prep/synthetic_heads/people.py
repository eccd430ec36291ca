"""Renders people from seeds: a few varied frames of one person, or a talking clip."""

from collections.abc import Callable
from enum import StrEnum
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from data_prep.synthetic_heads.identity import check_seed, draw_identity
from data_prep.synthetic_heads.motion import SAMPLING_RATE, SPACING, Motion, choose_spread, talk
from data_prep.synthetic_heads.photo_person import sitter, turned_further
from data_prep.synthetic_heads.photo_render import render_photo
from data_prep.synthetic_heads.render import Rendering, render_head


class Style(StrEnum):
    """How people look: drawn on plain backgrounds, or photographed by a webcam."""

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
    seed: int, *, frames: int, size: int, allow_reserved: bool = False, style: Style = Style.DRAWN
) -> PersonFrames:
    """Frames of one person with spread poses and expressions, at least 1 s of their talk apart.

    Args:
        seed: who; the same seed gives the same pictures.
        frames: how many, at least 1.
        size: width and height in pixels, 16..1024.
        allow_reserved: open the seeds from 900000 on, kept for judging trained models.
        style: how they look; the people of different styles are different.

    Raises:
        ValueError: for a reserved or negative seed, no frames, or an impossible size.
    """
    if frames < 1:
        raise ValueError(f"a person needs at least 1 frame, got frames={frames}")
    check_seed(seed, allow_reserved=allow_reserved)
    motion = _motion(seed, style, seconds=2.5 * SPACING * frames + 2.0, fps=SAMPLING_RATE)
    moments = choose_spread(motion, count=frames)
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
    """A continuous clip of one talking person, to drive others with.

    Args:
        seed: who; the same seed and take give the same clip.
        seconds: length, more than 0.
        fps: frames a second, more than 0.
        size: width and height in pixels, 16..1024.
        take: which clip of this person; take 0 is the one `render_person` chooses its frames from.
        allow_reserved: open the seeds from 900000 on.
        style: how they look; the people of different styles are different.

    Raises:
        ValueError: for a reserved or negative seed, a length or rate that is not positive, or an impossible size.
    """
    check_seed(seed, allow_reserved=allow_reserved)
    motion = _motion(seed, style, seconds=seconds, fps=fps, take=take)
    return _render(seed, motion, np.arange(len(motion.times)), style, size=size, allow_reserved=allow_reserved)

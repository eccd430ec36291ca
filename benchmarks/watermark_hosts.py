"""The videos that `benchmarks.watermark` marks: rendered heads, frames that avatars generate, and seconds of real videos."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import jax
import numpy as np

import th_jax
from data_prep.heads.identity import draw_identity
from data_prep.heads.motion import talk
from data_prep.heads.render import Rendering, render_head
from th_jax.media import open_video
from th_jax.render import render
from th_jax.training.finetune import feed_forward
from th_jax.types import Shots

FIRST_SEED = 600_000
"""Of people on whom nothing was trained and no setting was chosen."""

FRAMES, FPS = 25, 25.0
SIDE = 256

_MOMENTS = range(30, 30 + FRAMES)
_SHOTS = (0, 4, 8, 12, 16, 20, 70, 90)
"""Moments of a talk from which an avatar is made, none of those at which it is driven."""


class Video(NamedTuple):
    """A second of video."""

    name: str
    """Tells it from all others, whichever videos are asked for beside it."""
    make: Callable[[], np.ndarray]
    """UInt8 `[25, S, S, 3]`."""


def rendered(people: int) -> Iterator[Video]:
    """A second of each person's talk, 256 px."""
    for seed in range(FIRST_SEED, FIRST_SEED + people):
        yield Video(f"rendered-{seed}", lambda seed=seed: np.stack([one.frame for one in _talk(seed, _MOMENTS)]))


def generated(people: int) -> Iterator[Video]:
    """What the bundled weights `heads64` generate of the same people, 64 px and not marked yet.

    A feed-forward avatar of eight shots of each is driven by the true landmarks of another second of the same talk.
    """
    meta = th_jax.load_pretrained("heads64", only_generate=True)
    avatar_of = jax.jit(lambda shots: feed_forward(meta.networks, meta.weights, shots))
    size = meta.networks.image_size

    def make(seed: int) -> np.ndarray:
        shown = list(_talk(seed, _SHOTS))
        frames = np.stack([cv2.resize(one.frame, (size, size), interpolation=cv2.INTER_AREA) for one in shown])
        points = np.stack([one.landmarks for one in shown]).astype(np.float32)
        avatar = avatar_of(Shots(frames, points, np.ones(len(frames), np.float32)))
        driving = np.stack([one.landmarks for one in _talk(seed, _MOMENTS)])
        return render(meta.networks, avatar, driving, chunk=FRAMES)

    for seed in range(FIRST_SEED, FIRST_SEED + people):
        yield Video(f"generated-{seed}-{meta.digest[:8]}", lambda seed=seed: make(seed))


def seconds_of(clips: Iterable[Path]) -> Iterator[Video]:
    """Every fourth second of the videos' middle squares, at 256 px."""
    for clip in clips:
        taken: list[np.ndarray] = []
        second = 0
        with open_video(clip) as video:
            for index, (_, frame) in enumerate(video.frames()):
                if index % (4 * FRAMES) >= FRAMES:
                    continue
                side = min(frame.shape[:2])
                top, left = ((length - side) // 2 for length in frame.shape[:2])
                method = cv2.INTER_AREA if side > SIDE else cv2.INTER_CUBIC
                square = frame[top : top + side, left : left + side]
                taken.append(cv2.resize(square, (SIDE, SIDE), interpolation=method))
                if len(taken) == FRAMES:
                    one_second = np.stack(taken)
                    digest = hashlib.sha256(one_second.tobytes()).hexdigest()
                    yield Video(f"{clip.stem}-{second}-{digest[:8]}", lambda one_second=one_second: one_second)
                    taken, second = [], second + 1


def _talk(seed: int, moments: Iterable[int]) -> Iterator[Rendering]:
    identity, motion = draw_identity(seed), talk(seed, seconds=4.0, fps=FPS)
    return (render_head(identity, motion.state(moment), size=SIDE) for moment in moments)

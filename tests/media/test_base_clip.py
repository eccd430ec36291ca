"""The video shared by tests of geometry, color, timing and audio has its documented contents."""

from pathlib import Path

import numpy as np
import pytest
from base_clip import EVENTS, FPS, HEIGHT, SECONDS, WIDTH, base_images, clicks, flashes

from th_jax.media import open_video
from th_jax.media.audio import open_sound


def test_the_base_clip(base_clip: Path) -> None:
    with open_video(base_clip) as video:
        assert (video.size, video.fps, video.duration) == ((WIDTH, HEIGHT), FPS, pytest.approx(SECONDS, abs=0.05))
        times, frames = zip(*video.frames(), strict=True)
    assert len(times) == FPS * SECONDS
    for index, name in ((0, "closed"), (30, "bright"), (35, "open"), (45, "closed")):
        assert np.abs(frames[index].astype(int) - base_images()[name]).mean() < 2, (index, name)
    assert flashes(times, frames) == pytest.approx(EVENTS, abs=1e-3)
    sound = open_sound(base_clip)
    heard = clicks(np.concatenate(list(sound.blocks), 1), rate=sound.rate)
    assert heard == pytest.approx(EVENTS, abs=0.005)

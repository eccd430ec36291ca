"""Uneven frames: the output shows all of the densest second, repeats frames elsewhere, and stays in sync with the audio."""

from fractions import Fraction
from pathlib import Path

import jax
import numpy as np
import pytest
from driver_clips import swaying, write_uneven

from th_jax.avatars.file import load_avatar, save_avatar
from th_jax.driving.animate import animate
from th_jax.driving.rates import SYNC, frames_on_screen, output_rate
from th_jax.media import open_video
from th_jax.media.audio import decode_sound
from th_jax.models.networks import Networks
from th_jax.provenance import Kind, Provenance
from th_jax.training.finetune import avatar_from_embedding

NTSC = Fraction(30000, 1001)
DROPPED = np.delete(np.arange(720) / 30, np.random.default_rng(0).choice(np.arange(1, 719), 25, replace=False))
TREMBLING = np.sort(DROPPED + np.random.default_rng(1).normal(0, 0.002, len(DROPPED)))
SLIDES_THEN_SPEECH = np.concatenate([np.arange(20.0), 20 + np.arange(120) / 30])


def shown_early_or_late(times: np.ndarray, fps: Fraction) -> float:
    """The largest distance between a frame's time and the first tick that shows it."""
    shown = frames_on_screen(times, fps)
    frames, ticks = np.unique(shown, return_index=True)
    return float(np.abs(ticks[frames > 0] / float(fps) - times[frames[frames > 0]]).max())


@pytest.mark.parametrize(
    ("times", "declared", "wanted"),
    [
        (SLIDES_THEN_SPEECH, Fraction(140, 24), 30),
        (SLIDES_THEN_SPEECH[::-1].max() - SLIDES_THEN_SPEECH[::-1], Fraction(140, 24), 30),
        (DROPPED, Fraction(695, 24), 30),
        (TREMBLING - TREMBLING[0], Fraction(695, 24), 30),
        (np.r_[np.arange(20.0), 20 + np.arange(24) / 30], Fraction(44, 21), 30),
    ],
    ids=["slides, then speech", "speech, then slides", "25 dropped", "a phone's clock", "less than a second"],
)
def test_no_frame_of_an_uneven_video_is_lost(times: np.ndarray, declared: Fraction, wanted: int) -> None:
    rate = output_rate(times, declared=declared)
    assert rate == wanted
    assert set(frames_on_screen(times, rate).tolist()) == set(range(len(times)))
    assert shown_early_or_late(times, rate) <= SYNC


@pytest.mark.parametrize("fps", [Fraction(24000, 1001), NTSC, Fraction(25, 2), *map(Fraction, (1, 10, 15, 25, 50, 60))])
@pytest.mark.parametrize("digits", [3, 9])
def test_even_videos_keep_their_rate(fps: Fraction, digits: int) -> None:
    times = np.round(np.arange(90) / float(fps), digits)
    assert output_rate(times, declared=fps) == fps
    assert frames_on_screen(times, fps).tolist() == list(range(90))


@pytest.mark.parametrize(("fps", "wanted"), [(120, 60), (240, 60), (100, 50), (61, 30.5)])
def test_fast_videos_are_thinned_evenly(fps: int, wanted: float) -> None:
    times = np.arange(300) / fps
    rate = output_rate(times, declared=Fraction(fps))
    assert rate == wanted
    assert set(np.diff(frames_on_screen(times, rate))[:-1]) == {fps / wanted}


def test_two_frames_at_once_and_false_headers_are_no_rate() -> None:
    assert output_rate(np.sort(np.r_[np.arange(20.0), 5.001]), declared=Fraction(21, 20)) == pytest.approx(2, rel=0.01)
    assert output_rate(np.arange(9) / 30, declared=Fraction(1000)) == 30
    assert output_rate(np.arange(9) * 2.5, declared=Fraction(25)) == Fraction(2, 5)
    assert output_rate(np.array([0.0]), declared=NTSC) == NTSC
    assert output_rate(np.zeros(3), declared=NTSC) == NTSC
    assert 25 <= output_rate(np.array([0.0, 2500.3]), declared=Fraction(1, 1250)) <= 60


def test_slow_and_uneven_frames_are_shown_at_their_times() -> None:
    times = np.sort(np.random.default_rng(0).uniform(0, 20, 60))
    times -= times[0]
    rate = output_rate(times, declared=Fraction(3))
    assert 25 <= rate <= 60
    assert shown_early_or_late(times, rate) <= SYNC


def test_frames_on_screen() -> None:
    times = np.array([0.0, 0.04, 0.2, 0.24])
    assert frames_on_screen(times, Fraction(25)).tolist() == [0, 1, 1, 1, 1, 2, 3]
    assert frames_on_screen(np.arange(50) / 30 + 1e-4, Fraction(30)).tolist() == list(range(50))
    assert frames_on_screen(np.round(np.arange(50) / 30, 3), Fraction(30)).tolist() == list(range(50))


def test_clicks_are_heard_when_the_image_flashes(tmp_path: Path) -> None:
    """Both are compared in the output: 0.41 s between frames at first, then a second at 30 frames/s."""
    networks = Networks(image_size=16, base_width=4)
    embedding = jax.random.normal(jax.random.key(1), (networks.plan.embedding,))
    avatar = avatar_from_embedding(networks, networks.init(jax.random.key(0)), embedding)
    save_avatar(tmp_path / "a.safetensors", avatar, networks=networks, provenance=Provenance(kind=Kind.GENERATED))
    times = [*(0.41 * number for number in range(6)), *(2.3 + number / 30 for number in range(31))]
    flashes = [times[2], times[4], times[16]]
    frames = swaying(len(times))
    for number in (2, 4, 16):
        frames[number] = np.minimum(frames[number].astype(int) + 70, 255).astype(np.uint8)
    film = write_uneven(tmp_path / "a.mkv", frames, times, clicks=flashes, seconds=3.4)
    done = animate(load_avatar(tmp_path / "a.safetensors"), film, tmp_path / "out.mp4", layout=("driver", "avatar"))
    assert (done.fps, done.sound) == (30, True)
    with open_video(tmp_path / "out.mp4") as video:
        came = [(time, frame[:, :16].mean()) for time, frame in video.frames()]
    moments, light = np.array(came).T
    seen = moments[np.flatnonzero(np.diff(light, prepend=light[0]) > 25)]
    (rate, _), *blocks = decode_sound(str(tmp_path / "out.mp4"))
    loud = np.flatnonzero(np.abs(np.concatenate(blocks, axis=1).astype(int)).max(0) > 5000) / rate
    heard = loud[np.diff(loud, prepend=-1.0) > 0.1]
    np.testing.assert_allclose(seen, flashes, atol=SYNC)
    np.testing.assert_allclose(heard, flashes, atol=0.004)
    np.testing.assert_allclose(seen, heard, atol=SYNC)

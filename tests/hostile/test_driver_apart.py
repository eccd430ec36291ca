"""A driver is decoded in a process of its own, whose end is a sentence and whose word is not taken."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.hostile import valid_files
from th_jax.driving import driver as drivers
from th_jax.driving.driver import follow_driver, track_driver
from th_jax.driving.rates import frames_on_screen
from th_jax.media import DEFAULT_LIMITS, MediaError, MediaFault

FRAME_BYTES = 68 * 2 * 4


def answering(answer: tuple[Any, ...], content: bytes) -> Callable[..., tuple[Any, ...]]:
    """A sandbox whose process writes and answers this, whatever it is asked."""

    def run(function: Callable[..., Any], path: str, out: str, **options: Any) -> tuple[Any, ...]:
        assert function is follow_driver
        Path(out).write_bytes(content)
        return answer

    return run


def facts(times: list[float], segments: list[int], *, fps: tuple[int, int] = (25, 1)) -> tuple[Any, ...]:
    return np.array(times), np.array(segments, np.int64), [(0, 256, 256)], fps, False, 0


def face_bytes(frames: int) -> bytes:
    return np.tile(valid_files.face().astype(np.float32), (frames, 1, 1)).tobytes()


def test_what_the_process_says_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = facts([0.0, 0.04, 0.08], [0, 0, 0])
    monkeypatch.setattr(drivers, "run_limited", answering(answer, face_bytes(3)))
    with track_driver(tmp_path / "a.mp4") as driving:
        assert driving.landmarks.shape == (3, 68, 2)
        assert ((driving.landmarks > 0) & (driving.landmarks < 1)).all()
        assert driving.fps == 25


@pytest.mark.parametrize(
    ("answer", "content"),
    [
        (facts([0.0, 0.04], [0, 0]), face_bytes(1)),
        (facts([0.0, 0.04], [0, 0]), face_bytes(2) + b"x"),
        (facts([0.0, 0.04], [0]), face_bytes(2)),
        (facts([0.04, 0.0], [0, 0]), face_bytes(2)),
        (facts([0.0, np.nan], [0, 0]), face_bytes(2)),
        (facts([0.0, np.inf], [0, 0]), face_bytes(2)),
        (facts([0.0, 30_000.0], [0, 0]), face_bytes(2)),
        (facts([0.0, 0.04], [0, 0], fps=(0, 1)), face_bytes(2)),
        (facts([0.0, 0.04], [0, 0], fps=(1, 0)), face_bytes(2)),
    ],
    ids=[
        "too little",
        "too much",
        "another number",
        "backwards",
        "no time",
        "no end",
        "too late",
        "no rate",
        "endless rate",
    ],
)
def test_a_process_that_contradicts_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: tuple[Any, ...], content: bytes
) -> None:
    monkeypatch.setattr(drivers, "run_limited", answering(answer, content))
    with pytest.raises(MediaError, match=r"a\.mp4: .*contradict"), track_driver(tmp_path / "a.mp4"):
        pass


def test_one_frame_at_the_end_of_a_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At its declared rate, billions of frames would be on screen before it."""
    answer = facts([28_000.0], [0], fps=(90_000, 1))
    monkeypatch.setattr(drivers, "run_limited", answering(answer, face_bytes(1)))
    with track_driver(tmp_path / "a.mp4") as driving:
        assert len(frames_on_screen(driving.times, driving.fps)) <= DEFAULT_LIMITS.frames


def test_a_driver_that_takes_too_long_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = valid_files.video(tmp_path)
    limits = drivers.DRIVER_LIMITS._replace(seconds=1e-3)
    monkeypatch.setattr(drivers, "DRIVER_LIMITS", limits)
    with pytest.raises(MediaError, match=r"a\.mp4: it takes longer") as refused, track_driver(clip):
        pass
    assert refused.value.fault is MediaFault.OVER_LIMITS
    monkeypatch.undo()
    with pytest.raises(ValueError, match=r"no face was found in .*a\.mp4"), track_driver(clip):
        pass

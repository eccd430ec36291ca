"""Limits of each user: events within a window of time, lengths of videos, and the options that set them."""

from pathlib import Path
from typing import Any

import pytest
from commands import command

from th_jax.cli.studio import limits_of, parser
from th_jax.studio import session
from th_jax.studio.drives import DriveSettings
from th_jax.studio.limits import NO_LIMITS, SERVED, Limits, Rate, TooMany
from th_jax.studio.session import Studio


def test_events_are_counted_by_key_within_a_moving_window() -> None:
    now = [0.0]
    rate = Rate("jobs", 2, 3600.0, clock=lambda: now[0])
    rate.check(key="ada", count=True)
    now[0] = 1000.0
    for _ in range(3):
        rate.check(key="ada")  # which does not count
    rate.check(key="ada", count=True)
    rate.check(key="eve", count=True)
    with pytest.raises(TooMany, match="too many jobs: 2 an hour are allowed; try again in 2600 s") as found:
        rate.check(key="ada", count=True)
    assert found.value.retry_after == 2600
    now[0] = 3600.0
    rate.check(key="ada", count=True)
    with pytest.raises(TooMany, match="in 1000 s"):
        rate.check(key="ada")
    now[0] = 1e6
    rate.check(key="new", count=True)
    assert set(rate._times) == {"new"}, "nobody else is remembered"


def test_without_a_limit_nothing_is_counted_and_a_limit_of_zero_allows_nothing() -> None:
    rate = Rate("requests", None, 60.0)
    rate.check(count=True)
    assert rate._times == {}
    with pytest.raises(TooMany, match="0 a minute are allowed; try again in 60 s"):
        Rate("requests", 0, 60.0).check()


@pytest.fixture
def limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A studio whose videos may last 10 s; those of the test declare the length in their name."""
    studio = Studio(tmp_path / "studio", limits=Limits(seconds=10.0))
    monkeypatch.setattr(studio._sandbox, "run", lambda function, path: (float(Path(path).stem), 25.0))
    monkeypatch.setattr(session, "check_driving", lambda *_, **__: None)
    monkeypatch.setattr(studio, "avatar", lambda name: type("Loaded", (), {"description": {}}))
    yield studio
    studio.close()


def test_longer_videos_are_an_error_and_others_are_cut(limited: Any, tmp_path: Path) -> None:
    short, long = tmp_path / "9.mp4", tmp_path / "3600.mp4"
    for video in (short, long):
        video.write_bytes(b"film")
    with pytest.raises(ValueError, match="the video lasts 3600 s, but at most 10 s are allowed here: cut it"):
        limited.store([long])
    with pytest.raises(ValueError, match="the video lasts 3600 s"):
        limited.drive("ada", DriveSettings(), upload=long)
    with pytest.raises(ValueError, match="at most 10 seconds of a driver are allowed here, got 11"):
        limited.drive("ada", DriveSettings(seconds=11.0), upload=long)
    assert list(limited.folder.drafts.iterdir()) == list(limited.folder.drivers.iterdir()) == []
    assert limited.jobs.progress() == []
    assert limited._within_seconds(DriveSettings()).seconds == 10.0, "headers may say what they like"
    assert limited._within_seconds(DriveSettings(seconds=5.0)).seconds == 5.0
    for settings, driver in (
        (DriveSettings(seconds=5.0), long),
        (DriveSettings(seconds=10.0), long),
        (DriveSettings(), short),
    ):
        limited.drive("ada", settings, upload=driver).cancel()
    limited.discard(limited.store([short]))


@pytest.mark.parametrize(
    ("written", "limits"),
    [
        ([], NO_LIMITS),
        (["--users", "users.json"], SERVED),
        (["--password", "long enough"], SERVED),
        (["--users", "u", "--jobs-per-hour", "0", "--max-seconds", "0"], SERVED._replace(jobs=None, seconds=None)),
        (["--disk-gib", "0.5", "--requests-per-minute", "5"], Limits(requests=5, disk_bytes=2**29)),
    ],
)
def test_where_others_are_let_in_there_are_limits(
    written: list[str], limits: Limits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TH_JAX_STUDIO_PASSWORD", raising=False)
    assert limits_of(parser().parse_args(written)) == limits


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (["--jobs-per-hour", "many"], "must be a number from 0 on, but is 'many'"),
        (["--disk-gib", "nan"], "must be a number from 0 on"),
        (["--max-seconds", "-1"], "must be a number from 0 on"),
        (["--workers", "65"], "must be 0 to 64"),
        (["--keep-results", "7"], "must be a time such as 30m, 12h or 7d, but is '7'"),
        (["--keep-results", "0d"], "must be a time such as"),
    ],
)
def test_impossible_limits_are_errors(written: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("studio")(written) == 2
    assert message in capsys.readouterr().err


def test_times_have_units() -> None:
    times = [parser().parse_args(["--keep-results", text]).keep_results for text in ("30m", "12h", "1.5d")]
    assert times == [1800.0, 43200.0, 129600.0]

"""A run that is killed at any moment and run again writes the same bytes as an undisturbed one."""

import contextlib
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data_prep.build.shards import main
from tests import commands
from tests.data_prep.clips_of_people import write_talk
from tests.data_prep.folders import contents
from th_jax.data.records import VideoRecords

ROOT = Path(__file__).parents[3]
SHORT = ["--size", "64", "--frames", "4", "--gap", "0.3", "--min-frames", "2"]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Five videos of three people, one of which cannot be read."""
    folder = tmp_path_factory.mktemp("source")
    for person, seed in (("ada", 1), ("bob", 3)):
        for take in (1, 2):
            write_talk(folder / person / f"{take}.mp4", seed, take=take)
    (folder / "cy.mp4").write_bytes(b"no video")
    return folder


def arguments(source, out, *more):
    return ["--source", str(source), "--out", str(out), *SHORT, "--workers", "1", *more]


@pytest.fixture(scope="module")
def undisturbed(source, tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed") / "people"
    assert main(arguments(source, out)) == 0
    return contents(out)


@pytest.fixture(scope="module")
def finished_videos(source, tmp_path_factory):
    """What a run leaves that is stopped when its videos are finished, and nothing is put together."""
    out = tmp_path_factory.mktemp("stopped") / "people"

    def stop(*_):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("data_prep.build.shards.has_record", stop)
        assert main(arguments(source, out)) == 75
    return out.with_name(".people.staging")


@pytest.fixture
def stopped(finished_videos, tmp_path):
    """The data set that such a run was to make."""
    shutil.copytree(finished_videos, tmp_path / ".people.staging")
    return tmp_path / "people"


def start(source, out):
    command = [sys.executable, "-m", "th_jax.cli.main", "prepare", "build", *arguments(source, out)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def kept(out):
    """The finished videos, as files that cannot have been written anew without its being seen."""
    files = {}
    for path in out.parent.glob(f".{out.name}.staging/videos/*/*"):
        with contextlib.suppress(FileNotFoundError):
            if path.suffix != ".partial":
                files[path.name] = (path.stat().st_ino, path.stat().st_mtime_ns)
    return files


def test_killed_three_times_a_run_ends_the_same(source, undisturbed, tmp_path):
    chance = random.Random(5)
    out = tmp_path / "people"
    finished = {}
    for least in (1, 2, 4):
        run = start(source, out)
        patience = time.monotonic() + 60
        while len(kept(out)) < least:
            assert run.poll() is None
            assert time.monotonic() < patience
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.2))
        run.send_signal(signal.SIGKILL)
        run.wait()
        assert not out.exists()
        now = kept(out)
        assert finished.items() <= now.items(), "a finished video was done again"
        finished = now
    assert main(arguments(source, out)) == 0
    assert contents(out) == undisturbed
    assert [path.name for path in tmp_path.iterdir()] == ["people"]
    assert len(VideoRecords(out)) == 4


@pytest.mark.slow
def test_killed_at_twenty_moments_runs_end_the_same(source, undisturbed, tmp_path):
    """Also while modules load, shards are written and the staging is removed."""
    chance = random.Random(0)
    begin = time.monotonic()
    assert start(source, tmp_path / "timed").wait() == 0
    whole = time.monotonic() - begin
    kills, runs = 0, 0
    while kills < 20:
        out = tmp_path / f"people{runs}"
        runs += 1
        assert runs < 40
        finished = {}
        for patience in range(100):
            run = start(source, out)
            with contextlib.suppress(subprocess.TimeoutExpired):
                # Ever later: on a busy machine a run could otherwise be killed each time while it loads.
                code = run.wait(whole * chance.uniform(0.2, 1.0 + 0.3 * patience))
                assert code == 0 or (out.exists() and not (tmp_path / f".{out.name}.staging").exists())
                break
            run.send_signal(signal.SIGKILL)
            run.wait()
            kills += 1
            if not out.exists():
                assert finished.items() <= kept(out).items()
                finished = kept(out)
            else:
                assert contents(out) == undisturbed, "a data set appears whole"
        assert contents(out) == undisturbed


def test_a_kill_while_tidying_up_is_made_good(source, undisturbed, stopped, tmp_path, capsys):
    out = stopped
    assert main(arguments(source, out)) == 0
    said = capsys.readouterr().out
    (tmp_path / ".people.staging" / "videos").mkdir(parents=True)
    assert main(arguments(source, out)) == 0
    assert capsys.readouterr().out == said
    assert contents(out) == undisturbed
    assert [path.name for path in tmp_path.iterdir()] == ["people"]
    assert commands.build(arguments(source, out)) == 1
    assert "people exists: a data set needs a new folder" in capsys.readouterr().err


def test_damage_to_a_finished_video_is_seen_and_mended(source, undisturbed, stopped, tmp_path, capsys):
    out = stopped
    spoilt = max(tmp_path.glob(".people.staging/videos/*/*"), key=lambda path: path.stat().st_size)
    content = bytearray(spoilt.read_bytes())
    content[len(content) // 2] ^= 1
    spoilt.write_bytes(content)
    assert commands.build(arguments(source, out)) == 1
    assert f"{spoilt} is damaged, or was changed" in capsys.readouterr().err
    assert not out.exists()
    assert main(arguments(source, out)) == 0
    assert contents(out) == undisturbed


def test_other_settings_and_changed_sources_are_not_mixed(source, stopped, tmp_path, monkeypatch, capsys):
    mine, out = tmp_path / "mine", stopped
    shutil.copytree(source, mine)
    assert commands.build(arguments(mine, out, "--threshold", "face=41")) == 1
    assert "were prepared with thresholds {'face': 40.0" in capsys.readouterr().err
    shutil.copyfile(mine / "bob" / "1.mp4", mine / "bob" / "2.mp4")
    before = kept(out)
    with monkeypatch.context() as patched:
        patched.setattr("data_prep.build.shards.remove_staging", lambda _: None)
        assert main(arguments(mine, out)) == 0
    changed = [name for name, status in kept(out).items() if before[name] != status]
    assert len(changed) == 1
    first, second = (r for r in map(VideoRecords(out).__getitem__, range(4)) if r.identity == "bob")
    assert first.source_sha256 == second.source_sha256


def test_a_takedown_may_come_while_a_run_is_stopped(source, stopped, tmp_path, monkeypatch, capsys):
    out = stopped
    (tmp_path / "ids.txt").write_text("bob\nada/1.mp4\nanother person\n")
    before = kept(out)
    with monkeypatch.context() as patched:
        patched.setattr("data_prep.build.shards.remove_staging", lambda _: None)
        assert main(arguments(source, out, "--takedown", str(tmp_path / "ids.txt"))) == 0
    assert "taken_down 3" in capsys.readouterr().out
    assert len(before) - len(kept(out)) == 3, "nothing of them stays in the staging"
    assert [record.video_id for record in map(VideoRecords(out).__getitem__, range(1))] == ["ada/2.mp4"]
    for path in out.iterdir():
        assert b"bob" not in path.read_bytes(), path.name
        assert b"ada/1.mp4" not in path.read_bytes(), path.name


def test_a_disk_that_fills_up_costs_no_finished_video(source, undisturbed, stopped, monkeypatch, capsys):
    out = stopped

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("data_prep.build.shards.os.rename", full)
        assert commands.build(arguments(source, out)) == 1
    assert "No space left on device" in capsys.readouterr().err
    assert not out.exists()
    assert len(kept(out)) == 5
    assert main(arguments(source, out)) == 0
    assert contents(out) == undisturbed

"""Outcomes of videos come back whole or not at all, and only to runs that would have made the same."""

import errno
import fcntl
import os

import pytest

from data_prep.build.prepare_video import Settings
from data_prep.build.sources import SourceVideo
from data_prep.build.staging import (
    ASSEMBLY,
    Outcome,
    Staged,
    has_record,
    open_staging,
    read_lines,
    read_outcome,
    remove_staging,
    staged,
    staging_folder,
    write_outcome,
)
from th_jax.data.tfrecord import pack

WHOLE = Outcome(('{"level": "frame"}', '{"level": "clip", "path": "ü"}'), bytes(range(256)))


@pytest.fixture
def target(tmp_path):
    return Staged(tmp_path / "videos" / "ab" / "abc", "made from this")


@pytest.mark.parametrize("outcome", [WHOLE, WHOLE._replace(record=None), Outcome((), b"x")])
def test_outcomes_come_back(target, outcome):
    assert (read_outcome(target), has_record(target)) == (None, None)
    write_outcome(target, outcome)
    assert read_outcome(target) == outcome
    assert read_lines(target) == outcome.lines
    assert has_record(target) is (outcome.record is not None)
    assert read_outcome(target._replace(input_fingerprint="made from that")) is None
    assert has_record(target._replace(input_fingerprint="made from that")) is None
    assert [path.name for path in target.path.parent.iterdir()] == ["abc"]


def test_no_part_of_an_outcome_is_taken_for_one(target):
    write_outcome(target, WHOLE)
    content = target.path.read_bytes()
    for length in range(len(content)):
        target.path.write_bytes(content[:length])
        assert read_outcome(target) is None
    for place in range(0, len(content), 7):
        flipped = bytearray(content)
        flipped[place] ^= 4
        target.path.write_bytes(flipped)
        assert read_outcome(target) is None


@pytest.mark.parametrize(
    "head",
    [
        *("[]", "7", '"text"', "{}", "no JSON", "[" * 100_000, '{"fingerprint": 1, "usable": false, "lines": []}'),
        '{"fingerprint": "made from this", "usable": 0, "lines": []}',
        '{"fingerprint": "made from this", "usable": true, "lines": []}',
        '{"fingerprint": "made from this", "usable": false, "lines": "none"}',
        '{"fingerprint": "made from this", "usable": false, "lines": [7]}',
    ],
)
def test_a_head_that_a_hostile_worker_wrote_is_no_outcome(target, head):
    target.path.parent.mkdir(parents=True)
    target.path.write_bytes(pack(head.encode()))
    assert (read_outcome(target), read_lines(target), has_record(target)) == (None, None, None)


def test_a_full_disk_leaves_nothing_behind(target, monkeypatch):
    def refuse(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="No space left"):
        write_outcome(target, WHOLE)
    assert not list(target.path.parent.iterdir())


def test_fingerprints_know_files_and_settings(tmp_path):
    source, folder = tmp_path / "source", tmp_path / "staging"
    source.mkdir()
    video = SourceVideo("ada/a", "ada", ("1.mp4", "2.mp4"))
    places = [staged(folder, source, video, "size 64")]
    (source / "1.mp4").write_bytes(b"video")
    places.append(staged(folder, source, video, "size 64"))
    assert staged(folder, source, video, "size 64") == places[-1]
    (source / "1.mp4").write_bytes(b"vidoe")
    os.utime(source / "1.mp4", (1, 1))
    places.append(staged(folder, source, video, "size 64"))
    (source / "1.mp4").chmod(0o600)
    places.append(staged(folder, source, video, "size 64"))
    places.append(staged(folder, source, video, "size 65"))
    places.append(staged(folder, source, video._replace(cropped=True), "size 64"))
    assert len({place.path for place in places}) == 1
    assert len({place.input_fingerprint for place in places}) == len(places)


def test_settings_are_not_mixed(tmp_path):
    folder = staging_folder(tmp_path / "people")
    assert folder.name == ".people.staging"
    made_so = Settings()._asdict()
    with open_staging(folder, made_so):
        pass
    with open_staging(folder, made_so):
        pass
    with (
        pytest.raises(ValueError, match=r"prepared with size 256, but this run has 128"),
        open_staging(folder, made_so | {"size": 128}),
    ):
        pass
    (folder / "settings.json").write_text('{"size": 25')
    with open_staging(folder, made_so | {"size": 128}):
        pass


def test_what_a_killed_run_left_is_cleared_away(tmp_path):
    folder = tmp_path / "staging"
    with open_staging(folder, {}):
        (folder / ASSEMBLY / "data").mkdir(parents=True)
        write_outcome(Staged(folder / "videos" / "ab" / "abc", ""), WHOLE)
        (folder / "videos" / "ab" / ".abd.0123abcd.partial").write_bytes(b"half")
    with open_staging(folder, {}):
        assert not (folder / ASSEMBLY).exists()
        assert [path.name for path in folder.glob("videos/*/*")] == ["abc"]
    remove_staging(folder)
    assert not folder.exists()


def test_one_run_at_a_time(tmp_path, monkeypatch):
    with (
        open_staging(tmp_path / "staging", {}),
        pytest.raises(RuntimeError, match=r"another run is using .*staging"),
        open_staging(tmp_path / "staging", {}),
    ):
        pass

    def unknown(*_):
        raise OSError(errno.ENOTSUP, "no locks here")

    monkeypatch.setattr(fcntl, "flock", unknown)
    with open_staging(tmp_path / "staging", {}):
        pass

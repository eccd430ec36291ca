"""The Beam pipeline makes the bytes that the local program makes, from folders and from addresses."""

import fsspec
import pytest

from data_prep.build.shards import main as build_shards
from tests import commands
from tests.data_prep.clips_of_people import write_photos, write_talk
from tests.data_prep.folders import contents
from th_jax.data.records import VideoRecords

pytest.importorskip("apache_beam", reason="needs the extra 'beam', in an environment of its own: make beam-test")

from data_prep.build import beam_steps, shard_writer
from data_prep.build.beam import main

pytestmark = pytest.mark.beam
SHORT = ["--size", "64", "--frames", "4", "--gap", "0.3", "--min-frames", "2", "--name", "people"]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Four people, one of them to be left out; two files that are no videos."""
    folder = tmp_path_factory.mktemp("source")
    for name, seed, take in (("ada/1", 1, 1), ("ada/2", 1, 2), ("bob/1", 3, 1), ("bob/2", 3, 2), ("cy/1", 3, 1)):
        write_talk(folder / f"{name}.mp4", seed, take=take)
    (folder / "dan.mp4").write_bytes(b"no video")
    (folder / "notes.txt").write_text("none either")
    (folder.parent / "ids.txt").write_text("cy\n")
    (folder.parent / "heldout.txt").write_text("bob\n")
    return folder


@pytest.fixture(scope="module")
def local(source, tmp_path_factory):
    out = tmp_path_factory.mktemp("local") / "people"
    assert build_shards(arguments(source, out, "--workers", "1")) == 0
    return out


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    """Several batches and several shards a split."""
    monkeypatch.setattr(beam_steps, "VIDEOS_AT_ONCE", 2)


def arguments(source, out, *more, address=None):
    lists = ["--takedown", str(source.parent / "ids.txt"), "--heldout", str(source.parent / "heldout.txt")]
    return ["--source", address or str(source), "--out", str(out), *SHORT, *lists, *more]


def test_the_pipeline_makes_the_same_bytes(source, local, tmp_path, capsys):
    out = tmp_path / "people"
    assert main(arguments(source, out)) == 0
    assert contents(out) == contents(local)
    assert [path.name for path in tmp_path.iterdir()] == ["people"]
    assert "dropped videos: 2 (taken_down 1, undecodable 1)" in capsys.readouterr().out


@pytest.mark.slow
def test_several_processes_make_the_same_bytes(source, local, tmp_path):
    out = tmp_path / "people"
    flags = ["--runner", "DirectRunner", "--direct_num_workers", "2", "--direct_running_mode", "multi_processing"]
    assert main(arguments(source, out, *flags)) == 0
    assert contents(out) == contents(local)


def test_addresses_are_read_and_written(source, local, tmp_path):
    filesystem = fsspec.filesystem("memory")
    filesystem.put(f"{source}/", "/films", recursive=True)
    assert main(arguments(source, "memory://made/people", address="memory://films")) == 0
    filesystem.get("/made/people", str(tmp_path / "people"), recursive=True)
    assert contents(tmp_path / "people") == contents(local)
    assert filesystem.ls("/made", detail=False) == ["/made/people"]
    assert len(VideoRecords("memory://made/people")) + len(VideoRecords("memory://made/people", "heldout")) == 4
    filesystem.rm("/films", recursive=True)
    filesystem.rm("/made", recursive=True)


def test_records_fill_shards_in_their_order(source, tmp_path, monkeypatch, local):
    monkeypatch.setattr(beam_steps, "RECORDS_PER_SHARD", 1)
    out = tmp_path / "people"
    assert main(arguments(source, out)) == 0
    assert list(out.glob("*-train.tfrecord-00000-of-00002"))
    assert list(out.glob("*-heldout.tfrecord-00001-of-00002"))
    for split in ("train", "heldout"):
        ours, theirs = VideoRecords(out, split), VideoRecords(local, split)
        assert [ours[n].video_id for n in range(len(ours))] == [theirs[n].video_id for n in range(len(theirs))]


def test_both_fill_shards_alike():
    assert beam_steps.RECORDS_PER_SHARD == shard_writer.RECORDS_PER_SHARD


def test_photos_too(tmp_path):
    write_photos(tmp_path / "photos" / "ada", 3)
    common = ["--source", str(tmp_path / "photos"), "--size", "64", "--min-frames", "2"]
    assert build_shards([*common, "--out", str(tmp_path / "a"), "--workers", "1"]) == 0
    assert main([*common, "--out", str(tmp_path / "b")]) == 0
    assert contents(tmp_path / "b") == contents(tmp_path / "a")


def test_what_cannot_be_done_is_said(source, tmp_path, capsys):
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "ada.mp4").write_bytes(b"no video")
    assert commands.beam(["--source", str(tmp_path / "none"), "--out", str(tmp_path / "out")]) == 1
    assert "can be used; the reasons are in" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["none", "out.drops.jsonl"]
    assert commands.beam(arguments(source, tmp_path / "none")) == 1
    assert "none exists: a data set needs a new folder" in capsys.readouterr().err
    assert commands.beam(["--source", "memory://nowhere", "--out", str(tmp_path / "out")]) == 1
    assert "the source memory://nowhere does not exist, or contains no files" in capsys.readouterr().err
    assert commands.beam(["--source", "gs-is-no-scheme://x", "--out", str(tmp_path / "out")]) == 1
    assert "cannot be reached" in capsys.readouterr().err

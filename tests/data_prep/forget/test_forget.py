"""A forgotten person is removed from every file, no other record moves, and a killed run never leaves a mixture."""

import itertools
import json
import os
import shutil

import pytest

from data_prep.build.drop_report import DROP_REPORT_FILE, Drop, read_drop_report, write_drop_report
from data_prep.build.quality import Reason
from data_prep.build.shard_writer import write_data_set
from data_prep.forget.command import LOG_FILE, forget, main
from tests import commands
from tests.data_prep.folders import contents
from tests.data_prep.video_records import record_of
from th_jax.data.records import VideoRecords
from th_jax.data.schema import serialise
from th_jax.data.tfrecord import DamagedIndex
from th_jax.data.video_list import load_video_list, row_key

DROPS = [
    Drop("frame", "video3", "film3.mp4", Reason.TOO_DARK, 1.0),
    Drop("frame", "video4", "film4.mp4", Reason.NO_FACE, 2.0),
    Drop("clip", None, "notes.txt", Reason.UNSUPPORTED),
]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Seven videos in three shards, two held out; video2 and video3, of person1, lie in two shards."""
    folder = tmp_path_factory.mktemp("made") / "heads"
    splits = {"train": map(record_of, range(7)), "heldout": map(record_of, (40, 41))}
    write_data_set(folder, splits, name="heads", records_per_shard=3)
    write_drop_report(folder / DROP_REPORT_FILE, DROPS)
    return folder


@pytest.fixture
def folder(made, tmp_path):
    shutil.copytree(made, tmp_path / "heads")
    return tmp_path / "heads"


def records(folder, split="train"):
    opened = VideoRecords(folder, split)
    return {opened.video_indices[number]: serialise(opened[number]) for number in range(len(opened))}


def test_a_person_is_gone_and_no_other_record_moves(folder):
    before, digest = records(folder), load_video_list(folder).digest()
    old = contents(folder)
    done = forget(folder, ["person1"])
    assert done.row_keys == tuple(sorted(map(row_key, ("video2", "video3"))))
    assert done.shards == ("heads-train.tfrecord-00000-of-00003", "heads-train.tfrecord-00001-of-00003")
    after = records(folder)
    assert after == {index: data for index, data in before.items() if index not in (2, 3)}
    videos = load_video_list(folder)
    assert videos.digest() == digest
    assert [entry.forgotten for entry in videos.entries("train")] == [False, False, True, True, False, False, False]
    assert records(folder, "heldout").keys() == {0, 1}
    new = contents(folder)
    assert new.keys() == old.keys() | {LOG_FILE}
    changed = {name for name in old if old[name] != new[name]}
    assert changed == {
        *done.shards,
        *(f"{shard}.index" for shard in done.shards),
        *("videos.json", "dataset_info.json", DROP_REPORT_FILE),
    }
    assert done.removed_bytes == sum(len(old[shard]) - len(new[shard]) for shard in done.shards)
    for name, content in new.items():
        for number in (2, 3):
            assert f"video{number}".encode() not in content, name
            assert all(frame not in content for frame in record_of(number).frames), name
        assert b"person1" not in content, name
    assert list(read_drop_report(folder / DROP_REPORT_FILE)) == DROPS[1:]


def test_a_drop_report_of_the_old_name_loses_its_lines_too(folder):
    old = (folder / DROP_REPORT_FILE).rename(folder / "manifest.jsonl")
    forget(folder, ["person1"])
    assert list(read_drop_report(old)) == DROPS[1:]
    assert not (folder / DROP_REPORT_FILE).exists()


def test_metadata_and_log_say_what_was_done(folder):
    forget(folder, ["video0"])
    forget(folder, ["video40", "person2"])
    info = json.loads((folder / "dataset_info.json").read_text())
    described = {split["name"]: (split["shardLengths"], int(split["numBytes"])) for split in info["splits"]}
    sizes = {split: sum(p.stat().st_size for p in folder.glob(f"*-{split}.*-of-0000?")) for split in described}
    assert described == {"train": (["2", "1", "1"], sizes["train"]), "heldout": (["1"], sizes["heldout"])}
    one, two = map(json.loads, (folder / LOG_FILE).read_text().splitlines())
    assert one["row_keys"] == [row_key("video0")]
    assert two["row_keys"] == sorted(map(row_key, ("video40", "video4", "video5")))
    assert two["digests"] == {split: load_video_list(folder).digest(split=split) for split in ("train", "heldout")}
    assert list(two["shards"]) == ["heads-heldout.tfrecord-00000-of-00001", "heads-train.tfrecord-00001-of-00003"]


def test_all_may_be_forgotten(folder):
    forget(folder, [f"person{number}" for number in (0, 1, 2, 3, 20)])
    assert (records(folder), records(folder, "heldout")) == ({}, {})
    assert len(load_video_list(folder).entries("train")) == 7


class Killed(BaseException):
    pass


def test_killed_at_any_step_nothing_mixed_is_read_and_the_next_run_completes_it(made, folder, tmp_path, monkeypatch):
    before = records(folder)
    wanted = {index: data for index, data in before.items() if index not in (2, 3)}
    states = []
    for step in range(1000):
        shutil.rmtree(folder)
        shutil.copytree(made, folder)
        left = [step]

        def counted(real, left=left):
            def call(*arguments, **options):
                if left[0] == 0:
                    raise Killed
                left[0] -= 1
                return real(*arguments, **options)

            return call

        with monkeypatch.context() as patched:
            for module, name in ((os, "fsync"), (os, "replace"), (os, "rename"), (os, "unlink"), (os, "mkdir")):
                patched.setattr(module, name, counted(getattr(module, name)))
            try:
                forget(folder, ["person1"])
                break
            except Killed:
                pass
        try:
            found = records(folder)
            assert found in (before, wanted)
            states.append("old" if found == before else "new")
        except FileNotFoundError:
            states.append("none")
        commands.forget([str(folder), "person1"])  # an error if nothing is left to remove
        assert records(folder) == wanted
        assert not [path for path in folder.iterdir() if path.name.startswith(".")]
        assert len((folder / LOG_FILE).read_text().splitlines()) == 1
    assert step > 20
    assert [state for state, _ in itertools.groupby(states)] == ["old", "none", "new"]


def test_readers_that_were_open_meet_an_error_and_no_other_video(folder):
    opened = VideoRecords(folder)
    forget(folder, ["person1"])
    for number in (4, 5):
        with pytest.raises(ValueError, match=r"record|index|CRC"):
            opened.read(number)


def test_an_exchanged_index_is_noticed(folder, made):
    forget(folder, ["person1"])
    name = "heads-train.tfrecord-00001-of-00003.index"
    shutil.copyfile(made / name, folder / name)
    with pytest.raises(DamagedIndex, match="truncated or replaced"):
        VideoRecords(folder)


def test_damage_stops_it_before_anything_changes(folder):
    shard = folder / "heads-train.tfrecord-00000-of-00003"
    content = bytearray(shard.read_bytes())
    content[len(content) // 6] ^= 1
    shard.write_bytes(content)
    before = contents(folder)
    with pytest.raises(ValueError, match="do not match their CRC"):
        forget(folder, ["video2"])
    assert contents(folder) == before


def test_the_command_line(folder, tmp_path, capsys):
    before = contents(folder)
    assert commands.forget([str(folder), "person1", "eve"]) == 1
    assert "has no person or video 'eve'" in capsys.readouterr().err
    assert commands.forget([str(folder)]) == 1
    assert "no person was named" in capsys.readouterr().err
    assert commands.forget([str(tmp_path / "nowhere"), "ada"]) == 1
    assert "is not a data set" in capsys.readouterr().err
    assert contents(folder) == before
    (tmp_path / "ids.txt").write_text("person1\neve\n")
    assert main([str(folder), "video0", "--takedown", str(tmp_path / "ids.txt")]) == 0
    said = capsys.readouterr().out
    assert "removed 3 videos; rewrote 2 shards" in said
    assert records(folder).keys() == {1, 4, 5, 6}
    assert main([str(folder), "--takedown", str(tmp_path / "ids.txt")]) == 0
    assert "removed 0 videos" in capsys.readouterr().out


@pytest.mark.slow
def test_tfds_opens_what_is_left(folder):
    import tensorflow_datasets as tfds

    forget(folder, ["person1", "video6", "person20"])
    builder = tfds.builder_from_directory(os.fspath(folder))
    assert builder.info.splits["train"].shard_lengths == [2, 2, 0]
    examples = tfds.as_numpy(builder.as_dataset(split="train", shuffle_files=False))
    assert [example["video_id"].decode() for example in examples] == ["video0", "video1", "video4", "video5"]

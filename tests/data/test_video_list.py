"""The video list keeps every index in place, and changes are detected."""

import pytest

from th_jax.data.video_list import VIDEO_LIST_FILE, VideoEntry, VideoList, load_video_list, row_key, save_video_list


def entry(name: str, shard: int = 0, record: int = 0) -> VideoEntry:
    return VideoEntry(row_key(name), name, name[0], 9, shard, record)


@pytest.fixture
def videos() -> VideoList:
    train = tuple(entry(name, 0, number) for number, name in enumerate(["a1", "a2", "b1", "ü 日"]))
    return VideoList("test", 70, 24, True, {"train": 1, "heldout": 1}, {"train": train, "heldout": (entry("c1"),)})


def test_the_list_round_trips(videos, tmp_path):
    save_video_list(videos, tmp_path)
    assert load_video_list(tmp_path) == videos
    assert [path.name for path in tmp_path.iterdir()] == [VIDEO_LIST_FILE]


def test_every_flipped_byte_is_found(videos, tmp_path):
    save_video_list(videos, tmp_path)
    path = tmp_path / VIDEO_LIST_FILE
    whole = path.read_bytes()
    for place in range(len(whole)):
        content = bytearray(whole)
        content[place] ^= 1 << place % 8
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"videos.json is damaged: .*checksum"):
            load_video_list(tmp_path)


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"{}", b"\xff"])
def test_another_file_is_rejected(tmp_path, content):
    (tmp_path / VIDEO_LIST_FILE).write_bytes(content)
    with pytest.raises(ValueError, match="is damaged"):
        load_video_list(tmp_path)


def test_a_folder_without_a_list_gives_instructions(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"is not a data set: videos.json"):
        load_video_list(tmp_path)


def test_removal_leaves_a_tombstone_and_keeps_all_rows(videos, tmp_path):
    after = videos.forget(["a2"])
    assert [e.video_id for e in after.entries("train")] == ["a1", None, "b1", "ü 日"]
    tombstone = after.entries("train")[1]
    assert tombstone.forgotten
    assert tombstone == VideoEntry(row_key("a2"))
    assert after.digest() == videos.digest()
    assert after.splits["heldout"] == videos.splits["heldout"]
    save_video_list(after, tmp_path)
    assert '"a2"' not in (tmp_path / VIDEO_LIST_FILE).read_text()
    assert load_video_list(tmp_path) == after
    assert after.forget(["a2"]) == after, "forgetting twice changes nothing"


def test_all_videos_of_a_person_can_be_forgotten(videos):
    assert videos.videos_of("a") == ["a1", "a2"]
    after = videos.forget(videos.videos_of("a"))
    assert [e.forgotten for e in after.entries("train")] == [True, True, False, False]
    assert after.videos_of("a") == []


def test_an_unknown_video_is_an_error(videos):
    with pytest.raises(ValueError, match="'test' has no video 'x', 'y'"):
        videos.forget(["a1", "y", "x"])


def test_digest_stands_for_the_order(videos):
    train = videos.splits["train"]
    swapped = videos._replace(splits={"train": (train[1], train[0], *train[2:])})
    longer = videos._replace(splits={"train": (*train, entry("d1"))})
    assert len({videos.digest(), swapped.digest(), longer.digest(), videos.digest(split="heldout")}) == 4
    moved = videos._replace(splits={"train": tuple(e._replace(shard=e.shard + 1) for e in train)})
    assert moved.digest() == videos.digest(), "where a record lies means nothing to the rows"


def test_an_unknown_split(videos):
    with pytest.raises(ValueError, match="no split 'test'"):
        videos.entries("test")


def test_a_video_is_listed_once(videos, tmp_path):
    twice = videos._replace(splits={"train": videos.splits["train"], "heldout": (entry("a1"),)})
    with pytest.raises(ValueError, match="'a1' occurs twice"):
        save_video_list(twice, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_newer_list_is_rejected(videos, tmp_path, monkeypatch):
    monkeypatch.setattr("th_jax.data.video_list.LIST_VERSION", 2)
    save_video_list(videos, tmp_path)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="version 2, but expected 1"):
        load_video_list(tmp_path)

"""What a folder holds, by its layout: videos, people, files that belong to none, and who is held out."""

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFile

from data_prep.build.drop_report import read_drop_report, summary, write_drop_report
from data_prep.build.quality import Reason
from data_prep.build.sources import HELDOUT, TRAIN, Layout, list_source, split_of


@pytest.fixture
def fill(tmp_path):
    def make(*names: str):
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x")
        return tmp_path

    return make


def listed(folder, layout=Layout.AUTO):
    listing = list_source(folder, layout)
    return listing.layout, [(video.video_id, video.identity, video.files) for video in listing.videos]


def test_videos_belong_to_the_folder_they_lie_in(fill):
    folder = fill("bob/2.mp4", "ada/long/b.MOV", "ada/a.mp4", "cy.webm", "cy.mp4")
    assert listed(folder) == (
        Layout.VIDEOS,
        [
            ("ada/a.mp4", "ada", ("ada/a.mp4",)),
            ("ada/long/b.MOV", "ada", ("ada/long/b.MOV",)),
            ("bob/2.mp4", "bob", ("bob/2.mp4",)),
            ("cy.mp4", "cy", ("cy.mp4",)),
            ("cy.webm", "cy", ("cy.webm",)),
        ],
    )


@pytest.mark.parametrize("suffix", [".ts", ".mts", ".m2ts", ".M2TS"])
def test_videos_of_camcorders(fill, suffix):
    assert listed(fill(f"ada/a{suffix}")) == (Layout.VIDEOS, [(f"ada/a{suffix}", "ada", (f"ada/a{suffix}",))])


@pytest.mark.parametrize("suffix", [".heic", ".HEIC", ".heif", ".avif"])
def test_photos_of_phones(fill, suffix):
    assert listed(fill(f"ada/a{suffix}")) == (Layout.PHOTOS, [("ada", "ada", (f"ada/a{suffix}",))])


def test_photos_of_a_person_are_one_record(fill):
    folder = fill("ada/2.jpg", "ada/1.png", "ada/more/3.jpeg", "björk/x.webp", "loose.jpg")
    layout, videos = listed(folder)
    assert layout is Layout.PHOTOS
    assert videos == [
        ("ada", "ada", ("ada/1.png", "ada/2.jpg", "ada/more/3.jpeg")),
        ("björk", "björk", ("björk/x.webp",)),
    ]
    listing = list_source(folder, Layout.PHOTOS)
    assert all(video.photos and not video.cropped for video in listing.videos)
    assert [(drop.path, drop.reason) for drop in listing.drops] == [("loose.jpg", Reason.UNSUPPORTED)]


def test_voxceleb_pools_the_clips_of_a_video(fill):
    folder = fill("id10001/aaa/00002.mp4", "id10001/aaa/00001.mp4", "id10001/bbb/00001.mp4", "id10002/aaa/00001.mp4")
    assert listed(folder) == (
        Layout.VOXCELEB,
        [
            ("id10001/aaa", "id10001", ("id10001/aaa/00001.mp4", "id10001/aaa/00002.mp4")),
            ("id10001/bbb", "id10001", ("id10001/bbb/00001.mp4",)),
            ("id10002/aaa", "id10002", ("id10002/aaa/00001.mp4",)),
        ],
    )
    videos = list_source(folder, Layout.AUTO).videos
    assert all(video.cropped for video in videos)
    assert [video.path for video in videos] == ["id10001/aaa", "id10001/bbb/00001.mp4", "id10002/aaa/00001.mp4"]


def test_similar_folders_are_not_taken_for_crops(fill):
    """Whole frames taken for crops would show a small head in a corner."""
    folder = fill("ada/2019/00001.mp4", "id10001/aaa/00001.mp4")
    assert listed(folder)[0] is Layout.VIDEOS
    assert not any(video.cropped for video in list_source(folder, Layout.AUTO).videos)


def test_every_other_file_has_its_line(fill):
    folder = fill("ada/a.mp4", "ada/notes.txt", "ada/.hidden.mp4", "ada/a.mp4.provenance.json", "bad\nname.mp4")
    listing = list_source(folder, Layout.AUTO)
    assert [video.video_id for video in listing.videos] == ["ada/a.mp4"]
    assert [(drop.path, drop.reason) for drop in listing.drops] == [
        ("'bad\\nname.mp4'", Reason.UNSUPPORTED),
        ("ada/notes.txt", Reason.UNSUPPORTED),
    ]


def test_loops_of_links_end(fill, tmp_path):
    folder = fill("ada/a.mp4")
    (folder / "ada" / "again").symlink_to(folder)
    (folder / "ada" / "self.mp4").symlink_to("self.mp4")
    assert [video.video_id for video in list_source(folder, Layout.AUTO).videos] == ["ada/a.mp4", "ada/self.mp4"]


def test_addresses_are_listed_as_folders_are():
    filesystem = fsspec.filesystem("memory")
    for name in ("ada/a.mp4", "ada/../../../escaped.mp4", "ada/.hidden.mp4", "//rooted.mp4", "notes.txt"):
        filesystem.store[f"/films/{name}"] = MemoryFile(filesystem, f"/films/{name}", b"x")
    listing = list_source("memory://films", Layout.AUTO)
    filesystem.store.clear()
    assert [video.files for video in listing.videos] == [("ada/a.mp4",)]
    assert {drop.path: drop.reason for drop in listing.drops} == {
        "//rooted.mp4": Reason.UNDECODABLE,
        "notes.txt": Reason.UNSUPPORTED,
    }
    with pytest.raises(FileNotFoundError, match="memory://films does not exist, or contains no files"):
        list_source("memory://films", Layout.AUTO)
    with pytest.raises(ValueError, match="nowhere://films cannot be reached"):
        list_source("nowhere://films", Layout.AUTO)


@pytest.mark.parametrize(
    ("names", "layout", "error", "message"),
    [
        ([], Layout.AUTO, ValueError, "no readable files of the layout videos: none of its 0 files ends in .mp4"),
        (
            ["a.txt"],
            Layout.PHOTOS,
            ValueError,
            "no readable files of the layout photos: none of its 1 files ends in .png",
        ),
        (
            ["a/b.mp4", "a/b.jpg"],
            Layout.AUTO,
            ValueError,
            r"both videos \(1\) and photos \(1\): choose one with --layout",
        ),
    ],
)
def test_nothing_to_read_is_said(fill, names, layout, error, message):
    with pytest.raises(error, match=message):
        list_source(fill(*names), layout)


def test_a_missing_folder_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere is not a folder"):
        list_source(tmp_path / "nowhere", Layout.AUTO)


def test_people_are_held_out_by_their_names_alone():
    people = [f"id{number:05d}" for number in range(4000)]
    tenth = {person for person in people if split_of(person, share=0.1) == HELDOUT}
    fifth = {person for person in people if split_of(person, share=0.2) == HELDOUT}
    assert 300 < len(tenth) < 500
    assert tenth < fifth
    assert split_of("ada", share=0.0) == TRAIN
    assert split_of("ada", share=0.0, named=["ada"]) == HELDOUT
    assert split_of("ada", share=1.0) == HELDOUT


def test_a_drop_report_comes_back(fill, tmp_path):
    drops = list(list_source(fill("ada/a.mp4", "b.txt", "c.txt"), Layout.AUTO).drops)
    write_drop_report(tmp_path / "m.jsonl", drops)
    assert list(read_drop_report(tmp_path / "m.jsonl")) == drops
    assert summary(drops) == "dropped clips: 2 (unsupported 2)"
    assert summary([]) == ""


@pytest.mark.parametrize(
    "line",
    [
        *('{"level": "clip"}', "[]", "7", "no JSON", "[" * 100_000, '{"level": "clip", "path": "a", "reason": "whim"}'),
        '{"level": "shelf", "path": "a", "reason": "no_face"}',
        '{"level": "clip", "path": 7, "reason": "no_face"}',
        '{"level": "clip", "path": "a", "reason": ["no_face"]}',
        '{"level": "clip", "path": "a", "reason": "no_face", "other": 1}',
        '{"level": "clip", "path": "a", "reason": "no_face", "video_id": ["a"]}',
        '{"level": "clip", "path": "a", "reason": "no_face", "time": "noon"}',
        '{"level": "clip", "path": "a", "reason": "no_face", "numbers": {"distance": "far"}}',
        '{"level": "clip", "path": "a", "reason": "no_face", "numbers": [1]}',
    ],
)
def test_an_invalid_line_is_named(line, tmp_path):
    (tmp_path / "m.jsonl").write_text(line + "\n")
    with pytest.raises(ValueError, match=r"line 1 of .* is not a line of a drop report"):
        list(read_drop_report(tmp_path / "m.jsonl"))

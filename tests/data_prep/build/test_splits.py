"""VoxCeleb's published lists, in small, are recognized by what is in them and put every video where they say."""

import pytest

from data_prep.build.plan import Selection, make_plan
from data_prep.build.prepare_video import Settings
from data_prep.build.shards import main
from data_prep.build.sources import HELDOUT, TRAIN, VALIDATION, Layout, SourceVideo, list_source, read_official_split
from tests import commands
from tests.data_prep.clips_of_people import write_talk
from th_jax.data.video_list import load_video_list

VOX1 = "VoxCeleb1 ID\tVGGFace1 ID\tGender\tNationality\tSet\nid10001\tA.J._B.\tm\tIreland\tdev\nid10270\tE._K.\tf\tUSA\ttest\n"
VOX2 = "VoxCeleb2 ID ,VGGFace2 ID ,Gender ,Set \nid00012 ,n000012 ,m ,dev\nid00017 ,n000017 ,m ,test\n"
IDENTIFICATION = "1 id10001/aaa/00001.wav\n1 id10001/aaa/00002.wav\n3 id10001/bbb/00001.wav\n2 id10270/ccc/00009.wav\n"
VERIFICATION = "1 id10270/aaa/00001.wav id10270/bbb/00008.wav\n0 id10270/aaa/00001.wav id10300/ZzU-ddd/00006.wav\n"


def split_of(tmp_path, text, person, video="aaa"):
    (tmp_path / "list.txt").write_text(text)
    return read_official_split(tmp_path / "list.txt").split_of(SourceVideo(f"{person}/{video}", person, ("1.mp4",)))


@pytest.mark.parametrize(
    ("text", "person", "video", "split"),
    [
        (VOX1, "id10001", "aaa", TRAIN),
        (VOX1, "id10270", "aaa", HELDOUT),
        (VOX1, "id10999", "aaa", None),
        (VOX2, "id00012", "aaa", TRAIN),
        (VOX2, "id00017", "aaa", HELDOUT),
        ("\ufeff" + VOX2.replace("\n", "\r\n"), "id00017", "aaa", HELDOUT),
        (IDENTIFICATION, "id10001", "aaa", TRAIN),
        (IDENTIFICATION, "id10001", "bbb", HELDOUT),
        (IDENTIFICATION, "id10270", "ccc", VALIDATION),
        (IDENTIFICATION, "id10270", "aaa", None),
        (VERIFICATION, "id10270", "zzz", HELDOUT),
        (VERIFICATION, "id10300", "zzz", HELDOUT),
        (VERIFICATION, "id10001", "aaa", TRAIN),
    ],
)
def test_each_list_says_whose_split_is_which(tmp_path, text, person, video, split):
    assert split_of(tmp_path, text, person, video) == split


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "supported VoxCeleb lists: vox1_meta.csv"),
        ("id10001\nid10002\n", "supported VoxCeleb lists"),
        ("4 id10001/aaa/00001.wav\n", "supported VoxCeleb lists"),
        (VOX2 + "id00018 ,n000018 ,m ,maybe\n", "line 4 of .* no person with the set dev or test: 'id00018"),
        (VOX2 + "id00017 ,n000017 ,m ,dev\n", "contradicts itself: id00017 is in heldout and in train"),
        (IDENTIFICATION + "2 id10001/aaa/00003.wav\n", "contradicts itself: id10001/aaa is in train and in validation"),
    ],
)
def test_other_lists_are_refused(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        split_of(tmp_path, text, "id10001")


def test_a_binary_file_is_no_list(tmp_path):
    (tmp_path / "list.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"list\.txt is not valid UTF-8"):
        read_official_split(tmp_path / "list.txt")


@pytest.fixture
def voxceleb(tmp_path):
    """VoxCeleb2 as its archives unpack: two people to train on, one held out."""
    for number, path in enumerate(["dev/mp4/id00012/aaa", "dev/mp4/id00018/bbb", "test/mp4/id00017/ccc"]):
        write_talk(tmp_path / "vox" / path / "00001.mp4", (1, 3, 4)[number])
    return tmp_path / "vox"


def test_the_folders_of_the_archives_are_known(voxceleb):
    listing = list_source(voxceleb, Layout.AUTO)
    assert listing.layout is Layout.VOXCELEB
    assert [(video.video_id, video.identity, video.split, video.cropped) for video in listing.videos] == [
        ("id00012/aaa", "id00012", TRAIN, True),
        ("id00017/ccc", "id00017", HELDOUT, True),
        ("id00018/bbb", "id00018", TRAIN, True),
    ]
    assert listing.videos[1].files == ("test/mp4/id00017/ccc/00001.mp4",)
    (voxceleb / "test" / "mp4" / "id00012" / "aaa").mkdir(parents=True)
    (voxceleb / "test" / "mp4" / "id00012" / "aaa" / "00002.mp4").write_bytes(b"x")
    with pytest.raises(ValueError, match="clips of the video id00012/aaa are in two splits"):
        list_source(voxceleb, Layout.AUTO)


def test_splits_come_from_folders_or_from_the_list(voxceleb, tmp_path):
    def splits(**chosen):
        plan = make_plan(voxceleb, Settings(), Selection(**chosen))
        return {video.identity: split for video, split in zip(plan.videos, plan.splits, strict=True)}

    assert splits() == {"id00012": TRAIN, "id00017": HELDOUT, "id00018": TRAIN}
    assert splits(heldout_people=["id00018"]) == {"id00012": TRAIN, "id00017": TRAIN, "id00018": HELDOUT}
    (tmp_path / "list").write_text(VOX2)
    official = read_official_split(tmp_path / "list")
    with pytest.raises(ValueError, match="list does not list 1 of 3 videos, such as id00018/bbb"):
        splits(official=official)
    (tmp_path / "list").write_text(VOX2 + "id00018 ,n000018 ,f ,test\n")
    listed = read_official_split(tmp_path / "list")
    assert splits(official=listed) == {"id00012": TRAIN, "id00017": HELDOUT, "id00018": HELDOUT}
    with pytest.raises(ValueError, match="remove the option --heldout"):
        splits(official=listed, heldout_share=0.5)


def test_an_official_list_goes_into_the_data_set(voxceleb, tmp_path, capsys):
    (tmp_path / "list").write_text(VOX2 + "id00018 ,n000018 ,f ,test\n")
    arguments = ["--source", str(voxceleb), "--workers", "1", "--size", "64", "--frames", "3", "--gap", "0.3"]
    out = tmp_path / "out"
    official = ["--min-frames", "2", "--official-split", str(tmp_path / "list")]
    assert main([*arguments, "--out", str(out), *official]) == 0
    people = {split: [e.identity for e in entries] for split, entries in load_video_list(out).splits.items()}
    assert people == {"train": ["id00012"], "heldout": ["id00017", "id00018"]}
    assert (
        commands.build([*arguments, "--out", str(tmp_path / "new"), "--official-split", str(tmp_path / "nowhere")]) == 1
    )
    assert "No such file" in capsys.readouterr().err

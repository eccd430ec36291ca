"""The whole protocol with tiny networks: outputs, resuming, baselines, and one-sentence errors."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import evaluate
from tiny_protocol import SIZE, arguments, measured, quick_finetune, use_fake_faces, write_tiny

from th_jax.cli import evaluate as command
from th_jax.data.episodes import decode_frame
from th_jax.data.records import VideoRecords, bundled_heads
from th_jax.data.video_list import load_video_list, save_video_list
from th_jax.evaluation.protocol import run as running
from th_jax.evaluation.user_study.build import build_study
from th_jax.media import read_image
from th_jax.provenance import Kind, Provenance, write_image
from th_jax.provenance.record import read_sidecar


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("protocol")
    write_tiny(folder)
    return folder


@pytest.fixture(scope="module")
def done(folder: Path, quickly_compiled: None) -> Path:
    """A finished run, fine-tuning and all."""
    with pytest.MonkeyPatch.context() as patch:
        use_fake_faces(patch)
        assert evaluate(arguments(folder, "done", "--curve")) == 0
    return folder / "done"


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    use_fake_faces(monkeypatch)


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def copy_of(out: Path, folder: Path, *, name: str, like: str) -> None:
    """Another system's frames: those of a method of ours."""
    for place in sorted(out.glob(f"study/{like}-*/*/*.png")):
        shots, person = place.parent.parent.name.removeprefix(f"{like}-"), place.parent.name
        target = folder / name / f"T{shots}" / person / place.name
        target.parent.mkdir(parents=True, exist_ok=True)
        write_image(target, read_image(place), provenance=Provenance(kind=Kind.FIGURE))


def test_every_number_has_its_n_interval_and_failures(done: Path) -> None:
    results = read(done / "results.json")
    cells = measured(done)
    assert set(cells) == {("real", 0), *((m, t) for m in ("FF", "FT", "nearest_copy", "mean_frame") for t in (2, 3))}
    for measures in cells.values():
        assert {"l1/frame", "l1/box", "ssim", "identity/l2", "pose_error/with_failures"} <= set(measures)
        for name, estimate in measures.items():
            assert set(estimate) == {"value", "low", "high", "people", "frames", "failures"}
            failed = 0 if name.endswith("/with_failures") else estimate["failures"]
            assert estimate["frames"] + failed == (12 if name == "flicker" else 16)
            assert estimate["people"] == 0 or estimate["low"] <= estimate["value"] <= estimate["high"]
            if name == "l1/frame" and measures is not cells["real", 0]:  # of four people who differ
                assert estimate["low"] < estimate["value"] < estimate["high"]
    real = cells["real", 0]
    assert (real["l1/frame"]["value"], real["ssim"]["frames"], real["ssim"]["people"]) == (0.0, 16, 4)
    assert real["identity/l2"]["value"] == pytest.approx(0, abs=1e-6)
    assert set(results["weights"]) == {"tiny", "dlib_landmarks", "dlib_identity"}
    assert all(len(digest) == 64 for digest in results["weights"].values())
    assert results["settings"]["epochs"] == 2
    assert results["real_undetected"] == 0
    table = (done / "table.md").read_text()
    assert "| 3 | FT | 4 | 16 |" in table
    assert "| – | real | 4 | 16 |" in table


def test_numbers_are_those_of_the_images(done: Path) -> None:
    """The mean L1 of table and images agree: the stored images are those scored."""
    chosen = read(done / "chosen.json")
    assert (chosen["data"]["name"], chosen["data"]["split"], chosen["shots"]) == ("heads", "heldout", [2, 3])
    distances: list[float] = []
    records = VideoRecords(bundled_heads(), "heldout")
    numbers = {records.entry(number).video_id: number for number in range(len(records))}
    for person in chosen["people"]:
        assert set(person["shots"]["2"]) < set(person["shots"]["3"])
        assert not set(person["shots"]["3"]) & set(person["targets"])
        frames = records.read(numbers[person["video_id"]]).frames
        for number in person["targets"]:
            real = read_image(done / "study" / "real" / person["name"] / f"{number:04d}.png")
            np.testing.assert_array_equal(real, decode_frame(frames[number], size=SIZE))
            made = read_image(done / "study" / "FT-3" / person["name"] / f"{number:04d}.png")
            distances.append(np.abs(made / 255.0 - real / 255.0).mean())
    assert measured(done)["FT", 3]["l1/frame"]["value"] == pytest.approx(np.mean(distances))
    record, unchanged = read_sidecar(done / "study" / "FT-3" / person["name"] / f"{number:04d}.png")
    assert unchanged
    assert record.kind is Kind.GENERATED
    assert len(record.inputs) == 3
    assert read_sidecar(done / "study" / "real" / person["name"] / f"{number:04d}.png")[0].kind is Kind.SYNTHETIC_RENDER


def test_fine_tuning_changes_frames_and_all_shots_are_trained_on(done: Path) -> None:
    cell = read(next(iter(sorted((done / "cells" / "ours" / "T03").glob("*.json")))))
    assert cell["about"]["steps"] == 2
    assert [entry["step"] for entry in cell["about"]["curve"]] == [0, 1, 2]
    assert cell["tables"]["FF"]["l1/frame"] != cell["tables"]["FT"]["l1/frame"]
    assert cell["about"]["curve"][0]["l1/frame"] == pytest.approx(np.mean(cell["tables"]["FF"]["l1/frame"]))
    assert cell["about"]["curve"][-1]["l1/frame"] == pytest.approx(np.mean(cell["tables"]["FT"]["l1/frame"]))


def test_the_page_loads_nothing_and_lists_unconfirmed_expectations(done: Path) -> None:
    page = (done / "report.html").read_text()
    for part in ("best:", "median:", "worst:", "Quality against T", "against fine-tuning steps", "nearest_copy"):
        assert part in page, part
    assert any(f"{verdict}: FT is better with 3 shots than with 2" in page for verdict in ("onfirmed", "found"))
    assert page.count("<svg") >= 10
    assert "http" not in page.replace("http-equiv", "")
    assert page.count("data:image/png") == 3
    drawn = (done / "plots.svg").read_text()
    assert drawn.count("<g ") == page.count("<svg")
    record, unchanged = read_sidecar(done / "pictures.png")
    assert (record.kind, unchanged) == (Kind.COMPOSITE, True)
    expected = read(done / "results.json")["expected"]
    assert len(expected) >= 8
    cells = measured(done)
    for row in expected:
        found, (better, worse) = row["difference"], (tuple(row[side]) for side in ("better", "worse"))
        values = [cells[cell][row["measure"]]["value"] for cell in (better, worse)]
        assert found["value"] == pytest.approx(values[0] - values[1], abs=1e-9), row["claim"]
        gains = (found["low"], found["high"])
        if row["measure"] not in ("ssim", "identity/centred_cosine"):  # of the others, less is better
            gains = (-found["high"], -found["low"])
        wanted = "seen" if min(gains) > 0 else "the opposite was seen" if max(gains) < 0 else "not seen"
        assert row["verdict"] == wanted, row["claim"]
    assert len({row["verdict"] for row in expected}) > 1, "not all the same, or nothing was compared"


def test_a_user_study_can_be_built_of_it(done: Path, tmp_path: Path) -> None:
    key = build_study(done / "study", tmp_path / "study", triplets=4, checks=1)
    assert {(triplet.method, triplet.shots) for triplet in key.triplets.values()} == {
        ("FF", 2), ("FF", 3), ("FT", 2), ("FT", 3), ("check", 0)
    }  # fmt: skip


def test_a_resumed_run_gives_the_same_numbers(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run stopped after its first person, damaged and restarted ends like an uninterrupted one."""
    scored = 0

    def stop_after(evaluation: Any, progress: Any) -> Any:
        def count() -> None:
            nonlocal scored
            scored += 1

        return original(evaluation, progress._replace(on_cell=count, stop=lambda: scored > 5))

    monkeypatch.setattr(running, "finetune_many", quick_finetune)
    assert evaluate(arguments(folder, "straight", "--curve")) == 0
    original = running.run
    monkeypatch.setattr(command, "measure_all", stop_after)
    assert evaluate(arguments(folder, "again", "--curve")) == 75
    assert not (folder / "again" / "results.json").exists()
    kept = sorted((folder / "again" / "cells" / "ours").glob("T02/*.json"))
    assert 0 < len(kept) < 4
    kept[0].write_bytes(kept[0].read_bytes()[:100])
    monkeypatch.setattr(command, "measure_all", original)
    assert evaluate(arguments(folder, "again", "--curve")) == 0
    assert (folder / "again" / "results.json").read_bytes() == (folder / "straight" / "results.json").read_bytes()
    monkeypatch.setattr(running, "finetune_many", lambda *people, **settings: iter(()))
    assert evaluate(arguments(folder, "again", "--curve")) == 0, "nothing is left to fine-tune"
    capsys.readouterr()
    assert evaluate(arguments(folder, "again", "--curve", "--seed", "1")) == 1
    assert "again holds an evaluation with another chosen, records, seed" in capsys.readouterr().err
    monkeypatch.setattr(command.VideoRecords, "crc", lambda records, number: 7)
    monkeypatch.setattr(command, "__version__", "0.0.0")
    given = arguments(folder, "again", "--curve")
    assert "again holds an evaluation with another records, version" in refused(capsys, given)


def test_another_system_on_the_same_frames(done: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Our frames under another name get our numbers; a missing or removed T is skipped."""
    copy_of(done, folder, name="other", like="FT")
    theirs = ["--baseline", f"other={folder / 'other'}"]
    assert evaluate(arguments(folder, "done", "--curve", *theirs)) == 0
    assert measured(done)["other", 2] == measured(done)["FT", 2]
    kept = sorted((done / "study" / "other-2").rglob("*.png"))
    assert {read_sidecar(path)[0].software for path in kept} == {"other"}, "not what this software made"
    for path in sorted((folder / "other" / "T2").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    (folder / "other" / "T2").rmdir()
    monkeypatch.setattr(running, "finetune_many", lambda *people, **settings: iter(()))
    assert evaluate(arguments(folder, "done", "--curve", *theirs)) == 0
    cells = measured(done)
    assert cells["other", 3] == cells["FT", 3]
    assert ("other", 2) not in cells
    assert "| 3 | other | 4 | 16 |" in (done / "table.md").read_text()
    assert evaluate(arguments(folder, "done", "--curve")) == 0
    assert measured(done) == {cell: cells[cell] for cell in cells if cell[0] != "other"}


def test_frames_without_faces_are_charged_and_counted(done: Path, folder: Path) -> None:
    copy_of(done, folder, name="flat", like="FT")
    for path in (folder / "flat" / "T3").rglob("*.png"):
        write_image(path, np.full((SIZE, SIZE, 3), 90, np.uint8), provenance=Provenance(kind=Kind.FIGURE))
    assert evaluate(arguments(folder, "done", "--curve", "--baseline", f"flat={folder / 'flat'}")) == 0
    results, cells = read(done / "results.json"), measured(done)
    flat = cells["flat", 3]
    assert (flat["pose_error"]["value"], flat["pose_error"]["frames"], flat["pose_error"]["failures"]) == (None, 0, 16)
    assert flat["pose_error/with_failures"]["value"] == results["charges"]["pose_error"]
    assert flat["pose_error/with_failures"]["failures"] == 16
    assert flat["faces/undetected"]["value"] == 1
    assert cells["flat", 2] == cells["FT", 2]


def test_crossed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "finetune_many", quick_finetune)
    original, poses = running.cross_table, {}

    def spied(*frames: Any, pose: np.ndarray, person: str, **rest: Any) -> Any:
        poses[person, rest.get("own_motion", False)] = pose
        return original(*frames, pose=pose, person=person, **rest)

    monkeypatch.setattr(running, "cross_table", spied)
    assert evaluate(arguments(folder, "cross", "--retargeting", "shape", protocol="cross")) == 0
    chosen = {person["name"]: person for person in read(folder / "cross" / "chosen.json")["people"]}
    drivers = [person["driver"] for person in chosen.values()]
    assert sorted(drivers) == sorted(chosen), "each person drives once"
    assert all(person["driver"] != name for name, person in chosen.items())
    for name, person in chosen.items():
        np.testing.assert_array_equal(poses[name, False], poses[person["driver"], True])
        assert not np.array_equal(poses[name, False], poses[name, True])
    cells = measured(folder / "cross")
    assert np.isfinite(cells["driver", 0]["pose_error"]["value"])
    assert cells["driver", 0]["expression_error"]["value"] == pytest.approx(0, abs=1e-6)
    assert cells["driver", 0]["identity/lost"]["value"] > 0.5
    assert cells["nearest_copy", 3]["identity/lost"]["value"] < 0.5
    assert "l1/frame" not in cells["FT", 3]
    own = cells["FT self-driven", 3]
    assert own["identity/lost"]["value"] <= cells["driver", 0]["identity/lost"]["value"]
    assert set(own) == set(cells["FT", 3])
    table = (folder / "cross" / "table.md").read_text()
    ratio = cells["FT", 3]["identity/centred_cosine/with_failures"]["value"]
    ratio /= own["identity/centred_cosine/with_failures"]["value"]
    assert f"(ratio {ratio:.2f})" in table
    assert table.count("relative to self-driven.") == 2  # a sentence for each T
    assert not (folder / "cross" / "study" / "study_frames.json").exists()
    assert "L1, face" not in (folder / "cross" / "report.html").read_text()


def refused(capsys: pytest.CaptureFixture[str], given: list[str]) -> str:
    """The one-sentence error."""
    assert evaluate(given) == 1
    said = capsys.readouterr().err
    assert said.startswith("th-jax evaluate: ")
    assert said.count("\n") == 1
    return said


def test_an_empty_split_and_short_videos(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    videos = load_video_list(bundled_heads())
    save_video_list(videos.forget([str(entry.video_id) for entry in videos.entries("heldout")]), tmp_path)
    for path in bundled_heads().glob("heads-heldout*"):
        (tmp_path / path.name).symlink_to(path)
    given = arguments(folder, "bad")
    given[given.index("bundled")] = str(tmp_path)
    assert "'heldout', 0 videos) is empty" in refused(capsys, given)
    said = refused(capsys, [*arguments(folder, "bad"), "--shots", "32", "--targets", "40"])
    assert "4 videos with 32 shots and 40 other targets are needed, but only 0 of" in said
    assert "video 'head-100000' has 64" in said
    assert "expected 25 people" in refused(capsys, [*arguments(folder, "bad"), "--people", "25"])
    assert not (folder / "bad").exists(), "nothing is begun"


def test_no_face_in_any_real_frame(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = running.measure_faces
    monkeypatch.setattr(running, "measure_faces", lambda frames: original(np.zeros_like(frames)))
    said = refused(capsys, arguments(folder, "faceless"))
    assert "the detector found no face in any of 16 real target frames" in said


def test_weights_and_names_that_are_not_there(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = arguments(folder, "bad")
    given[1] = str(folder / "nothing.safetensors")
    assert "there are no released weights at" in refused(capsys, given)
    assert "does not exist" in refused(capsys, arguments(folder, "bad2", "--baseline", f"x={folder / 'nowhere'}"))
    for text in ("FT=x", "x", "a/b=c"):
        said = refused(capsys, arguments(folder, "bad2", "--baseline", text))
        assert "is taken" in said or "is given as NAME=FOLDER" in said
    assert "omit --no-faces" in refused(capsys, arguments(folder, "bad2", "--no-faces", protocol="cross"))


def test_images_of_mixed_sizes_and_missing_ones(
    done: Path, folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    copy_of(done, tmp_path, name="theirs", like="FF")
    given = arguments(folder, "done", "--curve", "--baseline", f"theirs={tmp_path / 'theirs'}")
    first = sorted((tmp_path / "theirs").rglob("*.png"))[0]
    write_image(first, np.zeros((32, 32, 3), np.uint8), provenance=Provenance(kind=Kind.FIGURE))
    assert f"{first.name} is 32x32 pixels, but expected 16x16" in refused(capsys, given)
    first.unlink()
    assert f"{first.name} is missing" in refused(capsys, given)
    (tmp_path / "theirs").joinpath("T2").rename(tmp_path / "theirs" / "T1")
    (tmp_path / "theirs").joinpath("T3").rename(tmp_path / "theirs" / "T4")
    assert "none of the folders T2, T3 exists" in refused(capsys, given)


@pytest.mark.slow
def test_the_bundled_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With dlib and the bundled networks, on fewer people than the protocol's."""
    monkeypatch.undo()
    given = ["--meta", "heads64", "--data", "bundled", "--protocol", "heads", "--people", "4", "--shots", "1", "8"]
    assert evaluate([*given, "--targets", "4", "--quiet", "--out", str(tmp_path / "out")]) == 0
    cells = measured(tmp_path / "out")
    assert cells["real", 0]["faces/undetected"]["value"] == 0
    for method in ("FF", "FT"):
        assert cells[method, 8]["vgg16_distance"]["frames"] == 16
        assert cells[method, 8]["faces/undetected"]["value"] < 0.5
        mine, mean = (cells[name, 8]["landmark_error/with_failures"]["value"] for name in (method, "mean_frame"))
        assert mine < mean, "the head follows"


def test_shards_make_what_one_process_makes(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each person is measured once, by the shard that the split says; the command without a shard joins them."""
    monkeypatch.setattr(running, "finetune_many", quick_finetune)
    assert evaluate(arguments(folder, "alone")) == 0
    monkeypatch.setenv("SKYPILOT_JOB_RANK", "0")
    monkeypatch.setenv("SKYPILOT_NUM_JOBS", "2")
    assert evaluate(arguments(folder, "shared")) == 0
    monkeypatch.delenv("SKYPILOT_JOB_RANK")
    said = capsys.readouterr().out
    assert "shard 1 of 2 (from SKYPILOT_JOB_RANK and SKYPILOT_NUM_JOBS): 2 of 4 people" in said
    assert not (folder / "shared" / "results.json").exists()
    first = {path.stem for path in (folder / "shared").glob("cells/*/*/*.json")}
    assert len(first) == 2
    assert evaluate(arguments(folder, "shared", "--shard", "2/2")) == 0
    cells = {path: path.stat().st_mtime_ns for path in (folder / "shared").glob("cells/**/*.json")}
    assert evaluate(arguments(folder, "shared", "--shard", "1/1")) == 0
    assert {path: path.stat().st_mtime_ns for path in (folder / "shared").glob("cells/**/*.json")} == cells
    assert read(folder / "shared" / "results.json") == read(folder / "alone" / "results.json")

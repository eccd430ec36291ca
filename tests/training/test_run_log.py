"""A run's log: each step once, JSON whatever the numbers, pictures with provenance, and nothing from other processes."""

import json
import math
import struct
import time
from pathlib import Path

import fsspec
import jax.numpy as jnp
import numpy as np
import pytest
from file_limit import files_of_at_most
from tensorboardX.proto.event_pb2 import Event

from th_jax.media import read_image
from th_jax.provenance import Kind, read_sidecar
from th_jax.storage.run_folder import read_metrics
from th_jax.training import run_log
from th_jax.training.run_log import RunLog


def open_log(workdir: Path | str, **settings) -> RunLog:
    return RunLog(workdir, **{"total_steps": 100, "start_step": 0, "tensorboard": False, "progress": False} | settings)


def steps(workdir: Path) -> list[int]:
    return [line["step"] for line in read_metrics(workdir / "metrics.jsonl")]


def events(workdir: Path) -> list[Event]:
    """All events of a run, parsed from their records (length, checksum, event, checksum)."""
    found = []
    for path in sorted((workdir / "tensorboard").iterdir()):
        content = path.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            found.append(Event.FromString(content[12 : 12 + length]))
            content = content[16 + length :]
    return found


def test_metrics_are_lines_that_can_be_followed(tmp_path: Path) -> None:
    with open_log(tmp_path / "run") as log:
        log.metrics(10, {"loss/content": 1.5, "score/real": jnp.float32(0.25)})
        (line,) = read_metrics(tmp_path / "run" / "metrics.jsonl")  # before it is closed
        assert line.pop("time") == pytest.approx(time.time(), abs=60)
        assert line == {"step": 10, "loss/content": 1.5, "score/real": 0.25}
        log.metrics(10, {"heldout/l1": 1})
        log.metrics(20, {"loss/content": 1.0})
        with pytest.raises(ValueError, match="in the order of their steps, but step 15 follows 20"):
            log.metrics(15, {"loss/content": 1.0})
        with pytest.raises(ValueError, match=r"the metric loss/pair must be one number, but is ndarray"):
            log.metrics(30, {"loss/pair": np.ones(2)})
    log.close()
    assert steps(tmp_path / "run") == [10, 10, 20]


def test_numbers_that_are_not_finite_leave_the_file_json(tmp_path: Path) -> None:
    with open_log(tmp_path) as log:
        log.metrics(1, {"a": math.nan, "b": math.inf, "c": np.float32(-np.inf), "d": 2})
    (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    plain = json.loads(line, parse_constant=refuse)
    assert [plain[name] for name in "abcd"] == ["nan", "inf", "-inf", 2.0]
    (read,) = read_metrics(tmp_path / "metrics.jsonl")
    assert math.isnan(read["a"])
    assert (read["b"], read["c"]) == (math.inf, -math.inf)


def test_going_on_drops_later_steps_and_a_torn_line(tmp_path: Path) -> None:
    with open_log(tmp_path) as log:
        for step in (10, 20, 30):
            log.metrics(step, {"x": step})
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(path.read_bytes() + b'{"step": 40, "time": 17')
    assert steps(tmp_path) == [10, 20, 30]
    with open_log(tmp_path, start_step=20) as log:
        log.metrics(30, {"x": -30})
    assert [(line["step"], line["x"]) for line in read_metrics(path)] == [(10, 10), (20, 20), (30, -30)]
    with open_log(tmp_path, start_step=100):
        pass
    assert steps(tmp_path) == [10, 20, 30]
    with open_log(tmp_path):
        pass
    assert steps(tmp_path) == []


def test_tensorboard_has_scalars_and_pictures_and_purges(tmp_path: Path) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    with open_log(tmp_path, tensorboard=True) as log:
        log.metrics(10, {"loss/content": 1.5})
        log.picture(10, "samples", frame)
    found = events(tmp_path)
    values = [(event.step, value) for event in found for value in event.summary.value]
    assert [(step, value.tag) for step, value in values] == [(10, "loss/content"), (10, "samples")]
    assert values[0][1].simple_value == 1.5
    assert values[1][1].image.encoded_image_string == (tmp_path / "samples" / "000010.png").read_bytes()
    assert (values[1][1].image.height, values[1][1].image.width) == (8, 12)
    time.sleep(1.1)  # events files are named by the second
    with open_log(tmp_path, tensorboard=True, start_step=5):
        pass
    starts = [event for event in events(tmp_path) if event.session_log.status == event.session_log.START]
    assert starts[-1].step == 6


def test_what_could_not_be_measured_is_no_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with open_log(tmp_path, tensorboard=True) as log:
        log.metrics(10, {"a": math.nan, "b": math.inf, "c": 1.0})
    values = {value.tag: value.simple_value for event in events(tmp_path) for value in event.summary.value}
    assert math.isnan(values["a"])
    assert (values["b"], values["c"]) == (math.inf, 1.0)
    assert capsys.readouterr() == ("", "")


def test_pictures_are_written_with_their_provenance(tmp_path: Path) -> None:
    grid = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 5, 3), dtype=np.uint8)
    with open_log(tmp_path / "a_run") as log:
        path = log.picture(200, "samples", grid)
        with pytest.raises(ValueError, match=r"small letters, digits and _, but is '\.\./x'"):
            log.picture(200, "../x", grid)
    assert path == tmp_path / "a_run" / "samples" / "000200.png"
    picture = read_image(path)
    assert picture.shape == (8, 15, 3)
    np.testing.assert_array_equal(picture[4:8, 10:15], grid[1, 2])
    record, intact = read_sidecar(path)
    assert intact
    assert (record.kind, record.notes) == (Kind.TRAINING_GRID, "samples at step 200 of the run a_run")


def test_other_processes_are_silent(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with open_log(tmp_path / "run", process_index=1, progress=True, tensorboard=True) as log:
        log.metrics(1, {"x": 1.0})
        log.progress(100, {"x": 1.0})
        log.message("hello")
        assert log.picture(1, "samples", np.zeros((4, 4, 3), np.uint8)) is None
    assert not (tmp_path / "run").exists()
    assert capsys.readouterr() == ("", "")


def test_without_a_terminal_progress_is_a_line_every_ten_seconds(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(run_log.time, "monotonic", lambda: clock[0])

    class Unread:
        def __float__(self) -> float:
            raise AssertionError("reading a loss waits for the device")

    with open_log(tmp_path, progress=True, total_steps=1000, start_step=400) as log:
        for step in range(401, 422):
            clock[0] += 0.5
            log.progress(step, {"loss/content": 2.0 if step % 20 == 0 else Unread(), "score": Unread()})
        log.message("a word")
        clock[0] += 1
        log.progress(1000, {"loss/content": 1.0})
    said = capsys.readouterr().err.splitlines()
    assert said == [
        "step 420 of 1000 · 2 steps/s · 5 min left · content 2",
        "a word",
        "step 1000 of 1000 · 52.2 steps/s · 0 min left · content 1",
    ]


def test_on_a_terminal_progress_is_a_bar(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_log.sys.stderr, "isatty", lambda: True, raising=False)
    with open_log(tmp_path, progress=True, total_steps=8, start_step=2) as log:
        log.progress(4, {"loss/content": 2.0, "score/real": 1.0})
        log.message("a word")
        log.progress(8, {"loss/content": 1.0, "score/real": 1.0})
    said = capsys.readouterr().err
    assert "8/8" in said
    assert "content=1]" in said
    assert "a word\n" in said


def test_a_bar_moves_every_step_and_reads_the_losses_once_a_second(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, read = [0.0], []
    monkeypatch.setattr(run_log.sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(run_log.time, "monotonic", lambda: clock[0])

    class Loss:
        def __init__(self, step: int) -> None:
            self.step = step

        def __float__(self) -> float:
            read.append(self.step)
            return float(self.step)

    with open_log(tmp_path, progress=True, total_steps=23) as log:
        for step in range(1, 24):
            clock[0] += 0.125
            log.progress(step, {"loss/content": Loss(step), "score/real": Loss(-step)})
            assert log._bar.n == step
    assert read == [8, 16, 23], "once a second and at the end, whatever the steps take"
    assert "content=23]" in capsys.readouterr().err


def test_a_workdir_at_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(run_log.time, "monotonic", lambda: clock[0])
    memory = fsspec.filesystem("memory")
    with open_log("memory://runs/a") as log:
        log.metrics(1, {"x": 1.0})
        assert not memory.exists("/runs/a/metrics.jsonl")
        clock[0] += 61
        log.metrics(2, {"x": 2.0})
        assert [line["x"] for line in read_metrics("memory://runs/a/metrics.jsonl")] == [1, 2]
        log.metrics(3, {"x": 3.0})
        log.picture(3, "samples", np.zeros((4, 4, 3), np.uint8))
    with open_log("memory://runs/a", start_step=2) as log:
        log.metrics(4, {"x": 4.0})
    assert [line["x"] for line in read_metrics("memory://runs/a/metrics.jsonl")] == [1, 2, 4]
    assert sorted(Path(name).name for name in memory.ls("/runs/a/samples", detail=False)) == [
        "000003.png",
        "000003.png.provenance.json",
    ]


def test_a_full_disk_does_not_end_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What could not be written is written later, if there is room again."""
    with RunLog(tmp_path, total_steps=9, start_step=0, tensorboard=False) as log:
        log.metrics(1, {"loss/generator": 1.0})
        with files_of_at_most((tmp_path / "metrics.jsonl").stat().st_size):
            log.metrics(2, {"loss/generator": 2.0})
            assert log.picture(2, "samples", np.zeros((600, 600, 3), np.uint8)) is None
        log.metrics(3, {"loss/generator": 3.0})
        assert log.picture(3, "samples", np.zeros((6, 6, 3), np.uint8)) is not None
    assert [line["step"] for line in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2, 3]
    assert capsys.readouterr().err.count("NOT LOGGED: ") == 2
    assert [path.name for path in (tmp_path / "samples").glob("*.png")] == ["000003.png"]

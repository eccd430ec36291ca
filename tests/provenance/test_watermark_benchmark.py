"""The watermark benchmark: measurements are stored and tabulated."""

import json
from pathlib import Path

import numpy as np
import pytest
from marked_heads import heads

from benchmarks import watermark as benchmark
from benchmarks.watermark import measured
from benchmarks.watermark_hosts import Video
from benchmarks.watermark_report import report, rows_of


@pytest.fixture(autouse=True)
def few_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "CHANGES", {name: benchmark.CHANGES[name] for name in ("clean", "JPEG 75")})
    monkeypatch.setattr(benchmark, "CRFS", (23,))


def test_measurements_are_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def make() -> np.ndarray:
        made.append(1)
        return heads(64, people=1, frames=5)

    video = Video("ada", make)
    first = measured(video, (256, 64), (0.0,), tmp_path)
    assert {(size, psnr) for size, psnr, _ in first} == {(64, 37.0)}, "no video is enlarged"
    assert [way for _, _, way in first] == ["clean", "JPEG 75", "video, CRF 23"]
    assert all(outcome.read and outcome.psnr >= 37 and outcome.chips_wrong < 0.4 for outcome in first.values())
    assert measured(video, (256, 64), (0.0,), tmp_path) == first
    assert len(made) == 1
    more = measured(video, (256, 64), (0.0, 2.0), tmp_path)
    assert len(made) == 2
    assert {psnr for _, psnr, _ in more} == {37.0, 39.0}
    assert {key: outcome for key, outcome in more.items() if key[1] == 37.0} == first
    monkeypatch.setattr(benchmark, "code_digest", lambda: "of a changed watermark")
    measured(video, (64,), (0.0,), tmp_path)
    assert len(made) == 3
    assert json.loads((tmp_path / "ada.json").read_text())["code"] == "of a changed watermark"


def test_tables_list_missed_marks() -> None:
    read, missed = (38.0, 0.2, 1.0, 1.0, 0.0), (37.5, 0.4, 0.5, 0.0, 2.0)
    rows = rows_of({(64, 37.0, "clean"): {"ada": read, "bob": missed}, (64, 39.0, "clean"): {"ada": read}})
    assert rows[0] == {
        "size": 64, "psnr": 37.0, "way": "clean", "n": 2, "least_psnr": 37.5, "chips_wrong": 0.3, "bits": 0.75, "marks": 0.5,
        "wrong": 2, "missed": ["bob"],
    }  # fmt: skip
    text = report("Heads", rows)
    assert "| clean | 30 % | 50 % |" in text
    assert "- 64 px, clean: missed bob" in text
    assert "Messages found that were never embedded: 2." in text
    assert "| 64 px, detected at | 37 dB | 39 dB (of 1) |" in text
    assert "| clean | 50 % | 100 % |" in text
